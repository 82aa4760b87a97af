"""Captions of a change from templates, in grammatical English."""

from lightning_plugins.datamodules.change_captioning.tile_scene import Event

NO_CHANGE = (
    "the scene is the same as before",
    "nothing has changed between the two images",
    "there is no change in this place",
    "both images show the same scene",
    "the place looks as it did before",
)
_NUMBERS = ("", "one", "two", "three")
_NOUNS = {
    "built": ("house", "houses"),
    "demolished": ("house", "houses"),
    "cleared": ("group of trees", "groups of trees"),
    "planted": ("group of trees", "groups of trees"),
    "flooded": ("pond", "ponds"),
}
_TEMPLATES = {
    "built": (
        "{number} {noun} {be} built at the {place}",
        "{number} new {noun} {appear} at the {place}",
        "at the {place} {number} {noun} {have} been built",
        "there {be} {number} new {noun} at the {place} of the image",
        "{number} {noun} {show} up at the {place} of the scene",
    ),
    "demolished": (
        "{number} {noun} {be} demolished at the {place}",
        "{number} {noun} at the {place} {disappear}",
        "at the {place} {number} {noun} {have} been torn down",
        "{number} {noun} {be} removed at the {place} of the image",
        "{number} {noun} {be} gone at the {place} of the scene",
    ),
    "cleared": (
        "{number} {noun} {be} cut down at the {place}",
        "{number} {noun} at the {place} {disappear}",
        "at the {place} {number} {noun} {have} been cleared",
        "{number} {noun} {be} removed at the {place} of the image",
        "{number} {noun} {be} gone at the {place} of the scene",
    ),
    "planted": (
        "{number} {noun} {be} planted at the {place}",
        "{number} new {noun} {appear} at the {place}",
        "at the {place} {number} {noun} {have} grown",
        "there {be} {number} new {noun} at the {place} of the image",
        "{number} {noun} {show} up at the {place} of the scene",
    ),
    "flooded": (
        "{number} {noun} {be} dug at the {place}",
        "{number} new {noun} {appear} at the {place}",
        "at the {place} {number} {noun} {have} been made",
        "there {be} {number} new {noun} at the {place} of the image",
        "{number} {noun} {show} up at the {place} of the scene",
    ),
    "road": (
        "a road is built {place}",
        "a new road runs {place}",
        "a road {place} has been built",
        "there is a new road {place} of the image",
        "a road appears {place} of the scene",
    ),
}
_VERBS = (
    ("be", "is", "are"),
    ("have", "has", "have"),
    ("appear", "appears", "appear"),
    ("disappear", "disappears", "disappear"),
    ("show", "shows", "show"),
)


def captions_of(event: Event) -> tuple[str, ...]:
    """Return five sentences that describe a change, or the five ``NO_CHANGE`` sentences."""
    if event.kind == "none":
        return NO_CHANGE
    many = event.count > 1
    words = {name: plural if many else singular for name, singular, plural in _VERBS}
    words |= {"place": event.place, "number": _NUMBERS[event.count]}
    if event.kind in _NOUNS:
        words["noun"] = _NOUNS[event.kind][many]
    return tuple(template.format(**words) for template in _TEMPLATES[event.kind])
