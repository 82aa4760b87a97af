"""Where the images of a change-captioning data set are, relative to its caption file."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_plugins.inputs import path_inside

_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_WHAT = "the caption file"


@dataclass(frozen=True)
class ImageFolders:
    """The folders of the first images, the second images and the change masks, if there are any."""

    before: Path
    after: Path
    mask: Path | None = None

    def files(self, name: object) -> tuple[Path, Path, Path | None]:
        """Return the two images of a pair, and its mask or None.

        Raises:
            ValueError: ``name``, which a caption file contains, leads out of the folders.
        """
        before, after = path_inside(self.before, name, _WHAT), path_inside(self.after, name, _WHAT)
        mask = path_inside(self.mask, name, _WHAT) if self.mask is not None else None
        return before, after, mask if mask is not None and mask.is_file() else None


def image_folders(folder: Path, place: object) -> ImageFolders:
    """Find the folders of the images of a part of a data set.

    Tried in this order, each with and without ``images/`` before it:

    - ``<place>/A`` and ``B``, with masks in ``<place>/label`` (LEVIR-CC, LEVIR-MCI, WHU-CDC);
    - ``<place>/rgb/A`` and ``B`` (SECOND-CC);
    - ``A`` and ``B`` of the data set itself;
    - two folders whose names contain a year, also below ``<place>``, ``RGB`` or ``rgb``
      (``RGB/500_2000`` and ``RGB/500_2010`` of Dubai-CC); the earlier year is the first.

    Args:
        folder: The data set.
        place: ``filepath`` of the caption file, or the name of the part.

    Raises:
        ValueError: ``place`` leads out of the folder.
    """
    path_inside(folder, place, _WHAT)
    for parent in _candidates(folder, str(place)):
        if (parent / "A").is_dir() and (parent / "B").is_dir():
            mask = parent / "label"
            return ImageFolders(parent / "A", parent / "B", mask if mask.is_dir() else None)
        if years := _folders_of_two_years(parent):
            return ImageFolders(*years)
    # Not there: a later check names the first missing file.
    root = folder / "images" if (folder / "images").is_dir() else folder
    return ImageFolders(root / str(place) / "A", root / str(place) / "B")


def _candidates(folder: Path, place: str) -> Iterator[Path]:
    for inner in (place, f"{place}/rgb", f"{place}/RGB", "", "rgb", "RGB"):
        for root in (folder / "images", folder):
            yield root / inner if inner else root


def _folders_of_two_years(parent: Path) -> tuple[Path, Path] | None:
    if not parent.is_dir():
        return None
    years = {
        int(found[-1]): child
        for child in sorted(parent.iterdir())
        if child.is_dir() and (found := _YEAR.findall(child.name))
    }
    if len(years) != 2:
        return None
    first, second = sorted(years)
    return years[first], years[second]
