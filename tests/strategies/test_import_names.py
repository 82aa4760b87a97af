"""The strategies under ``pytorch_lightning``, the other import name of the same code."""

import json
import pickle
import subprocess
import sys

import program_other_import_name
import pytest

from lightning_plugins.strategies import DecentralizedStrategy, SimulatedDecentralizedStrategy

pl = pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    command = [sys.executable, program_other_import_name.__file__, str(folder)]
    done = subprocess.run(command, timeout=120, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{agent}.json").read_text()) for agent in (0, 1)]


@pytest.mark.parametrize("how", ["by name", "by class", "simulated"])
def test_agents_train_and_merge_under_a_trainer_of_the_other_name(runs, how):
    first, second = (run[how] for run in runs)
    assert first["is_other"]
    assert first["has_merged"]
    assert first["weights"] == second["weights"]
    assert first["gap"] == second["gap"]


def test_a_run_under_the_other_name_resumes_exactly(runs):
    for run in runs:
        assert run["resumed"]["weights"] == run["by name"]["weights"]


def test_the_launcher_is_one_that_the_trainer_recognizes(runs):
    assert runs[0]["by class"]["launcher"] == "pytorch_lightning"


@pytest.mark.parametrize("cls", [DecentralizedStrategy, SimulatedDecentralizedStrategy])
def test_an_adapted_strategy_is_pickled_with_its_class(cls):
    strategy = cls()
    pl.Trainer(strategy=strategy, accelerator="cpu", devices=1, logger=False)
    assert type(strategy) is not cls
    assert isinstance(strategy, cls)
    assert pickle.loads(pickle.dumps(type(strategy))) is type(strategy)  # noqa: S301


def test_a_trainer_of_the_usual_name_leaves_the_strategy_as_it_is():
    from lightning.pytorch import Trainer

    strategy = DecentralizedStrategy()
    Trainer(strategy=strategy, accelerator="cpu", devices=1, logger=False)
    assert type(strategy) is DecentralizedStrategy
    assert not isinstance(strategy, pl.strategies.DDPStrategy)


def test_classes_that_are_imported_first_are_accepted_too(tmp_path):
    """Tools that sort imports place lightning_plugins before pytorch_lightning."""
    program = (
        "from lightning_plugins.strategies import DecentralizedStrategy as D\n"
        "from lightning_plugins.strategies import SimulatedDecentralizedStrategy as S\n"
        "from pytorch_lightning.strategies import Strategy, StrategyRegistry\n"
        "assert issubclass(D, Strategy) and issubclass(S, Strategy)\n"
        "assert {'decentralized', 'decentralized_simulated'} <= set(StrategyRegistry)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=tmp_path)
