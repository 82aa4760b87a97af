"""The original METEOR 1.5, which requires Java and pycocoevalcap."""

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

_TIMEOUT_S = 600


def java_meteor_available() -> bool:
    """Return whether ``java`` and the METEOR program of ``pycocoevalcap`` are installed."""
    return shutil.which("java") is not None and _scorer() is not None


def java_meteor(
    preds: Sequence[str], references: Sequence[Sequence[str]], stages: Sequence[str] = ()
) -> tuple[float, list[float]]:
    """Compute METEOR of a corpus and of its segments, in [0, 1], with its authors' program.

    Args:
        preds: One sentence per segment.
        references: One or more sentences per segment.
        stages: Stages among ``exact``, ``stem``, ``synonym`` and ``paraphrase``; empty for all.

    Returns:
        The score of the corpus, and the scores of the segments.

    Raises:
        ImportError: Java or ``pycocoevalcap`` is not installed.
        RuntimeError: The program failed, or took more than ten minutes.
    """
    if not java_meteor_available():
        raise ImportError(
            "METEOR 1.5 requires java on the PATH, and pycocoevalcap: pip install pycocoevalcap"
        )
    weights = {"exact": "1.0", "stem": "0.6", "synonym": "0.8", "paraphrase": "0.6"}
    # All segments must have the same number of references; repeating one keeps the maximum.
    count = max(len(sentences) for sentences in references)
    padded = [[*group, *[group[-1]] * (count - len(group))] for group in references]
    with tempfile.TemporaryDirectory() as folder:
        captions, wanted = Path(folder, "captions"), Path(folder, "references")
        captions.write_text(_lines(preds), encoding="utf-8")
        wanted.write_text(_lines(s for group in padded for s in group), encoding="utf-8")
        command = ["java", "-Xmx2G", "-jar", str(_scorer()), str(captions), str(wanted)]
        command += ["-l", "en", "-norm", "-r", str(count)]
        if stages:
            command += ["-m", " ".join(stages), "-w", " ".join(weights[stage] for stage in stages)]
        try:
            finished = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"METEOR's Java program failed: {error}") from error
    segments = re.findall(r"^Segment \d+ score:\s*(\S+)", finished.stdout, re.MULTILINE)
    final = re.search(r"^Final score:\s*(\S+)", finished.stdout, re.MULTILINE)
    if final is None or len(segments) != len(preds):
        raise RuntimeError(
            "METEOR's Java program printed an unexpected result, which ends with "
            f"{finished.stdout[-200:]!r}"
        )
    return float(final[1]), [float(score) for score in segments]


def _lines(sentences: Iterable[str]) -> str:
    return "".join(" ".join(sentence.split()) + "\n" for sentence in sentences)


def _scorer() -> Path | None:
    spec = importlib.util.find_spec("pycocoevalcap")  # without importing it
    for folder in (spec.submodule_search_locations or []) if spec else []:
        scorer = Path(folder, "meteor", "meteor-1.5.jar")
        if scorer.is_file():
            return scorer
    return None
