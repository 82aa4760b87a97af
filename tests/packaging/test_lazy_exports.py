"""A package's exports are imported on first access, and type checkers see all of them."""

import ast
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("callbacks", "datamodules", "litmodels", "optimizers", "strategies")


@pytest.mark.parametrize("folder", PACKAGES)
def test_the_lazy_names_and_those_for_type_checkers_are_the_same(folder: str) -> None:
    package = importlib.import_module(f"lightning_plugins.{folder}")
    declared = {}
    for node in ast.walk(ast.parse(Path(package.__file__ or "").read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            declared |= {alias.asname: (node.module, alias.name) for alias in node.names}
    assert sorted(declared) == package.__all__ == sorted(set(package.__all__))
    for name, (module, original) in declared.items():
        defining = importlib.import_module(f"{package.__name__}.{module}")
        assert name == original
        assert getattr(package, name) is getattr(defining, name)
        assert name in dir(package)


@pytest.mark.parametrize("folder", PACKAGES)
def test_no_export_has_the_name_of_a_submodule_which_would_replace_it(folder: str) -> None:
    package = importlib.import_module(f"lightning_plugins.{folder}")
    submodules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not submodules.intersection(package.__all__)


def test_an_unknown_name_is_an_attribute_error_and_an_import_error() -> None:
    callbacks = importlib.import_module("lightning_plugins.callbacks")
    with pytest.raises(AttributeError, match=r"'lightning_plugins.callbacks' has no attribute"):
        callbacks.LateSan  # noqa: B018
    with pytest.raises(ImportError, match="LateSan"):
        exec("from lightning_plugins.callbacks import LateSan", {})


def test_importing_one_class_loads_only_the_modules_that_it_needs(
    run_python: Callable[..., Any], tmp_path: Path
) -> None:
    program = """
import json, sys
from lightning.pytorch import Trainer  # through torchmetrics, it may import transformers
before = set(sys.modules)
from lightning_plugins.callbacks import ExactResume
from lightning_plugins.optimizers import Lion
import lightning_plugins.strategies
loaded = sorted(set(sys.modules) - before)
strategy = Trainer(strategy="decentralized_simulated", accelerator="cpu", logger=False).strategy
print(json.dumps([loaded, type(strategy).__name__, ExactResume.__module__]))
"""
    loaded, strategy, module = run_python(["-c", program], cwd=tmp_path)
    assert module == "lightning_plugins.callbacks.exact_resume"
    assert strategy == "SimulatedDecentralizedStrategy"
    assert not {"transformers", "pandas", "sklearn"} & {name.partition(".")[0] for name in loaded}
    folders = {name.split(".")[1] for name in loaded if name.startswith("lightning_plugins.")}
    assert not folders & {"claims", "datamodules", "litmodels", "metrics", "recipes", "reports"}
    for unneeded in ("callbacks.head_scores", "callbacks.late_sam", "optimizers.muon_adamw"):
        assert f"lightning_plugins.{unneeded}" not in loaded
    # The names of strategies are registered under both import names of Lightning.
    strategies = [name for name in loaded if name.startswith("lightning_plugins.strategies.")]
    assert strategies == ["lightning_plugins.strategies.import_roots"]
