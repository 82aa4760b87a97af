"""Readers of the caption files of published change-captioning data sets."""

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_plugins.datamodules.change_captioning.caption_layouts import image_folders
from lightning_plugins.datamodules.file_error_context import file_error_context
from lightning_plugins.inputs import (
    check_cells,
    check_rows,
    parse_json,
    parse_yaml,
    path_inside,
    quoted,
)


@dataclass(frozen=True)
class PairRecord:
    """Two images of one place, with their captions.

    Args:
        id: Name of the pair, unique in its part of the data set.
        before: File of the first image.
        after: File of the second image.
        captions: Human captions of the change; may be empty.
        changed: Whether anything changed; None if unknown.
        split: ``train``, ``val`` or ``test``.
        mask: File of the change mask, whose pixels are 0 where nothing changed; None if there is
            none.
    """

    id: str
    before: Path
    after: Path
    captions: tuple[str, ...] = ()
    changed: bool | None = None
    split: str = "train"
    mask: Path | None = None


SPLITS = ("train", "val", "test")
_SPLIT_OF_WORD = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing", "te"), "test"),
}
_UNKNOWN_FLAG = -1


def read_captions(source: Path, skip_bad: bool = False) -> list[PairRecord]:
    """Read the pairs of a data set.

    ``source`` is a folder, one caption file, or a list of caption files in YAML. In a folder, all
    JSON files with captions are read; if there are none, those of its subfolders. Other JSON
    files are left out with a warning, and another warning counts images in several parts. Two
    formats are known:

    - LEVIR-CC, LEVIR-MCI, Dubai-CC, SECOND-CC and WHU-CDC: a JSON object with ``images``, each with
      ``filename``, ``sentences`` (each with ``raw`` or ``tokens``, or a text) and optionally
      ``split``, ``filepath`` and ``changeflag``.
      :func:`~lightning_plugins.datamodules.change_captioning.caption_layouts.image_folders` finds
      the images.
    - CC-Foundation: a JSON list, or one JSON object per line, of records with ``uid``,
      ``img1_path`` and ``img2_path`` (inside the folder), ``change_flag``, ``change_caption`` (a
      list) and optionally ``split``. Several files are one data set; ``uid`` then counts within
      each file.

    Without ``split`` the name of the file decides (``Train_Dubai.json``); a CC-Foundation file
    whose name contains no part, or several, is training data. A flag of -1 is unknown.

    A YAML list is the form in which the mixture of CC-Foundation is published: ``datasets`` with
    ``json_path`` (inside the folder of the list) and ``sampling_strategy`` (``all``, ``first:N``,
    ``end:N`` or ``random:N``; N is a number or a percentage). The pairs of a file that is listed
    several times are repeated as often in an epoch. They are training data, unless they have a
    ``split``.

    Args:
        source: The folder, or file.
        skip_bad: Leave out empty captions, and pairs without captions, with a warning that gives
            their number, instead of raising an error.

    Raises:
        ValueError: There is no caption file; a file has none of the formats; a pair has no caption
            or an empty one; two pairs of one part have the same id; a split or flag is unknown; or
            a path leads out of the folder. The message names the file.
        LimitError: A file has too many records or too much text.
    """
    if source.suffix.lower() in (".yaml", ".yml"):
        records = [record for entry in _listed(source) for record in entry]
        return _with_captions(records, source, skip_bad)
    folder = source.parent if source.is_file() else source
    files, contents = [], {}
    for pattern in ("", "*/"):
        files += [source] if source.is_file() else _json_files(folder, pattern)
        contents = {file: content for file in files if (content := _content(file)) is not None}
        if contents or source.is_file():
            break
    if not contents:
        found = ", ".join(file.name for file in files) or "none"
        raise ValueError(
            f"folder={str(source)!r}: expected a caption file, such as LevirCCcaptions.json, that "
            f"is a JSON object with images, or a list of records with img1_path; found: {found}"
        )
    if ignored := [file.name for file in files if file not in contents]:
        rank_zero_warn(f"{folder}: {', '.join(ignored)} contains no captions and was not read")
    read = {file: _records(content, file, folder) for file, content in contents.items()}
    if len(contents) > 1:
        for file, content in contents.items():
            if isinstance(content, list):  # the ids of these begin anew in each file
                read[file] = _prefixed(read[file], file.stem)
    records = [record for some in read.values() for record in some]
    _check_ids(read)
    _warn_of_images_in_several_parts(records, source)
    return _with_captions(records, source, skip_bad)


def _json_files(folder: Path, pattern: str) -> list[Path]:
    """Return the JSON files, without hidden ones such as the ``._*`` of archives from macOS."""
    files = (file for file in folder.glob(f"{pattern}*") if not file.name.startswith("."))
    return sorted(file for file in files if file.suffix.lower() in (".json", ".jsonl"))


def _content(file: Path) -> Any:
    """Return the JSON value of a caption file, or None if it contains no captions."""
    with file_error_context(file):
        text = file.read_text(encoding="utf-8-sig")
    if file.suffix.lower() == ".jsonl":
        content: Any = [parse_json(line, str(file)) for line in text.split("\n") if line.strip()]
    else:
        content = parse_json(text, str(file))
    listed = content.get("images") if isinstance(content, dict) else content
    if not isinstance(listed, list) or not listed:
        return None
    key = "sentences" if isinstance(content, dict) else "img1_path"
    if not any(isinstance(record, dict) and key in record for record in listed):
        return None
    check_rows(len(listed), file)
    return content


def _prefixed(records: list[PairRecord], prefix: str) -> list[PairRecord]:
    return [replace(record, id=f"{prefix}/{record.id}") for record in records]


def _records(
    content: Any, file: Path, folder: Path, default_split: str | None = None
) -> list[PairRecord]:
    try:
        if isinstance(content, dict):
            records = list(_karpathy(content["images"], file, folder))
        else:
            default_split = default_split or _split_of_name(file.stem) or "train"
            records = list(_foundation(content, file, folder, default_split))
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{file}: a record has an unknown format: {type(error).__name__} {quoted(str(error))}"
        ) from error
    lengths = [len(caption) for record in records for caption in record.captions]
    check_cells([(max(lengths, default=0), sum(lengths))], file)
    return records


def _karpathy(images: list[Any], file: Path, folder: Path) -> Iterator[PairRecord]:
    of_name = _split_of_name(file.stem)
    folders: dict[Any, Any] = {}
    for image in images:
        split = _split(image.get("split"), of_name, file, image["filename"])
        place = image.get("filepath") or image.get("split") or split
        if place not in folders:
            folders[place] = image_folders(folder, place, beside=file.parent)
        before, after, mask = folders[place].files(image["filename"])
        yield PairRecord(
            id=Path(image["filename"]).stem,
            before=before,
            after=after,
            captions=_captions([_text(one, file, image) for one in image.get("sentences") or ()]),
            changed=_flag(image.get("changeflag"), file, image["filename"]),
            split=split,
            mask=mask,
        )


def _foundation(
    content: list[Any], file: Path, folder: Path, default_split: str
) -> Iterator[PairRecord]:
    for record in content:
        uid = str(record["uid"])
        captions = record.get("change_caption") or []
        if not isinstance(captions, list):
            raise ValueError(f"{file}: change_caption of pair {quoted(uid)} is not a list")
        yield PairRecord(
            id=uid,
            before=_inside(folder, record["img1_path"], file),
            after=_inside(folder, record["img2_path"], file),
            captions=_captions(captions),
            changed=_flag(record.get("change_flag"), file, uid),
            split=_split(record.get("split"), default_split, file, uid),
        )


def _text(sentence: Any, file: Path, image: dict[str, Any]) -> Any:
    """Return the caption of an entry of ``sentences``: ``raw``, joined ``tokens``, or a text."""
    if sentence is None or isinstance(sentence, str):
        return sentence
    if isinstance(sentence, dict) and "raw" in sentence:
        return sentence["raw"]
    tokens = sentence.get("tokens") if isinstance(sentence, dict) else None
    if isinstance(tokens, list) and all(isinstance(token, str) for token in tokens):
        return " ".join(tokens)
    raise ValueError(
        f"{file}: pair {quoted(_stem(image['filename']))} has the sentence {quoted(sentence)}; "
        "expected an object with raw or with a list of tokens, or a text"
    )


def _captions(sentences: list[Any]) -> tuple[str, ...]:
    """Return captions without outer spaces; null, and text without a letter or digit, is empty."""
    texts = ("" if sentence is None else sentence.strip() for sentence in sentences)
    return tuple(text if any(map(str.isalnum, text)) else "" for text in texts)


def _inside(folder: Path, path: object, file: Path) -> Path:
    """Return a path of a file; it may be absolute if it is inside the folder."""
    if isinstance(path, str) and Path(path).is_absolute():
        for root in (folder, folder.resolve()):
            if Path(path).is_relative_to(root):
                path = str(Path(path).relative_to(root))
                break
    return path_inside(folder, path, str(file))


def _split_of_name(name: str) -> str | None:
    """Return the part that the words of a file name state; None for none, or several."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    parts = {_SPLIT_OF_WORD[word.lower()] for word in words if word.lower() in _SPLIT_OF_WORD}
    return parts.pop() if len(parts) == 1 else None


def _split(stated: Any, of_name: str | None, file: Path, pair: object) -> str:
    split = of_name if stated is None else stated
    known = _SPLIT_OF_WORD.get(split.lower()) if isinstance(split, str) else None
    if known is None:
        raise ValueError(
            f"{file}: pair {quoted(_stem(pair))} has split={quoted(stated)}; expected one of "
            f"{', '.join(SPLITS)}, or a file name that contains one"
        )
    return known


def _flag(flag: Any, file: Path, pair: object) -> bool | None:
    """Return a change flag; -1, null and an empty text are unknown."""
    value = flag.strip().lower() if isinstance(flag, str) else flag
    if value is None or value in ("", _UNKNOWN_FLAG, str(_UNKNOWN_FLAG)):
        return None
    if value in (0, "0", "false"):
        return False
    if value in (1, "1", "true"):
        return True
    raise ValueError(
        f"{file}: pair {quoted(_stem(pair))} has the change flag {quoted(flag)}; expected 0, 1, or "
        "-1 if it is unknown"
    )


def _stem(pair: object) -> object:
    return Path(pair).stem if isinstance(pair, str) else pair


def _listed(source: Path) -> Iterator[list[PairRecord]]:
    """Read the files of a YAML list, each once, and yield the pairs of each entry."""
    with file_error_context(source):
        content = parse_yaml(source.read_text(encoding="utf-8-sig"), str(source))
    entries = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{source}: expected a list named datasets with a json_path in each entry")
    read: dict[Path, list[PairRecord]] = {}
    for entry in entries:
        if not isinstance(entry, dict) or "json_path" not in entry:
            raise ValueError(f"{source}: the entry {quoted(entry)} has no json_path")
        file = _inside(source.parent, entry["json_path"], source)
        if file not in read:
            content = _content(file)
            if content is None:
                raise ValueError(f"{file}, which {source.name} lists, contains no captions")
            records = _records(content, file, file.parent, default_split="train")
            name = file.relative_to(source.parent).with_suffix("")
            read[file] = _prefixed(records, name.as_posix())
        chosen = _strategy(str(entry.get("sampling_strategy", "all")), source)
        yield chosen(read[file])
    _check_ids(read)


def _strategy(text: str, source: Path) -> Callable[[list[PairRecord]], list[PairRecord]]:
    found = re.fullmatch(r"(?:(all)|(first|end|random):(\d{1,9})(%?))", text)
    if found is None:
        raise ValueError(
            f"{source}: sampling_strategy={quoted(text)}: expected 'all', or 'first:N', 'end:N' or "
            "'random:N' with a number or a percentage"
        )
    every, way, number, percent = found.groups()

    def chosen(records: list[PairRecord]) -> list[PairRecord]:
        if every:
            return records
        count = math.ceil(int(number) * len(records) / 100) if percent else int(number)
        count = min(count, len(records))
        if way == "random":
            return random.Random(0).sample(records, count)
        return records[:count] if way == "first" else records[len(records) - count :]

    return chosen


def _check_ids(read: dict[Path, list[PairRecord]]) -> None:
    seen: dict[tuple[str, str], Path] = {}
    for file, records in read.items():
        for record in records:
            other = seen.setdefault((record.split, record.id), file)
            if other is not file:
                raise ValueError(
                    f"{file.name} and {other.name} both have the pair {quoted(record.id)}: give "
                    "the path of one of them instead of the folder"
                )
        counts = Counter((record.split, record.id) for record in records)
        if twice := next((key for key, count in counts.items() if count > 1), None):
            raise ValueError(f"{file}: two pairs have the id {quoted(twice[1])}")


def _warn_of_images_in_several_parts(records: list[PairRecord], source: Path) -> None:
    first: dict[tuple[Path, Path], PairRecord] = {}
    for record in records:
        first.setdefault((record.before, record.after), record)
    again = [
        (record, other)
        for record in records
        if record.split != (other := first[record.before, record.after]).split
    ]
    if again:
        record, other = again[0]
        rank_zero_warn(
            f"{source}: {len(again)} pairs of images are in more than one part, so a score may be "
            f"of images of the training: the first, {quoted(record.id)}, is in {other.split} and "
            f"in {record.split}"
        )


def _with_captions(records: list[PairRecord], source: Path, skip_bad: bool) -> list[PairRecord]:
    empty = [record for record in records if not (record.captions and all(record.captions))]
    if not empty:
        return records
    if not skip_bad:
        raise ValueError(
            f"{source}: pair {quoted(empty[0].id)} has no caption, or an empty one; skip_bad=True "
            "leaves such captions out"
        )
    filled = [replace(r, captions=tuple(filter(None, r.captions))) for r in records]
    kept = [record for record in filled if record.captions]
    rank_zero_warn(
        f"{source}: skip_bad=True left out the empty captions of {len(empty)} pairs, and "
        f"{len(records) - len(kept)} pairs without any other; the first: {quoted(empty[0].id)}"
    )
    return kept
