"""The files beside a checkpoint, one an agent, that hold what exact resume needs."""

import os
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch


class AgentCheckpoints:
    """``X.ckpt.agents/<save>.agent<k>.pt`` beside ``X.ckpt``.

    Every save has a name of its own, which ``X.ckpt`` knows: a run that is killed while it saves
    leaves the earlier checkpoint with its own files. Those of earlier saves go once ``X.ckpt`` is
    written.

    Args:
        checkpoint: path of ``X.ckpt``; a symbolic link is followed.

    Raises:
        ValueError: a path that is not on a file system.
    """

    def __init__(self, checkpoint: str | os.PathLike) -> None:
        if "://" in str(checkpoint):
            raise ValueError(
                f"checkpoint path {checkpoint}: the agents' files are written to a file system "
                "that is shared by all nodes; give a path on it"
            )
        self.folder = Path(f"{os.path.realpath(checkpoint)}.agents")

    def path(self, save: str, agent: int) -> Path:
        """Of one agent's file."""
        return self.folder / f"{save}.agent{agent}.pt"

    def write(self, save: str, agent: int, content: dict[str, Any]) -> None:
        """Write one agent's file, whole or not at all."""
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
        """Remove the files of all other saves."""
        for path in self.folder.iterdir():
            if not path.name.startswith(f"{save}."):
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self.folder, ignore_errors=True)
