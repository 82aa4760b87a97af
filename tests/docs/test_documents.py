"""What the documents show runs, and what they point at is there."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from lightning_plugins.__main__ import main
from lightning_plugins.recipes import load_recipe

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
COMMANDS = ("fit", "validate", "test", "predict", "recipes", "assets", "reproduce")


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), re.M | re.S)


def command_lines():
    for path in DOCUMENTS:
        for block in blocks(path, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("lightning-plugins "):
                    yield pytest.param(line, id=f"{path.name}: {line[:60]}")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        pytest.param(path, code, id=f"{path.name} {place}")
        for path in DOCUMENTS
        for place, code in enumerate(blocks(path, "python"))
    ],
)
def test_python_runs_as_it_stands(path, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, path.name, "exec"), {"__name__": "document"})


@pytest.mark.parametrize("line", command_lines())
def test_commands_name_what_exists(line):
    words = shlex.split(line.partition(" #")[0].partition(" >")[0])
    assert words[1] in COMMANDS
    for place, word in enumerate(words):
        if word == "--config" and not words[place + 1].endswith(".yaml"):
            load_recipe(words[place + 1])
    if words[1:3] in (["recipes", "show"], ["recipes", "list"], ["assets", "list"]):
        assert main(words[1:]) in (0, 2)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_yaml_parses_and_links_resolve(path):
    for block in blocks(path, "yaml"):
        yaml.safe_load(block)
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"
