"""The error for a missing optional package contains a valid install command."""

import importlib.metadata
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_plugins import optional_packages
from lightning_plugins.optional_packages import install_command, requires


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    optional_packages._declared.cache_clear()
    yield
    optional_packages._declared.cache_clear()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As from a wheel: no pyproject.toml is next to the package."""
    monkeypatch.setattr(optional_packages, "_PYPROJECT", tmp_path / "pyproject.toml")


@pytest.mark.usefixtures("installed")
def test_the_versions_are_those_of_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["torch>=2.6", 'Transformers>=4.50; extra == "text"', 'torchvision; extra == "vision"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    command = 'pip install "Transformers>=4.50" torchvision'
    assert install_command("transformers", "torchvision", extra="text") == command


@pytest.mark.usefixtures("installed")
def test_without_metadata_the_name_alone_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    assert install_command("transformers", extra="text") == "pip install transformers"


def test_a_clone_reads_pyproject_and_offers_its_extra(checkout: Path) -> None:
    extras = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))["project"]
    (declared,) = (x for x in extras["optional-dependencies"]["text"] if "transformers" in x)
    with (
        pytest.raises(ImportError) as caught,
        requires("transformers", "peft>=9", by="lora_rank=4", extra="text"),
    ):
        raise ModuleNotFoundError("No module named 'peft'", name="peft")
    assert str(caught.value) == (
        f'lora_rank=4 requires {declared} and peft>=9: pip install "{declared}" "peft>=9" '
        '(or, in the clone, pip install ".[text]")'
    )
    assert caught.value.name == "peft"


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(ValueError, match=r"^not an import$"), requires("scipy", by="x", extra="y"):
        raise ValueError("not an import")


def test_every_message_names_declared_packages_and_an_extra_that_has_them(
    checkout: Path, project_files: list[Path]
) -> None:
    extras = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))["project"]
    extras = extras["optional-dependencies"]
    call = re.compile(
        r'\b(?:requires|install_command)\(\s*((?:"[^"]+",\s*)+)(?:by=.+?,\s*)?extra="(\w+)"', re.S
    )
    calls = 0
    for path in project_files:
        if path.suffix == ".py" and path.parts[0] != "tests":
            text = (checkout / path).read_text("utf-8")
            for packages, extra in call.findall(text):
                calls += 1
                for name in re.findall(r'"([\w.-]+)', packages):
                    assert name.lower() in packages_of(extras, extra), (path, name, extra)
    assert calls >= 15


def packages_of(extras: dict[str, list[str]], extra: str) -> set[str]:
    names = set()
    for line in extras[extra]:
        if included := re.match(r"lightning-plugins\[(\w+)\]", line):
            names |= packages_of(extras, included[1])
        else:
            names.add(re.match(r"[\w.-]+", line)[0].lower())
    return names


def test_extras_agree_on_the_version_of_a_package(checkout: Path) -> None:
    extras = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))["project"]
    versions = defaultdict(set)
    for lines in extras["optional-dependencies"].values():
        for line in lines:
            versions[re.match(r"[\w.-]+", line)[0].lower()].add(line)
    del versions["lightning-plugins"]
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_no_text_installs_this_package_from_an_index_where_it_is_not(
    checkout: Path, project_files: list[Path]
) -> None:
    wanted = re.compile(r"pip install (?:-\S+ )*[\"'`]?lightning[-_]plugins")
    found = [
        f"{path}: {line.strip()}"
        for path in project_files
        if path.suffix in (".py", ".md", ".yaml", ".sh", ".toml", ".cff")
        and path.parts[:2] != ("tests", "packaging")
        for line in (checkout / path).read_text("utf-8").splitlines()
        if wanted.search(line)
    ]
    assert found == []
