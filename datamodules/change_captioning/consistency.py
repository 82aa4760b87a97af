"""Contradictions between the captions, the change flag and the change mask of a pair."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lightning_plugins.datamodules.change_captioning.caption_files import PairRecord
from lightning_plugins.inputs import opened_image
from lightning_plugins.metrics.captioning.caption_words import states_no_change


@dataclass
class Consistency:
    """Counts of the pairs of a data set; ``str`` gives a table.

    Attributes:
        pairs: Number of pairs.
        with_flag: Pairs with a change flag.
        with_mask: Pairs with a change mask.
        contradictory: Pairs with any of the contradictions.
        ids: Contradiction -> ids of its pairs.
    """

    pairs: int = 0
    with_flag: int = 0
    with_mask: int = 0
    contradictory: int = 0
    ids: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        share = self.contradictory / max(1, self.pairs)
        lines = [
            f"{self.pairs} pairs, {self.with_flag} with a flag, {self.with_mask} with a mask; "
            f"{self.contradictory} ({share:.1%}) contradict themselves"
        ]
        for name, ids in self.ids.items():
            lines.append(f"  {name}: {len(ids)}, for example {', '.join(ids[:3])}")
        return "\n".join(lines)


def consistency(records: Iterable[PairRecord]) -> Consistency:
    """Compare what the captions, the flag and the mask of each pair state about a change.

    A caption states no change by
    :func:`~lightning_plugins.metrics.captioning.caption_words.states_no_change`; the captions of a
    pair state what most of them do. A mask states a change if a pixel is not 0.

    Raises:
        ValueError: A mask is not a readable image.
    """
    found = Consistency()
    for record in records:
        stated: dict[str, bool] = {}
        still = sum(map(states_no_change, record.captions))
        names = []
        if record.captions and 2 * still != len(record.captions):
            stated["captions"] = 2 * still < len(record.captions)
        if 0 < still < len(record.captions):
            names.append("captions of one pair differ")
        if record.changed is not None:
            stated["flag"] = record.changed
        if record.mask is not None:
            stated["mask"] = _has_change(record.mask)
        for one, other in (("captions", "flag"), ("captions", "mask"), ("flag", "mask")):
            if one in stated and other in stated and stated[one] != stated[other]:
                kinds = ("change", "no change") if stated[one] else ("no change", "change")
                names.append(f"{one}: {kinds[0]}, {other}: {kinds[1]}")
        found.pairs += 1
        found.with_flag += record.changed is not None
        found.with_mask += record.mask is not None
        found.contradictory += bool(names)
        for name in names:
            found.ids.setdefault(name, []).append(record.id)
    return found


def _has_change(mask: Path) -> bool:
    try:
        with opened_image(mask) as image:
            visible = image.convert("L") if image.mode in ("LA", "La") else image
            extrema = visible.convert("RGB" if image.mode == "RGBA" else visible.mode).getextrema()
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{mask} is not a readable mask: {error}") from error
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return any(high for _, high in bands)
