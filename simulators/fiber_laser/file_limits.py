"""Limits on what files may contain: those of the suite, or fixed ones where it is missing."""

try:
    from lightning_plugins.inputs import (
        check_array_bytes,
        check_yaml,
        parse_json,
        quoted,
        read_npz,
    )
except ModuleNotFoundError:  # the distribution fiber-laser, which has no lightning_plugins
    import json
    import os
    import zipfile
    from collections.abc import Sequence
    from typing import Any

    import numpy as np
    import yaml

    _MOST_ARRAY_BYTES = 2 << 30
    _MOST_YAML_CHARACTERS = 1_000_000
    _DEEPEST = 64

    def quoted(value: Any) -> str:
        """Return ``repr(value)`` in at most 80 characters."""
        try:
            text = repr(value)
        except (ValueError, RecursionError):  # for example an integer of more than 4,300 digits
            text = f"<{type(value).__name__}>"
        return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"

    def check_array_bytes(sizes: Sequence[int], what: str) -> None:
        """Raise a ValueError if arrays together have more than 2 GiB."""
        if sum(sizes) > _MOST_ARRAY_BYTES:
            raise ValueError(f"{what}: {sum(sizes):,} bytes of arrays, allowed are 2 GiB")

    def check_yaml(text: str, what: str = "YAML text") -> None:
        """Raise a ValueError for a YAML text that is long, deeply nested or has aliases."""
        if len(text) > _MOST_YAML_CHARACTERS:
            raise ValueError(f"{what}: more than {_MOST_YAML_CHARACTERS:,} characters")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST or isinstance(event, yaml.AliasEvent):
                raise ValueError(f"{what}: aliases, or more than {_DEEPEST} nested levels")

    def parse_json(text: str | bytes, what: str = "JSON text") -> Any:
        """Return the value of a JSON text; a ValueError if it is none."""
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{what} is not valid JSON: {error}") from error

    def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
        """Return the arrays of an ``.npz`` file; objects are refused."""
        try:
            with zipfile.ZipFile(path) as archive:
                check_array_bytes([entry.file_size for entry in archive.infolist()], str(path))
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (zipfile.BadZipFile, EOFError, KeyError, MemoryError, OSError) as error:
            raise ValueError(f"{path} is not a readable npz file: {error}") from error


__all__ = ["check_array_bytes", "check_yaml", "parse_json", "quoted", "read_npz"]
