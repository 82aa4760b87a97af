"""Where the images of a change-captioning data set are, relative to its caption file."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
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
    _listed: dict[Path, dict[str, Path]] = field(default_factory=dict, compare=False, repr=False)

    def files(self, name: object) -> tuple[Path, Path, Path | None]:
        """Return the two images of a pair, and its mask or None.

        Raises:
            ValueError: ``name``, which a caption file contains, leads out of the folders.
        """
        before, after = self._file(self.before, name), self._file(self.after, name)
        mask = self._file(self.mask, name) if self.mask is not None else None
        return before, after, mask if mask is not None and mask.is_file() else None

    def _file(self, folder: Path, name: object) -> Path:
        """Return a file, also if its name has other capitals than ``name``."""
        file = path_inside(folder, name, _WHAT)
        if file.is_file() or not file.parent.is_dir():
            return file
        if file.parent not in self._listed:
            self._listed[file.parent] = {one.name.lower(): one for one in file.parent.iterdir()}
        return self._listed[file.parent].get(file.name.lower(), file)


def image_folders(folder: Path, place: object, beside: Path | None = None) -> ImageFolders:
    """Find the folders of the images of a part of a data set.

    Tried in this order, each with and without ``images/`` before it, below ``folder`` and then
    below ``beside``:

    - ``<place>/A`` and ``B``, with masks in ``<place>/label`` (LEVIR-CC, LEVIR-MCI, WHU-CDC);
    - ``<place>/rgb/A`` and ``B`` (SECOND-CC);
    - ``A`` and ``B`` of the data set itself;
    - two folders whose names contain a year, also below ``<place>``, ``RGB`` or ``rgb``
      (``RGB/500_2000`` and ``RGB/500_2010`` of Dubai-CC); the earlier year is the first.

    Folders are also found if their names have other capitals (``Images/Train/a``).

    Args:
        folder: The data set.
        place: ``filepath`` of the caption file, or the name of the part.
        beside: Folder of the caption file, if it is a subfolder of the data set.

    Raises:
        ValueError: ``place`` leads out of the folder.
    """
    path_inside(folder, place, _WHAT)
    roots = dict.fromkeys((folder, beside or folder))
    for parent in (found for root in roots for found in _candidates(root, str(place))):
        before, after = _folder(parent, "A"), _folder(parent, "B")
        if before is not None and after is not None:
            return ImageFolders(before, after, _folder(parent, "label"))
        if years := _folders_of_two_years(parent):
            return ImageFolders(*years)
    # Not there: a later check names the first missing file.
    root = folder / "images" if (folder / "images").is_dir() else folder
    return ImageFolders(root / str(place) / "A", root / str(place) / "B")


def _candidates(folder: Path, place: str) -> Iterator[Path]:
    for inner in (place, f"{place}/rgb", "", "rgb"):
        for start in ("images", ""):
            if (found := _folder(folder, f"{start}/{inner}")) is not None:
                yield found


def _folder(parent: Path, relative: str) -> Path | None:
    """Return a folder below ``parent``, also if its name has other capitals, or None."""
    for name in filter(None, relative.split("/")):
        exact = parent / name
        if not exact.is_dir():
            children = sorted(parent.iterdir()) if parent.is_dir() else []
            alike = (child for child in children if child.name.lower() == name.lower())
            if (found := next(filter(Path.is_dir, alike), None)) is None:
                return None
            exact = found
        parent = exact
    return parent


def _folders_of_two_years(parent: Path) -> tuple[Path, Path] | None:
    years = {
        int(found[-1]): child
        for child in sorted(parent.iterdir())
        if child.is_dir() and (found := _YEAR.findall(child.name))
    }
    if len(years) != 2:
        return None
    first, second = sorted(years)
    return years[first], years[second]
