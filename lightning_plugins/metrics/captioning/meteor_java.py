"""The original METEOR 1.5, which requires Java and pycocoevalcap."""

import importlib.util
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Self

_WEIGHTS = {"exact": "1.0", "stem": "0.6", "synonym": "0.8", "paraphrase": "0.6"}


def java_meteor_available() -> bool:
    """Return whether ``java`` and the METEOR program of ``pycocoevalcap`` are installed."""
    return shutil.which("java") is not None and _scorer() is not None


class JavaMeteor:
    """METEOR 1.5 by its authors' program, as a context manager that starts one Java process.

    A segment that occurs in several corpora is aligned once.

    Args:
        stages: Stages among ``exact``, ``stem``, ``synonym`` and ``paraphrase``; empty for all.
        timeout: Seconds after which the program is stopped.

    Raises:
        ImportError: Java or ``pycocoevalcap`` is not installed.
        RuntimeError: The program failed, or took longer than ``timeout``.

    Example::

        with JavaMeteor() as scorer:
            corpus, segments = scorer.score(["a house appears"], [["a house is built"]])
    """

    def __init__(self, stages: Sequence[str] = (), timeout: float = 600.0) -> None:
        if not java_meteor_available():
            raise ImportError(
                "METEOR 1.5 requires java on the PATH, and pycocoevalcap: pip install pycocoevalcap"
            )
        self._command = ["java", "-Xmx2G", "-jar", str(_scorer()), "-", "-", "-stdio"]
        self._command += ["-l", "en", "-norm"]
        if stages:
            weights = (_WEIGHTS[stage] for stage in stages)
            self._command += ["-m", " ".join(stages), "-w", " ".join(weights)]
        self._timeout = timeout
        self._statistics: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
        )
        self._timer = threading.Timer(self._timeout, self._process.kill)
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def score(
        self, preds: Sequence[str], references: Sequence[Sequence[str]]
    ) -> tuple[float, list[float]]:
        """Compute METEOR of a corpus and of its segments, in [0, 1].

        Args:
            preds: One sentence per segment.
            references: One or more sentences per segment.
        """
        statistics = []
        for pred, sentences in zip(preds, references, strict=True):
            line = " ||| ".join(["SCORE", *map(_line, sentences), _line(pred)])
            if line not in self._statistics:
                self._statistics[line] = self._answer(line)
            statistics.append(self._statistics[line])
        self._write(" ||| ".join(["EVAL", *statistics]))
        *segments, corpus = (float(self._read()) for _ in range(len(preds) + 1))
        return corpus, segments

    def _answer(self, line: str) -> str:
        self._write(line)  # one line at a time: with more, both processes could wait for a pipe
        return self._read()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except OSError:
            self._fail()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not re.fullmatch(r"[\d.eE+ -]+|NaN", line):
            self._fail(line)
        return line

    def _fail(self, line: str = "") -> NoReturn:
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        found = (line or self._errors.read()).strip()[-200:]
        raise RuntimeError(
            f"METEOR's Java program failed, or took longer than {self._timeout:g} s: {found!r}"
        )


def java_meteor(
    preds: Sequence[str], references: Sequence[Sequence[str]], stages: Sequence[str] = ()
) -> tuple[float, list[float]]:
    """Compute METEOR of one corpus with :class:`JavaMeteor`."""
    with JavaMeteor(stages) as scorer:
        return scorer.score(preds, references)


def _line(sentence: str) -> str:
    return " ".join(sentence.replace("|||", " ").split())


def _scorer() -> Path | None:
    spec = importlib.util.find_spec("pycocoevalcap")  # without importing it
    for folder in (spec.submodule_search_locations or []) if spec else []:
        scorer = Path(folder, "meteor", "meteor-1.5.jar")
        if scorer.is_file():
            return scorer
    return None
