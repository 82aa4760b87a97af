"""Per-agent files next to a checkpoint, for exact resume."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from lightning_plugins.inputs import file_name

# Complete files, and temporary ones of an interrupted save.
_IS_OWN = re.compile(r"\.agent\d{1,9}\.pt(\.[0-9a-f]{32})?$")


class AgentCheckpoints:
    """Writes and removes the files ``X.ckpt.agents/<save>.agent<k>.pt`` of ``X.ckpt``.

    Every save has a unique name, which ``X.ckpt`` records, so a run that is killed during a save
    leaves the previous checkpoint and its files intact. The files of earlier saves are removed
    after ``X.ckpt`` has been written.

    Args:
        checkpoint: Path of ``X.ckpt``; symbolic links are resolved.

    Raises:
        ValueError: The path is a URL, or the folder of the agents' files is a symbolic link.
    """

    def __init__(self, checkpoint: str | os.PathLike) -> None:
        if "://" in str(checkpoint):
            raise ValueError(
                f"checkpoint path {checkpoint}: the agents' files require a file system that all "
                "nodes share; use a path on one"
            )
        self.folder = Path(f"{os.path.realpath(checkpoint)}.agents")
        # Files of previous saves are removed, which must not happen in another folder.
        if self.folder.is_symlink():
            raise ValueError(f"{self.folder} is a symbolic link: expected a folder")

    def path(self, save: str, agent: int) -> Path:
        """Return the path of one agent's file.

        Raises:
            ValueError: ``save``, which a checkpoint records, is not a plain name.
        """
        return self.folder / file_name(f"{save}.agent{agent}.pt", f"{self.folder.stem}, its save")

    def write(self, save: str, agent: int, content: dict[str, Any]) -> None:
        """Write one agent's file atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(save, agent)
        temporary = path.with_name(f".{path.name}.{uuid4().hex}")
        try:
            with temporary.open("xb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def keep_only(self, save: str) -> None:
        """Remove the files of every save but ``save``."""
        self._remove_all_but(f"{save}.")

    def remove(self) -> None:
        """Remove the files of all saves, and the folder."""
        if self.folder.is_dir():
            self._remove_all_but(None)
            with suppress(OSError):  # it has files of others
                self.folder.rmdir()

    def _remove_all_but(self, prefix: str | None) -> None:
        for path in self.folder.iterdir():
            if _IS_OWN.search(path.name) and not (prefix and path.name.startswith(prefix)):
                path.unlink(missing_ok=True)
