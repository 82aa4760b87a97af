"""Replies of language models on disk, by the content of what was asked."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_plugins.reports.atomic import write_text_atomically


@dataclass(frozen=True)
class Reply:
    """What a model answered.

    Args:
        text: its message.
        is_truncated: it stopped at the length limit.
    """

    text: str
    is_truncated: bool = False


class ReplyCache:
    """One JSON file a request, named by the SHA-256 of all that the reply depends on.

    A file is whole or absent. What cannot be read counts as absent.

    Args:
        folder: where they are kept.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def get(self, request: dict[str, Any]) -> Reply | None:
        """The stored reply to ``request``, or None."""
        try:
            stored = json.loads(self._path(request).read_text("utf-8"))
            return Reply(str(stored["reply"]["text"]), bool(stored["reply"]["is_truncated"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, request: dict[str, Any], reply: Reply) -> None:
        """Store the reply, with its request for those who look into the file."""
        content = json.dumps({"request": request, "reply": asdict(reply)}, ensure_ascii=False)
        write_text_atomically(self._path(request), content)

    def _path(self, request: dict[str, Any]) -> Path:
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"
