"""No file of the project contains a path of a machine or the host of a package index.

Run by `make check` too. A failure shows file, line and kind, never the text itself: an index's
address can carry a password.
"""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# No pattern matches itself, because this file is searched like all others.
_NOT_AFTER = r"(?<![\w.~$})-])"
FORBIDDEN = {
    "a path of a machine": re.compile(
        _NOT_AFTER + r"/(?:work|root)(?![\w-])"
        "|" + _NOT_AFTER + r"/(?:home|Users|opt|tmp|scratch|mnt|private)/\w"
        r"|\b[A-Z]:\\+Users\\+\w"
    ),
    "a host that serves packages": re.compile(
        r"\b(?:test\.)?pypi\.(?:org|python\.org)|pythonhosted\.(?:org)|registry\.(?:npmjs|yarnpkg)"
        r"|\b(?:conda\.)?anaconda\.(?:org)|https?://[^\s\"'<>]+/simple\b"
        r"|(?:extra-)?index[-_]url\s*[=:]?\s*[\"']?https?:"
    ),
}


def places_of(text: str) -> list[tuple[int, str]]:
    """Return line number and kind of every forbidden text."""
    patterns = FORBIDDEN | _of_this_machine()
    return [
        (number, kind)
        for number, line in enumerate(text.splitlines(), start=1)
        for kind, pattern in patterns.items()
        if pattern.search(line)
    ]


def test_no_file_names_a_machine_or_a_package_host(
    project_files: list[Path], checkout: Path
) -> None:
    found = []
    for path in project_files:
        try:
            text = (checkout / path).read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path}:{number}: {kind}" for number, kind in places_of(text)]
    assert len(project_files) > 20
    assert not found, "name the package, not its host; take folders from arguments or tmp_path"


# A `^` stands where it keeps this file itself allowed.
@pytest.mark.parametrize(
    "forbidden",
    [
        "data = '/^work/shared'",
        "cd /home/^someone",
        "file:///Users/^someone/x",
        "HOME=/^root",
        "--output /tmp/^x",
        r"open(r'C:\Users^\someone')",
        "https://py^pi.org/project/x",
        "https://mirror.example/api/^simple/x",
        "--index-^url https://mirror.example",
    ],
)
def test_forbidden_texts_are_found(forbidden: str) -> None:
    assert {number for number, _ in places_of("clean\n" + forbidden.replace("^", ""))} == {2}


@pytest.mark.parametrize(
    "allowed",
    [
        "../shared/data",
        "~/project/runs",
        "$HOME/project/runs",
        "https://arxiv.org/abs/2410.10373",
        "framework/x and /worked/x",
        "tests/tmp/x",
        "a simple/plain thing",
    ],
)
def test_relative_and_public_places_are_allowed(allowed: str) -> None:
    assert places_of(allowed) == []


@functools.cache
def _of_this_machine() -> dict[str, re.Pattern[str]]:
    """The folders of this checkout, Python and user, and the index that this pip asks."""
    folders = {Path(__file__).resolve().parents[2], Path(sys.prefix), Path.home()}
    # A short folder name, such as a container's root, would occur in unrelated text.
    long = [re.escape(str(folder)) for folder in folders if len(folder.parts) > 2]
    texts = {"a folder of this very machine": long, "the index that this pip asks": _index_hosts()}
    return {kind: re.compile("|".join(of_kind)) for kind, of_kind in texts.items() if of_kind}


def _index_hosts() -> list[str]:
    command = [sys.executable, "-m", "pip", "config", "list"]
    configured = subprocess.run(command, capture_output=True, text=True).stdout
    configured += " ".join(v for k, v in os.environ.items() if k.startswith(("PIP_", "UV_")))
    hosts = re.findall(r"https?://(?:[^/@\s']*@)?([\w-]+(?:\.[\w-]+)+)", configured)
    return [rf"\b{re.escape(host)}\b" for host in sorted(set(hosts))]
