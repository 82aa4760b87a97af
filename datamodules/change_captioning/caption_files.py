"""Readers of the caption files of published change-captioning data sets."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_plugins.datamodules.file_error_context import file_error_context
from lightning_plugins.inputs import parse_json, path_inside, quoted


@dataclass(frozen=True)
class PairRecord:
    """Two images of one place, with their captions.

    Args:
        id: Name of the pair, unique in its data set.
        before: File of the first image.
        after: File of the second image.
        captions: Human captions of the change; may be empty.
        changed: Whether anything changed; None if unknown.
        split: ``train``, ``val`` or ``test``.
    """

    id: str
    before: Path
    after: Path
    captions: tuple[str, ...] = ()
    changed: bool | None = None
    split: str = "train"


SPLITS = ("train", "val", "test")


def read_captions(folder: Path) -> list[PairRecord]:
    """Read the pairs of a folder with one caption file, in one of two formats.

    - LEVIR-CC, Dubai-CC, SECOND-CC and WHU-CDC: a JSON object with ``images``, each with
      ``filename``, ``split``, ``sentences`` (each with ``raw``) and optionally ``filepath`` and
      ``changeflag``. The images are in ``images/<filepath>/A`` and ``B``, or without ``images/``.
    - CC-Foundation: a JSON list, or one JSON object per line, of records with ``uid``,
      ``img1_path`` and ``img2_path`` (relative to the folder), ``change_flag``, ``change_caption``
      (a list) and optionally ``split`` (default ``train``).

    Raises:
        ValueError: The folder has no caption file or several; the file has none of the formats; a
            pair has no caption or an empty one; two pairs have the same id; a split is unknown; or
            a path leads out of the folder. The message names the file.
    """
    files = sorted([*folder.glob("*.json"), *folder.glob("*.jsonl")])
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise ValueError(
            f"folder={str(folder)!r}: expected one caption file, such as LevirCCcaptions.json; "
            f"found: {found}"
        )
    (file,) = files
    content = _json(file)
    try:
        if isinstance(content, dict):
            records = list(_karpathy(content, folder))
        else:
            records = list(_foundation(content, folder))
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{file}: a record has an unknown format: {type(error).__name__} {quoted(str(error))}"
        ) from error
    _check(records, file)
    return records


def _json(file: Path) -> Any:
    with file_error_context(file):
        text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        return [parse_json(line, str(file)) for line in text.split("\n") if line.strip()]
    return parse_json(text, str(file))


def _karpathy(content: dict[str, Any], folder: Path) -> Iterator[PairRecord]:
    images = folder / "images" if (folder / "images").is_dir() else folder
    what = "the caption file"
    for image in content["images"]:
        place = path_inside(images, image.get("filepath", image["split"]), what)
        flag = image.get("changeflag")
        yield PairRecord(
            id=Path(image["filename"]).stem,
            before=path_inside(place / "A", image["filename"], what),
            after=path_inside(place / "B", image["filename"], what),
            captions=tuple(sentence["raw"].strip() for sentence in image["sentences"]),
            changed=None if flag is None else bool(int(flag)),
            split=image["split"],
        )


def _foundation(content: list[dict[str, Any]], folder: Path) -> Iterator[PairRecord]:
    for record in content:
        flag = record.get("change_flag")
        yield PairRecord(
            id=str(record["uid"]),
            before=path_inside(folder, record["img1_path"], "the caption file"),
            after=path_inside(folder, record["img2_path"], "the caption file"),
            captions=tuple(sentence.strip() for sentence in record["change_caption"]),
            changed=None if flag is None else bool(int(flag)),
            split=record.get("split", "train"),
        )


def _check(records: list[PairRecord], file: Path) -> None:
    seen: set[str] = set()
    for record in records:
        if record.split not in SPLITS:
            raise ValueError(
                f"{file}: pair {quoted(record.id)} has split={quoted(record.split)}; expected one "
                f"of {', '.join(SPLITS)}"
            )
        if not record.captions or not all(record.captions):
            raise ValueError(f"{file}: pair {quoted(record.id)} has no caption, or an empty one")
        if record.id in seen:
            raise ValueError(f"{file}: two pairs have the id {quoted(record.id)}")
        seen.add(record.id)
