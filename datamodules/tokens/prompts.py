"""Prompts that a language model continues."""

from pathlib import Path

from lightning_plugins.datamodules.file_error_context import file_error_context
from lightning_plugins.inputs import parse_json, quoted


def read_prompts(prompts: str | list[str] | None) -> list[str]:
    """Return the prompts of a text, a list of texts, or a file.

    Args:
        prompts: A list of texts; the path of a ``.txt`` file with one prompt per line, or of a
            ``.jsonl`` file with one object with ``prompt`` per line; or any other text.

    Raises:
        ValueError: There are no prompts, or the file is missing or invalid.
    """
    if prompts is None or prompts == []:
        raise ValueError(
            "prompts=None: predict needs a text, a list of texts, or a .txt or .jsonl file; set "
            "--data.prompts"
        )
    if not isinstance(prompts, str):
        return list(prompts)
    suffix = Path(prompts).suffix if "\n" not in prompts else ""
    if suffix not in (".txt", ".jsonl"):
        return [prompts]
    file = Path(prompts)
    if not file.is_file():
        raise ValueError(f"prompts={prompts!r}: there is no such file; a text does not end so")
    with file_error_context(file):
        text = file.read_text("utf-8-sig")
        if not text:
            raise ValueError(f"{file} has no line: expected one prompt per line")
        lines = text.removesuffix("\n").split("\n")
        if suffix == ".txt":
            return lines
        return [_prompt(line, file, number) for number, line in enumerate(lines, 1)]


def _prompt(line: str, file: Path, number: int) -> str:
    record = parse_json(line, f"{file}, line {number}")
    prompt = record.get("prompt") if isinstance(record, dict) else None
    if not isinstance(prompt, str):
        raise ValueError(
            f"{file}, line {number}: expected an object with the text 'prompt', not "
            f"{quoted(record)}"
        )
    return prompt
