"""The result of an attack on one text, and the file that keeps the results of a run."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Status = Literal["skipped", "failed", "succeeded"]


@dataclass(frozen=True)
class AttackResult:
    """One text before and after an attack.

    Attributes:
        text: The text that was attacked.
        label: The class of the text: 0 human, 1 AI. Attacks do not change it.
        adversarial: The text that the attack found; ``text`` itself if it was skipped.
        status: ``skipped`` if the detector was wrong before the attack.
        clean_score: The probability of AI of ``text``.
        score: The probability of AI of ``adversarial``, as returned during the search.
        queries: The number of scored texts, including the clean one.
        words: The number of words of the text.
        changed_words: The number of changed words.
    """

    text: str
    label: int
    adversarial: str
    status: Status
    clean_score: float
    score: float
    queries: int
    words: int
    changed_words: int


class ResultFile:
    """A file of JSON lines: a description of the run, then one line per result.

    An interrupted run continues the file. Results are in the order in which the attacks finished.

    Args:
        path: The path of the file; its folder is created.
        run: A description of the run; a file with another description is refused.
        texts: The texts to attack.
        labels: The labels of the texts.
    """

    def __init__(self, path: Path, run: str, texts: Sequence[str], labels: Sequence[int]) -> None:
        self._path = path
        data = json.dumps([list(texts), [int(label) for label in labels]]).encode()
        self._header = {"run": run, "data": hashlib.sha256(data).hexdigest()}

    def read(self) -> dict[int, AttackResult]:
        """Return the results by position of the text; create the file if there is none.

        An incomplete last line, which an interrupted run leaves, is removed.

        Raises:
            ValueError: The file belongs to another run.
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
                f"path={str(self._path)!r}: the file has results of another run; choose another "
                "path or delete the file"
            )
        rows = (json.loads(line) for line in lines[1:])
        return {row["place"]: AttackResult(**row["result"]) for row in rows}

    def append(self, place: int, result: AttackResult) -> None:
        """Add one result."""
        self._write(json.dumps({"place": place, "result": asdict(result)}))

    def _write(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
