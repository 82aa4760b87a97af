"""The tutorials run from their first block to their last, and print the output that they show."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_plugins.__main__ import main

PAGES = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^>]+) -->\n)?```(?P<language>python|bash)\n(?P<code>.*?)^```\n"
    r"(?:\n```text\n(?P<shown>.*?)^```)?",
    re.M | re.S,
)
NUMBER = re.compile(r"\d+\.\d+")


def agrees(shown: str, printed: str) -> bool:
    """Compare the lines; ``...`` stands for any text, and decimal fractions agree to 2 %."""
    pattern = ".*".join(re.escape(" ".join(part.split())) for part in shown.split("..."))
    pattern = re.sub(r"\d+\\\.\d+", lambda _: r"(\\d+\\.\\d+)", pattern).replace(r"\\", "\\")
    found = re.fullmatch(pattern, " ".join(printed.split()))
    expected = [float(number) for number in NUMBER.findall(shown)]
    return found is not None and list(map(float, found.groups())) == pytest.approx(
        expected, rel=0.02
    )


def run(page: Path, marks: tuple[str | None, ...]) -> int:
    """Run the page's blocks that have no mark, or one of these; return the number of blocks."""
    namespace = {"__name__": "tutorial"}
    blocks = [block for block in BLOCK.finditer(page.read_text("utf-8")) if block["mark"] in marks]
    for block in blocks:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            if block["language"] == "python":
                exec(compile(block["code"], page.name, "exec"), namespace)
            else:
                for line in block["code"].replace("\\\n", " ").splitlines():
                    program, *words = shlex.split(line, comments=True)
                    assert program == "lightning-plugins"
                    if block["mark"] == "slow":  # may start processes, which run the command again
                        print(in_a_process(words))
                    else:
                        assert not main(words), line
        if block["shown"] is not None:
            assert agrees(block["shown"], output.getvalue()), output.getvalue()
    return len(blocks)


def in_a_process(words: list[str]) -> str:
    command = [sys.executable, "-m", "lightning_plugins", *words]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_prints_the_output_that_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(page, marks=(None,))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_slow_blocks_of_a_tutorial_print_the_output_that_they_show(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(page, marks=("slow",))


def test_output_differs_if_a_word_or_a_figure_differs():
    assert agrees("loss 0.500\n...\nend", "loss 0.505\nany\nend\n")
    assert not agrees("loss 0.500\n...\nend", "loss 0.515\nany\nend\n")
    assert not agrees("loss 0.500", "loss 0.500 more")
    assert not agrees("steps 4", "steps 5")
