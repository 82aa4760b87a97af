"""Which images are a pair, and what people wrote about them: the file formats of the field."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_plugins.datamodules.file_error_context import file_error_context


@dataclass(frozen=True)
class PairRecord:
    """Two images of one place.

    Args:
        id: unique in its data set.
        before: file of the first image.
        after: file of the second image.
        captions: what people wrote about the change; empty where nobody did.
        changed: whether anything changed, where that is known.
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
    """Pairs of a folder with one caption file, in either of the formats of the field.

    - LEVIR-CC, and in the same form Dubai-CC, SECOND-CC and WHU-CDC: a JSON object with ``images``,
      each with ``filename``, ``split``, ``sentences`` (each with ``raw``) and perhaps ``filepath``
      and ``changeflag``; files under ``images/<filepath>/A`` and ``B``, or without ``images/``.
    - CC-Foundation: a JSON list, or one JSON object a line, of records with ``uid``, ``img1_path``,
      ``img2_path`` (from the folder on), ``change_flag``, ``change_caption`` (a list), and perhaps
      ``split``, without which it is ``train``.

    Raises:
        ValueError: no caption file or several, one in no such form, a pair without captions or with
            an empty one, two pairs of one id, or an unknown split; the message names the file.
    """
    files = sorted([*folder.glob("*.json"), *folder.glob("*.jsonl")])
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise ValueError(
            f"folder={str(folder)!r} needs one caption file, such as LevirCCcaptions.json; "
            f"found: {found}"
        )
    (file,) = files
    content = _json(file)
    try:
        if isinstance(content, dict):
            records = list(_karpathy(content, folder))
        else:
            records = list(_foundation(content, folder))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: a record is in no known form: {error!r}") from error
    _check(records, file)
    return records


def _json(file: Path) -> Any:
    with file_error_context(file):
        text = file.read_text(encoding="utf-8")
    try:
        if file.suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error


def _karpathy(content: dict[str, Any], folder: Path) -> Iterator[PairRecord]:
    images = folder / "images" if (folder / "images").is_dir() else folder
    for image in content["images"]:
        place = images / image.get("filepath", image["split"])
        flag = image.get("changeflag")
        yield PairRecord(
            id=Path(image["filename"]).stem,
            before=place / "A" / image["filename"],
            after=place / "B" / image["filename"],
            captions=tuple(sentence["raw"].strip() for sentence in image["sentences"]),
            changed=None if flag is None else bool(int(flag)),
            split=image["split"],
        )


def _foundation(content: list[dict[str, Any]], folder: Path) -> Iterator[PairRecord]:
    for record in content:
        flag = record.get("change_flag")
        yield PairRecord(
            id=str(record["uid"]),
            before=folder / record["img1_path"],
            after=folder / record["img2_path"],
            captions=tuple(sentence.strip() for sentence in record["change_caption"]),
            changed=None if flag is None else bool(int(flag)),
            split=record.get("split", "train"),
        )


def _check(records: list[PairRecord], file: Path) -> None:
    seen: set[str] = set()
    for record in records:
        if record.split not in SPLITS:
            raise ValueError(
                f"{file}: pair {record.id!r} has split={record.split!r}; expected one of "
                f"{', '.join(SPLITS)}"
            )
        if not record.captions or not all(record.captions):
            raise ValueError(f"{file}: pair {record.id!r} has no caption, or an empty one")
        if record.id in seen:
            raise ValueError(f"{file}: two pairs have the id {record.id!r}")
        seen.add(record.id)
