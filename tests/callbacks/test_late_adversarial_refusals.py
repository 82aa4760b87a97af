"""Configurations that LateAdversarialTraining refuses, and its error messages."""

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from reference_adversarial_training import late
from torch.utils.data import DataLoader

from lightning_plugins._lightning_compat import closures
from lightning_plugins.callbacks import LateAdversarialTraining


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"start": 1.0}, "fraction of the run below 1"),
        ({"start": -1}, "start=-1"),
        ({"unit": "epochs"}, "unit='epochs'"),
        ({"end": 0.5}, r"end=0\.5"),
        ({"attack": "cw"}, "attack='cw'"),
        ({"attack": "fgsm", "step_size": 0.1}, r"step_size=0\.1: fgsm takes one step"),
        ({"norm": "l1"}, "norm='l1'"),
        ({"eps": -0.1}, r"eps=-0\.1"),
        ({"eps": 8.0}, r"eps=8\.0: pixel values in clamp"),
        ({"steps": 0}, "steps=0"),
        ({"step_size": 0.0}, r"step_size=0\.0"),
        ({"mean": [0.5]}, "expected both or neither"),
        ({"clamp": (1.0, 0.0)}, "clamp="),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        LateAdversarialTraining(**arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"clamp": (0.0, 1.0)}, "if they are normalized, pass mean and std"),
        ({"input_key": 2}, "input_key=2: the batch is a list of 2 elements"),
        ({"label_key": "label"}, "label_key='label': the batch is a list of 2 elements"),
        ({"input_key": 1, "label_key": 0}, "inputs are torch.int64"),
        ({"mean": [0.0, 0.0], "std": [1.0, 1.0]}, "have 6"),
    ],
)
def test_a_batch_that_cannot_be_attacked_is_refused_at_the_first_step(
    task, tmp_path, arguments, named
):
    module = task.Classifier()
    with pytest.raises(ValueError, match=named):
        task.train(tmp_path, [late(0.9, **arguments)], module)
    assert module.training_steps == 0


def test_the_error_lists_the_keys_of_a_dictionary(task, tmp_path):
    loader = DataLoader([{"pixels": 1, "label": 2}], batch_size=None)
    with pytest.raises(ValueError, match=r"input_key=0: .*keys 'pixels', 'label'"):
        task.trainer(tmp_path, [late(label_key="label")]).fit(task.Classifier(), loader)


def test_a_start_beyond_the_end_of_the_run_is_refused(task, tmp_path):
    with pytest.raises(ValueError, match="the run ends at epoch 2"):
        task.train(tmp_path, [late(2, unit="epoch")])
    with pytest.raises(ValueError, match="run without an end"):
        task.train(tmp_path, [late(0.5)], max_epochs=-1)


def test_manual_optimization_is_refused(task, tmp_path):
    module = task.Classifier()
    module.automatic_optimization = False
    with pytest.raises(MisconfigurationException, match="needs automatic optimization"):
        task.train(tmp_path, [late()], module)


def test_a_training_step_that_fetches_its_own_batches_is_refused(task, tmp_path):
    class Fetches(task.Classifier):
        def training_step(self, dataloader_iter):
            return super().training_step(next(dataloader_iter)[0], 0)

    with pytest.raises(MisconfigurationException, match="dataloader_iter"):
        task.train(tmp_path, [late()], Fetches())


def test_two_phases_that_overlap_are_refused(task, tmp_path):
    with pytest.raises(MisconfigurationException, match="both attack the batches from step 9"):
        task.train(tmp_path, [late(0.5), late(9, unit="step")])


def test_an_unsupported_lightning_is_reported(task, tmp_path, monkeypatch):
    monkeypatch.setattr(closures, "_builds_closures", lambda trainer: False)
    with pytest.raises(MisconfigurationException, match=r"install lightning 2\.6"):
        task.train(tmp_path, [late()])
