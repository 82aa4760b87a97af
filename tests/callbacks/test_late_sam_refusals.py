"""Configurations that LateSAM refuses, and its error messages."""

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins.callbacks import LateSAM
from lightning_plugins.strategies import SimulatedDecentralizedStrategy


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"rho": 0.0}, r"rho=0\.0"),
        ({"rho": float("nan")}, "rho=nan"),
        ({"start": -1}, "start=-1"),
        ({"start": 1.0}, "fraction of the run below 1"),
        ({"start": float("nan")}, "start=nan"),
        ({"unit": "epochs"}, "unit='epochs'"),
        ({"start": 0.5, "end": 0.5}, "end=0.5"),
        ({"mode": "gsam"}, "mode='gsam'"),
        ({"interval": 0}, "interval=0"),
        ({"rho_warmup": -1}, "rho_warmup=-1"),
        ({"parameters": "("}, "not a regular expression"),
        ({"accumulation": "micro"}, "accumulation='micro'"),
        ({"momentum": "clear"}, "momentum='clear'"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        LateSAM(**arguments)


def test_a_start_beyond_the_end_of_the_run_is_refused(task, tmp_path):
    with pytest.raises(ValueError, match="the run ends at epoch 2"):
        task.train(tmp_path, [LateSAM(start=2, unit="epoch")], max_epochs=2)
    with pytest.raises(ValueError, match="run without an end"):
        task.train(tmp_path, [LateSAM(start=0.5)], max_epochs=-1)


def test_manual_optimization_is_refused(task, tmp_path):
    module = task.Classifier()
    module.automatic_optimization = False
    with pytest.raises(MisconfigurationException, match="needs automatic optimization"):
        task.train(tmp_path, [LateSAM()], module)


def test_lbfgs_is_refused(task, tmp_path):
    with pytest.raises(MisconfigurationException, match="LBFGS"):
        task.train(tmp_path, [LateSAM()], task.Classifier(torch.optim.LBFGS))


def test_a_training_step_that_fetches_its_own_batches_is_refused(task, tmp_path):
    class Fetches(task.Classifier):
        def training_step(self, dataloader_iter):
            return super().training_step(next(dataloader_iter)[0], 0)

    with pytest.raises(MisconfigurationException, match="dataloader_iter"):
        task.train(tmp_path, [LateSAM()], Fetches())


def test_two_phases_that_overlap_are_refused(task, tmp_path):
    with pytest.raises(MisconfigurationException, match="both perturb the weights from step 9"):
        task.train(tmp_path, [LateSAM(0.5), LateSAM(9, unit="step")])


def test_local_perturbation_is_refused_with_a_static_graph(task, tmp_path):
    strategy = DDPStrategy(static_graph=True, process_group_backend="gloo")
    trainer = task.trainer(tmp_path, strategy=strategy)
    with pytest.raises(MisconfigurationException, match="set local=False or static_graph=False"):
        LateSAM().check(trainer)
    LateSAM(local=False).check(trainer)


def test_resetting_the_momentum_with_simulated_agents_is_refused(task, tmp_path):
    trainer = task.trainer(tmp_path, strategy=SimulatedDecentralizedStrategy(2))
    with pytest.raises(MisconfigurationException, match=r"momentum='reset' .* set momentum='keep'"):
        LateSAM(momentum="reset").check(trainer)
    LateSAM().check(trainer)


def test_resetting_the_momentum_of_adagrad_is_refused(task, tmp_path):
    module = task.Classifier(lambda parameters: torch.optim.Adagrad(parameters, lr=0.1))
    with pytest.raises(MisconfigurationException, match="set momentum='keep'"):
        task.train(tmp_path, [LateSAM(momentum="reset")], module)


def test_a_pattern_that_matches_no_parameter_is_refused_with_the_names(task, tmp_path):
    with pytest.raises(ValueError, match=r"parameters='head' .* names are network\.0\.weight"):
        task.train(tmp_path, [LateSAM(parameters="head")])
