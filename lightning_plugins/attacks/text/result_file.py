"""Results of an attack on disk, which a run that was killed continues."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lightning_plugins.attacks.text.result import AttackResult


class ResultFile:
    """One line of JSON that says what was run, then one a result, in the order they came.

    Args:
        path: of the file; its folder is made.
        run: what was run, in words; a file of another run is not continued.
        texts: that are attacked.
        labels: of them.
    """

    def __init__(self, path: Path, run: str, texts: Sequence[str], labels: Sequence[int]) -> None:
        self._path = path
        data = json.dumps([list(texts), [int(label) for label in labels]]).encode()
        self._header = {"run": run, "data": hashlib.sha256(data).hexdigest()}

    def read(self) -> dict[int, AttackResult]:
        """Results by place of the text; begins the file where there is none.

        A last line that was cut off when the run was killed is removed.

        Raises:
            ValueError: the file is of another run.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        lines = whole.splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            self._path.write_text("".join(lines[:-1]), encoding="utf-8")
            del lines[-1]
        if not lines:
            self._write(json.dumps(self._header))
            return {}
        if json.loads(lines[0]) != self._header:
            raise ValueError(
                f"path={str(self._path)!r}: holds results of another run; give another path or "
                "delete it"
            )
        rows = (json.loads(line) for line in lines[1:])
        return {row["place"]: AttackResult(**row["result"]) for row in rows}

    def append(self, place: int, result: AttackResult) -> None:
        """Add a result."""
        self._write(json.dumps({"place": place, "result": asdict(result)}))

    def _write(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
