import random
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightning_plugins.callbacks import ExactResume
from lightning_plugins.datamodules import ResumableDataLoader


class DrawsEverywhere(Callback):
    """Draws from the three global generators at every batch, and records the numbers."""

    def __init__(self):
        self.drawn = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.drawn.append((torch.rand(()).item(), random.random(), np.random.rand()))


def run(task, folder, ckpt_path=None, module=None, **arguments):
    torch.manual_seed(0 if ckpt_path is None else 99)
    draws = DrawsEverywhere()
    keep = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    module = module or task.Classifier()
    loader = ResumableDataLoader(list(zip(*task.samples(), strict=True)), 5, shuffle=True)
    trainer = task.trainer(
        folder, [ExactResume(), draws, keep], enable_checkpointing=True, **arguments
    )
    trainer.fit(module, loader, ckpt_path=ckpt_path)
    return task.weights(module), draws.drawn


@pytest.mark.scale(plugin="ExactResume", strategy="one device")
@pytest.mark.parametrize("step", [1, 4, 6, 11])
def test_generators_order_and_dropout_continue_exactly(task, tmp_path, step):
    whole, drawn = run(task, tmp_path / "whole")
    resumed, drawn_again = run(task, tmp_path / "resumed", tmp_path / f"whole/step={step}.ckpt")
    task.assert_same_bits(whole, resumed)
    assert drawn_again == drawn[step:]


def test_loaders_that_a_schedule_created_early_are_resumed_too(task, tmp_path):
    class AsksForTheLengthOfTheRun(task.Classifier):
        def configure_optimizers(self):
            self.cosine_steps = self.trainer.estimated_stepping_batches
            return super().configure_optimizers()

    whole, _ = run(task, tmp_path / "whole", module=AsksForTheLengthOfTheRun())
    resumed, _ = run(
        task,
        tmp_path / "resumed",
        tmp_path / "whole/step=4.ckpt",
        module=AsksForTheLengthOfTheRun(),
    )
    task.assert_same_bits(whole, resumed)


def test_the_checkpoint_is_plain_data(task, tmp_path):
    run(task, tmp_path)
    checkpoint = torch.load(tmp_path / "step=4.ckpt", weights_only=True)
    assert len(checkpoint["callbacks"]["ExactResume"]["random_states"]) == 1


def test_a_checkpoint_within_an_accumulation_window_warns(task, tmp_path):
    class SaveAtBatch(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 1:
                trainer.save_checkpoint(tmp_path / "window.ckpt")

    with pytest.warns(UserWarning, match="within a window of 3 accumulated batches"):
        task.train(
            tmp_path, [ExactResume(), SaveAtBatch()], max_epochs=1, accumulate_grad_batches=3
        )


class Validated:
    """Adds a validation metric to a module."""

    def validation_step(self, batch, batch_idx):
        self.log("val/accuracy", (self(batch[0]).argmax(-1) == batch[1]).float().mean())


def warnings_of_saves_in_validation(task, folder, loader, **arguments):
    """Return the saved steps, and the number of warnings about an accumulation window."""

    class Module(Validated, task.Classifier):
        pass

    keep = ModelCheckpoint(folder, "{step}-{epoch}", monitor="val/accuracy", save_top_k=-1)
    trainer = task.trainer(
        folder,
        [ExactResume(), keep],
        enable_checkpointing=True,
        max_epochs=1,
        accumulate_grad_batches=4,
        **arguments,
    )
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer.fit(Module(), loader, task.batches())
    saved = len(list(folder.glob("*.ckpt")))
    return saved, sum("within a window of 4" in str(warning.message) for warning in told)


def test_a_validation_checkpoint_within_an_accumulation_window_warns(task, tmp_path):
    eight = DataLoader(TensorDataset(*task.samples()), batch_size=4)
    assert len(eight) == 8
    # After batch 6: ModelCheckpoint does not save before the first optimizer step.
    assert warnings_of_saves_in_validation(task, tmp_path, eight, val_check_interval=3) == (1, 1)


@pytest.mark.parametrize("has_length", [True, False])
def test_a_validation_at_the_end_of_an_epoch_does_not_warn(task, tmp_path, has_length):
    class Stream(IterableDataset):
        def __iter__(self):
            return zip(*task.samples(), strict=True)

    six = task.batches() if has_length else DataLoader(Stream(), batch_size=5)
    assert warnings_of_saves_in_validation(task, tmp_path, six) == (1, 0)


def test_a_rank_without_states_in_the_checkpoint_warns(task, tmp_path):
    callback = ExactResume()
    callback.load_state_dict({"random_states": []})
    with pytest.warns(UserWarning, match="no random states for rank 0 of 1"):
        task.train(tmp_path, [callback], max_epochs=1)


def test_a_run_that_is_not_resumed_equals_the_run_without_it_bit_for_bit(task, tmp_path):
    plain, _ = task.train(tmp_path)
    kept, _ = task.train(tmp_path, [ExactResume()])
    task.assert_same_bits(task.weights(plain), task.weights(kept))
