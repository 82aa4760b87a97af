import importlib
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lightning_plugins.current_folder import TypedModules, is_command
from lightning_plugins.strategies import supervisor

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


@pytest.mark.parametrize(
    ("launcher", "python_path"),
    [
        ((), os.pathsep),
        (("-m", "lightning_plugins.strategies.supervisor", "1"), ""),
    ],
    ids=["alone", "supervisor"],
)
def test_python_dash_m_does_not_search_the_current_folder(tmp_path, launcher, python_path):
    for name in ("yaml", "numpy", "optree"):
        (tmp_path / f"{name}.py").write_text(LEAVES_A_MARKER)
    run = subprocess.run(
        [
            sys.executable,
            *launcher,
            *("-m", "lightning_plugins", "recipes", "show", "image/digits"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert "class_path" in run.stdout
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-m", "lightning_plugins", "fit"], True),
        (["-X", "dev", "-mlightning_plugins.strategies.supervisor", "2"], True),
        (["-m", "pytest", "lightning_plugins"], False),
        (["-m"], False),
        (["train.py", "-model", "x"], False),
    ],
)
def test_a_command_of_this_package_is_recognized(arguments, expected):
    assert is_command(["python", *arguments]) == expected


@pytest.mark.parametrize(("options", "expected"), [(("-P",), "1"), ((), "None")])
def test_the_processes_of_a_run_keep_pythons_option(options, expected, tmp_path):
    program = (
        "import os, runpy, sys; sys.argv = ['lightning-plugins', '--version']\n"
        "try: runpy.run_module('lightning_plugins', run_name='__main__')\n"
        "except SystemExit: print(os.environ.get('PYTHONSAFEPATH'))"
    )
    run = subprocess.run(
        [sys.executable, *options, "-c", program],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stdout.splitlines()[-1] == expected


def test_the_supervisor_starts_agents_of_this_package_without_the_current_folder(monkeypatch):
    commands = []
    monkeypatch.setattr(
        supervisor,
        "Supervisor",
        lambda command, *_, **__: commands.append(command) or SimpleNamespace(run=int),
    )
    supervisor.main(["2", "-m", "lightning_plugins", "fit"])
    supervisor.main(["2", "-m", "my_package.train"])
    assert commands == [
        [sys.executable, "-P", "-m", "lightning_plugins", "fit"],
        [sys.executable, "-m", "my_package.train"],
    ]
