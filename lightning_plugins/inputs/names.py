"""File names and relative paths that come from a manifest, a caption file or another process."""

import re
from pathlib import Path

from lightning_plugins.inputs.messages import quoted

# No separator, drive letter, leading dot or dash, control character or trailing dot.
_FILE_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._+=-]{0,253}[A-Za-z0-9_+=-])?")


def file_name(name: object, what: str) -> str:
    """Return ``name`` if it is a plain file name: letters, digits and ``._+=-``.

    Args:
        name: The name, from a file or process of somebody else.
        what: Origin of the name, for the message.

    Raises:
        ValueError: It is not a string or has another character, a path separator included.
    """
    if not (isinstance(name, str) and _FILE_NAME.fullmatch(name)):
        raise ValueError(
            f"{what}: {quoted(name)} is not a plain file name (letters, digits and . _ + = -)"
        )
    return name


def path_inside(folder: Path, relative: object, what: str) -> Path:
    """Return ``folder / relative`` if the text of ``relative`` does not lead out of the folder.

    Symbolic links inside the folder are followed: they were made on this machine.

    Args:
        folder: The folder.
        relative: A relative path, from a file of somebody else.
        what: Origin of the path, for the message.

    Raises:
        ValueError: The path is not a string, is absolute, or leads out of the folder.
    """
    if not isinstance(relative, str) or not relative or "\0" in relative:
        raise ValueError(f"{what}: {quoted(relative)} is not a path")
    parts = relative.replace("\\", "/").split("/")
    if relative[0] in "/\\~" or ".." in parts or ":" in parts[0]:
        raise ValueError(
            f"{what}: the path {quoted(relative)} leads out of its folder; expected a relative "
            "path inside the folder"
        )
    return folder / relative
