"""The metadata in pyproject.toml."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import lightning_plugins


@pytest.fixture(scope="module")
def project(checkout: Path) -> dict[str, Any]:
    with (checkout / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def test_the_description_names_lightning_and_the_independence(project: dict[str, Any]) -> None:
    assert project["description"].startswith("for PyTorch Lightning")
    assert "independent" in project["description"]
    assert "not affiliated with Lightning AI" in project["description"]


@pytest.mark.parametrize("malicious", ["2.6.2", "2.6.3"])
def test_malicious_lightning_releases_are_excluded_by_name(
    project: dict[str, Any], malicious: str
) -> None:
    extras = project["optional-dependencies"].values()
    listed = [*project["dependencies"], *(line for extra in extras for line in extra)]
    lightnings = [
        requirement
        for requirement in map(Requirement, listed)
        if requirement.name in ("lightning", "pytorch-lightning")
    ]
    assert lightnings
    for requirement in lightnings:
        assert f"!={malicious}" in str(requirement.specifier).split(",")
        assert Version(malicious) not in requirement.specifier


def test_the_core_has_only_four_requirements(project: dict[str, Any]) -> None:
    core = {Requirement(line).name for line in project["dependencies"]}
    assert core == {"torch", "lightning", "torchmetrics", "jsonargparse"}


def test_versions_agree(project: dict[str, Any]) -> None:
    assert project["version"] == lightning_plugins.__version__
