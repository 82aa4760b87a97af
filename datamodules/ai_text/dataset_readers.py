"""Readers of text data sets: tables, folders of texts, and data sets of the Hugging Face hub."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_plugins.datamodules.ai_text.labels import (
    has_human_word,
    is_two_classes,
    plain_name,
    read_labels,
)
from lightning_plugins.datamodules.ai_text.paired_texts import is_paired, paired_samples
from lightning_plugins.datamodules.ai_text.text_columns import ROLES, check_texts
from lightning_plugins.datamodules.ai_text.text_folders import folder_samples
from lightning_plugins.datamodules.ai_text.text_sample import (
    HUMAN,
    Sample,
    opening_hash,
)
from lightning_plugins.datamodules.tables import (
    TABLE_SUFFIXES,
    describe_columns,
    find_columns,
    is_missing,
    is_table,
    missing_rows,
    read_table,
)
from lightning_plugins.inputs import quoted
from lightning_plugins.optional_packages import requires

if TYPE_CHECKING:
    import pandas

HUB = {
    "hc3": ("Hello-SimpleAI/HC3", "all"),
    "raid": ("liamdugan/raid", "raid"),
}
"""Repository and configuration of each data set of the Hugging Face hub, by our name."""
_SHOWN_ROWS = 5


@dataclass(frozen=True)
class TableOptions:
    """What a user states about tables of texts; None leaves it to detection.

    Attributes:
        columns: Column name by role; see :func:`read_samples`.
        labels: ``human``, ``ai`` or ``drop`` by value of the label.
        encoding: Encoding of the files.
        delimiter: Character between the columns.
    """

    columns: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None
    encoding: str | None = None
    delimiter: str | None = None

    def read(self, file: Path) -> "pandas.DataFrame":
        """Return the table in a file."""
        return read_table(file, self.encoding, self.delimiter)


def read_samples(
    path: Path,
    options: TableOptions | None = None,
    report: Callable[[str], None] = rank_zero_info,
) -> list[Sample]:
    """Read the samples of a file, or of all files of a folder in the order of their names.

    A file is any table that :func:`lightning_plugins.datamodules.tables.read_table` reads. Either
    each row has a text and a label, or each row has a human text and an AI text, or lists of them.

    Roles of columns, by their names and contents: ``text``, ``label`` (see
    :func:`~lightning_plugins.datamodules.ai_text.labels.read_labels`; without one, a generator
    column that contains ``human``), ``generator``, ``domain``, ``group`` (texts that must stay in
    one part, such as ``source_id``), ``prompt`` (the group if there is no other), ``attack`` (rows
    with an attack are dropped, as in RAID); or ``human_text`` and ``ai_text``. Without a group or
    prompt, texts that begin with the same ten words are one group.

    A folder without tables contains text files in folders named by generator, one of them
    ``human``, such as ``DOMAIN/human/1.txt`` and ``DOMAIN/gpt/1.txt``.

    Args:
        path: File or folder.
        options: What the user states; None detects everything.
        report: Is called with a line per file: roles, labels, rows, and reasons of dropped rows.

    Raises:
        FileNotFoundError: The file or folder does not exist.
        ValueError: A file is not such a table, or a role is ambiguous; the message names the file
            and the option.
    """
    options = options or TableOptions()
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r}: no such file or folder")
    if path.is_file():
        return table_samples(options.read(path), path, options, report)
    files = sorted(file for file in path.iterdir() if file.is_file() and is_table(file))
    if not files:
        files = sorted(file for file in path.rglob("*") if file.is_file() and is_table(file))
    if files:
        one_class = len(files) > 1  # SeqXGPT has a file per class
        return [
            sample
            for file in files
            for sample in table_samples(options.read(file), file, options, report, one_class)
        ]
    samples = folder_samples(path, report)
    if not samples:
        raise ValueError(
            f"path={str(path)!r} has no table ({', '.join(TABLE_SUFFIXES)}), and no folder 'human' "
            "of text files with folders of generators beside it"
        )
    return samples


def table_samples(
    table: "pandas.DataFrame",
    file: Path,
    options: TableOptions,
    report: Callable[[str], None],
    one_class: bool = False,
) -> list[Sample]:
    """Return the samples of a table, and report its columns and dropped rows.

    With ``one_class``, the labels may be names of generators without ``human``.
    """
    source = file.name
    try:
        if is_paired(table, options.columns):
            return paired_samples(table, file, options.columns, report)
        return _labelled_samples(table, source, options, report, one_class)
    except ValueError as error:
        raise error if source in str(error) else ValueError(f"{file}: {error}") from error


def _labelled_samples(
    table: "pandas.DataFrame",
    source: str,
    options: TableOptions,
    report: Callable[[str], None],
    one_class: bool,
) -> list[Sample]:
    found = find_columns(table, ROLES, options.columns, source)
    writer = next((found[role] for role in ("generator", "writer") if role in found), None)
    label = found.get("label", writer)
    if label is None:
        candidates = [
            str(name)
            for name in table.columns
            if name not in found.values() and is_two_classes(table[name])
        ]
        option = " or ".join(f"columns={{'label': {name!r}}}" for name in candidates)
        raise ValueError(
            f"{source} has no label: expected {option or 'a column label'}; it has the columns "
            f"{', '.join(map(str, table.columns))}"
        )
    labels = read_labels(table[label], options.labels, one_class or label == found.get("generator"))
    _refuse_inverted(table, labels.numbers, found, source)
    _refuse_machine_column(table, found["text"], source)
    texts = table[found["text"]]
    check_texts(texts)
    reasons = [""] * len(table)
    for row in missing_rows(texts):
        reasons[row - 1] = "no text"
    for row, number in enumerate(labels.numbers):
        if number is None:
            reasons[row] = reasons[row] or "no label"
    if "attack" in found:
        for row, attack in enumerate(table[found["attack"]]):
            if str(attack).lower() not in ("none", "nan", ""):
                reasons[row] = reasons[row] or "attacked"
    _warn_of_domains_of_one_class(table, labels.numbers, found, source)
    report(_report(table, source, found, f"{label}: {labels.meaning}", reasons))
    groups: Any = next((table[found[role]] for role in ("group", "prompt") if role in found), None)
    domains: Any = table[found["domain"]] if "domain" in found else None
    names: Any = labels.generators if writer in (None, label) else table[writer].tolist()
    no_group = None if groups is None else is_missing(groups)
    samples = []
    for row, (text, number, reason) in enumerate(zip(texts, labels.numbers, reasons, strict=True)):
        if reason or number is None:
            continue
        has_group = groups is not None and no_group is not None and not no_group[row]
        samples.append(
            Sample(
                text=str(text),
                label=number,
                source=str(groups.iloc[row]) if has_group else opening_hash(str(text)),
                domain="" if domains is None else _name(domains.iloc[row]),
                generator=(_name(names[row]) or "ai") if number else HUMAN,
            )
        )
    return samples


def _name(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def _report(
    table: "pandas.DataFrame",
    source: str,
    found: Mapping[str, str],
    labels: str,
    reasons: list[str],
) -> str:
    parts = [f"{source}: {describe_columns(table, found)}", f"label {labels}"]
    dropped = Counter(filter(None, reasons))
    parts.append(f"{len(table):,} rows, {sum(dropped.values()):,} dropped")
    for reason, count in dropped.items():
        rows = [row for row, why in enumerate(reasons, 1) if why == reason][:_SHOWN_ROWS]
        shown = ", ".join(map(str, rows)) + (", …" if count > _SHOWN_ROWS else "")
        parts[-1] += f"; {count:,} {reason} (row {shown})"
    return "; ".join(parts)


def _refuse_machine_column(table: "pandas.DataFrame", text: str, source: str) -> None:
    """Refuse a column of texts beside one of machine texts, as ``abstract`` in M4."""
    other = {
        f"{writer}{plain_name(text)}": writer
        for writer in ("machine", "ai", "generated", "llm", "chatgpt", "human")
    }
    for name in map(str, table.columns):
        if (writer := other.get(plain_name(name))) is not None:
            human, ai = (name, text) if writer == "human" else (text, name)
            raise ValueError(
                f"{source} has the columns {quoted(text)} and {quoted(name)}: expected "
                f"columns={{'human_text': {quoted(human)}, 'ai_text': {quoted(ai)}}}"
            )


def _warn_of_domains_of_one_class(
    table: "pandas.DataFrame",
    labels: list[int | None],
    found: Mapping[str, str],
    source: str,
) -> None:
    if "domain" not in found or found["domain"] == found.get("label"):
        return
    pairs = set(zip(table[found["domain"]].astype(str), labels, strict=True))
    domains = {domain for domain, label in pairs if label is not None}
    if len(domains) > 1 and len({pair for pair in pairs if pair[1] is not None}) == len(domains):
        rank_zero_warn(
            f"{source}: each value of the column {quoted(found['domain'])} has texts of one class, "
            "so it names writers rather than domains: set "
            f"columns={{'generator': {quoted(found['domain'])}}} if it does"
        )


def _refuse_inverted(
    table: "pandas.DataFrame",
    labels: list[int | None],
    found: Mapping[str, str],
    source: str,
) -> None:
    """Refuse labels that contradict a column which names ``human``, as in MAGE (1 is human)."""
    for role in ("generator", "writer", "domain", "group"):
        if role not in found or found[role] == found.get("label"):
            continue
        human = [
            label
            for label, value in zip(labels, table[found[role]], strict=True)
            if label is not None and has_human_word(value)
        ]
        if human and sum(human) > len(human) / 2:
            raise ValueError(
                f"{source}: {sum(human)} of {len(human)} rows are human by column "
                f"{found[role]!r} and AI by column {found['label']!r}: if the label 1 stands for "
                "human, set labels={'1': 'human', '0': 'ai'}"
            )


def hub_samples(name: str, report: Callable[[str], None] = rank_zero_info) -> list[Sample]:
    """Load ``hc3`` (arXiv 2301.07597, CC BY-SA 4.0) or ``raid`` (arXiv 2405.07940, MIT).

    Raises:
        ImportError: ``datasets`` or pandas is not installed.
    """
    with requires("datasets", "pandas", by=f"path={name!r}", extra="text"):
        import datasets
        import pandas
    rows: Iterable[Mapping[str, Any]] = datasets.load_dataset(*HUB[name], split="train")
    table = pandas.DataFrame(list(rows))
    columns = {"domain": "source"} if name == "hc3" else {}
    return table_samples(table, Path(name), TableOptions(columns), report)
