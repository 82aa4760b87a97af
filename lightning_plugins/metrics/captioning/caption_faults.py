"""Why a caption of a change is wrong: existence, category or place, by the words of captions."""

from collections.abc import Iterable, Sequence

from lightning_plugins.metrics.captioning.caption_words import caption_words, states_no_change

CATEGORIES = {
    "building": "house houses building buildings villa villas residential factory plant hut huts",
    "road": "road roads path paths street streets highway roundabout lane bridge",
    "vegetation": "tree trees wood woods forest forests vegetation plants bush bushes grass meadow",
    "water": "pond ponds lake lakes river rivers water pool pools swimming",
    "bare land": "bareland desert sand ground soil",
    "vehicle": "car cars vehicle vehicles truck trucks ship ships",
    "parking lot": "parking",
}
"""Category -> words that name it."""
PLACES = {
    "top": "top upper north northern above",
    "bottom": "bottom lower south southern below",
    "left": "left west western",
    "right": "right east eastern",
    "middle": "middle centre center central",
}
"""Place -> words that name it."""


def caption_faults(
    caption: str, references: Sequence[str], changed: bool | None = None
) -> tuple[str, ...]:
    """Return what is wrong with a caption: some of ``existence``, ``category`` and ``place``.

    Words are compared with those of
    :data:`~lightning_plugins.metrics.captioning.caption_faults.CATEGORIES` and
    :data:`~lightning_plugins.metrics.captioning.caption_faults.PLACES`, so other errors, such as a
    wrong number, are not found.

    - ``existence``: the caption states a change and most references do not, or the reverse. A
      missing (empty) caption is one too.
    - ``category``: the caption names categories, and none of them is in a reference.
    - ``place``: the caption names a place that is in no reference, and a reference names one.

    Args:
        caption: The generated caption.
        references: One or more human captions.
        changed: Whether anything changed; None lets the references decide.
    """
    if changed is None:
        changed = 2 * sum(map(states_no_change, references)) <= len(references)
    if not caption.strip() or states_no_change(caption) is changed:
        return ("existence",)
    if not changed:
        return ()
    faults = []
    categories = _named(CATEGORIES, [caption])
    wanted = _named(CATEGORIES, references)
    if categories and wanted and not categories & wanted:
        faults.append("category")
    places = _named(PLACES, references)
    if places and _named(PLACES, [caption]) - places:
        faults.append("place")
    return tuple(faults)


def _named(vocabulary: dict[str, str], sentences: Iterable[str]) -> set[str]:
    words = {word for sentence in sentences for word in caption_words(sentence)}
    return {name for name, members in vocabulary.items() if words & set(members.split())}
