import importlib
import os
import subprocess
import sys

import pytest

from lightning_plugins.current_folder import TypedModules

LEAVES_A_MARKER = "import pathlib\npathlib.Path('owned').mkdir(exist_ok=True)\n"
# Packages that Lightning, torchmetrics, torch or this package import if they are installed.
OPTIONAL = (
    *("comet_ml", "deepspeed", "hivemind", "litmodels", "litlogger", "mlflow", "neptune", "wandb"),
    *(
        "bitsandbytes",
        "transformer_engine",
        "torch_xla",
        "onnx",
        "clearml",
        "tensorboardX",
        "torchft",
    ),
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("import helper\nfrom mine import part\n")
    (tmp_path / "mine" / "part.py").write_text(
        "def late():\n    import late_helper\n    return late_helper.VALUE\n"
    )
    (tmp_path / "helper.py").write_text("try:\n    import json\nfinally:\n    VALUE = 1\n")
    (tmp_path / "late_helper.py").write_text("VALUE = 2\n")
    (tmp_path / "planted.py").write_text(LEAVES_A_MARKER)
    monkeypatch.chdir(tmp_path)
    finder = TypedModules(str(tmp_path))
    monkeypatch.setenv("LIGHTNING_PLUGINS_TYPED_MODULES", "")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])
    yield tmp_path, finder
    for name in ("mine", "mine.part", "helper", "late_helper"):
        sys.modules.pop(name, None)


def test_a_named_module_and_what_it_imports_are_found(folder):
    _, finder = folder
    finder.add(["mine.Model", "2.5", "mine", "a b.c"])
    mine = importlib.import_module("mine")
    assert mine.helper.VALUE == 1
    assert mine.part.late() == 2


def test_nothing_else_is_found(folder):
    path, finder = folder
    finder.add(["mine.Model"])
    for name in ("planted", "helper"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
    assert not (path / "owned").exists()


def test_a_run_imports_no_planted_package(fit, users_folder):
    missing = [name for name in OPTIONAL if importlib.util.find_spec(name) is None]
    for name in missing:
        (users_folder / f"{name}.py").write_text(LEAVES_A_MARKER)
    answer = fit("--model", "my_pkg.MyModel", "--data", "my_pkg.MyData", "--trainer.logger=false")
    assert answer.code == 0, answer.err
    assert not (users_folder / "owned").exists()


@pytest.mark.parametrize("python_path", ["", os.pathsep])
def test_python_dash_m_does_not_search_the_current_folder(tmp_path, python_path):
    (tmp_path / "yaml.py").write_text(LEAVES_A_MARKER)
    run = subprocess.run(
        [sys.executable, "-m", "lightning_plugins", "recipes", "show", "image/digits"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / "owned").exists()
