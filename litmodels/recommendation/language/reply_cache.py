"""Stores the replies of a server, so that a run can be replayed."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_plugins.litmodels.recommendation.language.chat_model import Reply, Usage
from lightning_plugins.reports.writer import write_bytes_atomically


class ReplyCache:
    """Stores replies as JSON files, one per request, named by the request's SHA-256.

    Files are written atomically, and only their owner can read them. A file that cannot be read
    counts as absent.

    Args:
        folder: The folder of the files.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def get(self, request: dict[str, Any]) -> Reply | None:
        """Return the stored reply to ``request``, or None."""
        try:
            stored = json.loads(self._path(request).read_text("utf-8"))["reply"]
            usage = stored.get("usage", (1,))
            return Reply(
                str(stored["text"]),
                bool(stored["is_truncated"]),
                str(stored.get("failure", "")),
                Usage(*(int(number) for number in usage[:3]), *map(float, usage[3:4])),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def put(self, request: dict[str, Any], reply: Reply) -> None:
        """Store the reply, together with its request so that the file can be inspected."""
        content = json.dumps({"request": request, "reply": asdict(reply)}, ensure_ascii=False)
        write_bytes_atomically(self._path(request), content.encode(), private=True)

    def _path(self, request: dict[str, Any]) -> Path:
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"
