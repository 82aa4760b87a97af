"""Code in the documents runs, and their links and names resolve."""

import argparse
import doctest
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from lightning_plugins.__main__ import main
from lightning_plugins.assets.catalogue import find_asset
from lightning_plugins.claims import load_paper
from lightning_plugins.recipes import load_recipe

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/*/*.md")])
TRAINING = ("fit", "validate", "test", "predict", "check")
# A line of shell: words up to a comment or a redirection.
COMMAND = re.compile(
    r"(?:lightning-plugins|(?:torchrun|python)\b.* -m lightning_plugins) (?P<rest>[^#>\n]+)"
)
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^>]+) -->\n)?```(?P<language>\S+)\n(?P<code>.*?)^```$", re.M | re.S
)
# Other programs in shell blocks, and what tests them.
PROGRAMS = {
    "make": "test_make_targets_in_the_documents_exist",
    "fiber-laser": "tests/simulators/fiber_laser/test_command.py",
}


def blocks(path, language):
    """Return the blocks of a language that are not marked as needing something."""
    return [
        block["code"]
        for block in BLOCK.finditer(path.read_text("utf-8"))
        if re.fullmatch(language, block["language"])
        and not (block["mark"] or "").startswith("needs ")
    ]


def command_lines(path):
    for block in blocks(path, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if found := COMMAND.match(line):
                yield found["rest"]
    for code in re.findall(r"`(lightning-plugins\s[^`]+)`", path.read_text("utf-8")):
        line = " ".join(code.split())
        if not re.search(r"\||\b[A-Z]{2,}\b|\.\.\.", line):  # a pattern, not a command
            yield COMMAND.match(line)["rest"]


def over_documents(parts):
    """Return one test parameter per part of each document; a repeated part is tested once."""
    found = {}
    for path in DOCUMENTS:
        for place, part in enumerate(parts(path)):
            name = f"{path.relative_to(ROOT)} {place}"
            found.setdefault(part, pytest.param(path, part, id=name))
    return list(found.values())


class Parsed(BaseException):
    """Raised when the arguments of a command are valid."""


@pytest.fixture
def parse_only(monkeypatch):
    """Stop every command before it starts; the exception contains the parsed arguments."""
    from lightning_plugins.cli import PluginCLI, continuation
    from lightning_plugins.cli.run_folders import Run

    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser, arguments=None, namespace=None):
        raise Parsed(parse(parser, arguments, namespace))

    def stop(cli):
        raise Parsed(cli.config)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)

    def saved_run(name, roots, recipe):
        """A finished run of the recipe; of digits if no recipe is given."""
        folder = Path("runs/run/version_0")
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"global_step": 1}, folder / "last.ckpt")
        config = yaml.safe_dump(load_recipe(recipe or "late_sam/digits"))
        (folder / "config.yaml").write_text(config)
        return Run(folder)

    monkeypatch.setattr(continuation, "find_run", saved_run)
    monkeypatch.setattr(PluginCLI, "instantiate_classes", stop)


@pytest.fixture
def readers_folder(tmp_path, monkeypatch):
    """A folder with the user's files and package to which the documents refer."""
    (tmp_path / "my_package.py").write_text(
        "from lightning.pytorch import LightningDataModule, LightningModule\n"
        "class MyModel(LightningModule): ...\n"
        "class MyData(LightningDataModule): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    main(["recipes", "copy", "image/digits", "mine.yaml"])
    return tmp_path


@pytest.mark.parametrize(
    ("path", "code"),
    over_documents(lambda path: [] if path.parent.name == "tutorials" else blocks(path, "python")),
)
def test_python_blocks_run_unchanged(path, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, path.name, "exec"), {"__name__": "document"})


@pytest.mark.parametrize(
    ("path", "code"), over_documents(lambda path: blocks(path, r"\{doctest\}"))
)
def test_doctests_give_the_stated_results(path, code):
    test = doctest.DocTestParser().get_doctest(code, {}, path.name, str(path), 0)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.usefixtures("readers_folder")
@pytest.mark.parametrize(("path", "line"), over_documents(command_lines))
def test_commands_parse_and_name_what_exists(path, line, parse_only):
    command, *words = shlex.split(line)
    arguments = None
    try:
        code = main([command, *words])
    except SystemExit as end:
        code = end.code
    except Parsed as parsed:
        (arguments,) = parsed.args
    if "--help" in (command, *words):
        assert code == 0
        return
    assert arguments is not None, f"ended with {code}: lightning-plugins {line}"
    if command == "reproduce":
        for name in arguments.papers:
            load_paper(name).at(arguments.scale)
    elif command == "assets":
        for name in [getattr(arguments, "name", None), *getattr(arguments, "names", [])]:
            assert name is None or find_asset(name)
    elif command == "recipes":
        assert getattr(arguments, "name", None) is None or load_recipe(arguments.name)
    else:
        assert command in (*TRAINING, "check", "export", "schedule")


def test_a_wrong_option_in_a_document_is_detected(readers_folder, parse_only):
    for line in ("fit --config image/digitz", "fit --config image/digits --trainer.max_epoch 1"):
        assert main(line.split()) == 2
    with pytest.raises(SystemExit, match="2"):
        main(["reproduce", "late-sam", "--scales", "cpu"])


BASE_OF_YAML = {
    "ai_text_detection": "ai_text/tiny",
    "blockwise_lr": "language_model/tiny",
    "language_model": "language_model/tiny",
}


@pytest.mark.usefixtures("readers_folder")
@pytest.mark.parametrize(("path", "code"), over_documents(lambda path: blocks(path, "yaml")))
def test_yaml_blocks_are_valid_configurations(path, code, parse_only):
    Path("block.yaml").write_text(code)
    base = BASE_OF_YAML.get(path.stem, "image/digits")
    with pytest.raises(Parsed):
        main(["fit", "--config", base, "--config", "block.yaml"])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_is_run_or_says_why_not(path):
    for block in BLOCK.finditer(path.read_text("utf-8")):
        mark, language = block["mark"] or "", block["language"]
        if mark.startswith("needs ") or language in ("python", "yaml") or "{" in language:
            continue  # marked, or run by the tests above, or a directive for Sphinx
        if language == "text":
            assert mark == "output of an earlier run" or path.parent.name == "tutorials", block[0]
            continue
        assert language == "bash", block[0]
        for line in block["code"].replace("\\\n", " ").splitlines():
            if line.strip():
                assert COMMAND.match(line) or line.split()[0] in PROGRAMS, line


def slugs(path):
    """Return the anchors of a page: those of its headings as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S)
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        words = re.sub(r"[^\w\- ]", "", heading.lower())
        yield words.strip().replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_anchors_resolve_and_pictures_have_alternative_texts(path):
    text = path.read_text("utf-8")
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        page = path.parent / target if target else path
        assert page.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in slugs(page), f"{path.name} links to {target}#{anchor}"
    for alternative in re.findall(r"!\[(.*?)\]\(", text, re.S):
        assert len(alternative.split()) > 3, f"{path.name}: {alternative!r}"
    assert text.count(":img-top:") == len(re.findall(r":img-alt: (?:\S+ ){3}", text))


def test_make_targets_in_the_documents_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    for path in DOCUMENTS:
        text = path.read_text("utf-8")
        named = {
            line.split()[1]
            for block in blocks(path, "bash")
            for line in block.splitlines()
            if line.startswith("make ")
        }
        named |= set(re.findall(r"`make ([a-z-]+)`", text))
        assert named <= targets, f"{path.name} names {named - targets}"


def test_every_page_is_in_the_table_of_contents():
    listed = {
        (index.parent.relative_to(ROOT / "docs") / line.strip()).as_posix()
        for index in (ROOT / "docs").rglob("index.md")
        for block in blocks(index, r"\{toctree\}")
        for line in block.splitlines()
    }
    pages = {
        path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        for path in DOCUMENTS
        if "docs" in path.relative_to(ROOT).parts and path.name != "index.md"
    }
    assert pages <= listed


def test_citation_names_the_software_and_the_version():
    from lightning_plugins import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (citation["title"], citation["version"]) == ("lightning-plugins", __version__)
    assert citation["authors"] == [{"name": "The lightning-plugins contributors"}]


def named_tests(path):
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", path.read_text("utf-8"))


@pytest.mark.parametrize(("path", "named"), over_documents(named_tests))
def test_tests_named_in_documents_exist(path, named):
    file, function = named
    assert f"\ndef {function}(" in (ROOT / file).read_text("utf-8")


def test_the_explained_errors_occur_in_the_sources():
    sources = " ".join(
        path.read_text("utf-8")
        for folder in ("lightning_plugins", "callbacks", "datamodules", "litmodels")
        for path in ROOT.glob(f"{folder}/**/*.py")
    )
    joined = re.sub(r'"\s+f?"', "", sources)  # a message is written in several pieces
    explained = re.findall(r"\*\*`([^`]+)`\*\*", (ROOT / "docs/errors.md").read_text("utf-8"))
    assert explained
    for message in explained:
        assert message in joined.replace('\\"', '"'), message
