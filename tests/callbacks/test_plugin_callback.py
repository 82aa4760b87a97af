"""Copies and pickles of callbacks, as libraries make them."""

import copy
import io
from pickle import UnpicklingError

import pytest
import torch

import lightning_plugins.callbacks
from lightning_plugins.callbacks import (
    AdversarialTextEvaluation,
    CommunicationSchedule,
    ExactResume,
    LateAdversarialTraining,
    LateSAM,
    StagedTraining,
    TrainingStage,
)
from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.strategies.topologies import RandomPull

SPECIAL = {
    "StagedTraining": [StagedTraining([TrainingStage(1, {".*": 0.1})])],
    "CommunicationSchedule": [
        CommunicationSchedule(),
        CommunicationSchedule("window", start=0.5, width=0.5, window_topology=RandomPull(0.2)),
        CommunicationSchedule(outer_lr=0.7),
    ],
}
NAMES = [
    name
    for name in lightning_plugins.callbacks.__all__
    if issubclass(getattr(lightning_plugins.callbacks, name), PluginCallback)
]


def instances(name):
    cls = getattr(lightning_plugins.callbacks, name)
    return SPECIAL[name] if name in SPECIAL else [cls()]


def loaded_safely(value):
    """What a checkpoint returns whose hyperparameters contain ``value``."""
    file = io.BytesIO()
    torch.save({"hyper_parameters": {"callbacks": [value]}}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)["hyper_parameters"]["callbacks"][0]


@pytest.mark.parametrize("name", NAMES)
def test_every_callback_survives_safe_loading_and_copies_with_all_attributes(name):
    for callback in instances(name):
        others = [copy.deepcopy(callback), copy.copy(callback)]
        if name != "AdversarialTextEvaluation":
            others.append(loaded_safely(callback))
        for other in others:
            assert type(other) is type(callback)
            own = {k: v for k, v in vars(other).items() if k != "_copied_from"}
            assert own.keys() == vars(callback).keys()
            for key, value in vars(callback).items():
                same = own[key] == value or type(own[key]) is type(value) is not type(None)
                assert same, f"{key}: {own[key]} instead of {value}"


def test_a_callback_that_reads_files_when_it_is_created_is_not_loaded_from_a_checkpoint():
    with pytest.raises(UnpicklingError, match="AdversarialTextEvaluation"):
        loaded_safely(AdversarialTextEvaluation())


def test_classes_of_users_are_not_put_on_the_list():
    listed = {getattr(one, "__name__", "") for one in torch.serialization.get_safe_globals()}
    assert "LateSAM" in listed
    assert "SaveCallbacks" not in listed


class SaveCallbacks(PluginCallback):
    """Saves a checkpoint in the middle of training whose hyperparameters contain the callbacks."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 3:
            own = [c for c in trainer.callbacks if isinstance(c, LateSAM | ExactResume)]
            pl_module.hparams["trainer_arguments"] = {"callbacks": own}
            trainer.save_checkpoint(self.path)


def test_callbacks_in_the_hyperparameters_of_a_checkpoint_load_without_the_run(task, tmp_path):
    sam = LateSAM(start=0)
    trainer = task.trainer(tmp_path, [sam, ExactResume(), SaveCallbacks(tmp_path / "3.ckpt")])
    module = task.Classifier()
    trainer.fit(module, task.batches())
    loaded = torch.load(tmp_path / "3.ckpt", weights_only=True)["hyper_parameters"]
    saved, resume = loaded["trainer_arguments"]["callbacks"]
    assert saved.sam_steps == 3
    assert saved._closures is None
    assert resume._trainer is None
    task.trainer(tmp_path, [saved, resume]).fit(task.Classifier(), task.batches())
    assert saved.sam_steps == sam.sam_steps


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_library_that_trains_with_copies_leaves_the_counters_on_the_users_object(
    task, tmp_path, copied
):
    sam, attack = LateSAM(start=0.5), LateAdversarialTraining(start=0, end=0.5, eps=0.1)
    inner = [copied(copied(one)) for one in (sam, attack)]
    inner[0].rho = 0.1
    task.trainer(tmp_path, inner[:1]).fit(task.Classifier(), task.batches())
    assert sam.sam_steps == inner[0].sam_steps > 0
    assert sam.first_active_step == inner[0].first_active_step
    assert sam.rho == 0.05
