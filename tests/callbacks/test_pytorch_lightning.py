"""The plugins in a project that imports ``pytorch_lightning``, the other name of the same code."""

import warnings
from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_plugins.callbacks import ExactResume, LateSAM
from lightning_plugins.datamodules import ResumableDataLoader
from lightning_plugins.optimizers import WarmupStableDecay, configure_optimizers

pl = pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed")


def classifier(task):
    class Classifier(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = task.network()

        def training_step(self, batch, batch_idx):
            return cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self):
            return configure_optimizers(self, partial(torch.optim.SGD, lr=0.1), WarmupStableDecay)

    return Classifier()


def fit(task, tmp_path, callbacks, ckpt_path=None, **arguments):
    module = classifier(task)
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 2, **arguments},
    )
    torch.manual_seed(11 if ckpt_path is None else 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = ResumableDataLoader(list(zip(*task.samples(), strict=True)), 5, shuffle=True)
        trainer.fit(module, data, ckpt_path=ckpt_path)
    return task.weights(module)


def test_callbacks_optimizers_and_loader_work_and_resume(task, tmp_path):
    sam = LateSAM(start=0.5, rho=0.1)
    keep = pl.callbacks.ModelCheckpoint(
        tmp_path / "kept", filename="{step}", every_n_train_steps=4, save_top_k=-1
    )
    whole = fit(task, tmp_path, [ExactResume(), sam, keep])
    assert sam.sam_steps == 6
    for step in (4, 8):
        path = tmp_path / "kept" / f"step={step}.ckpt"
        resumed = fit(task, tmp_path, [ExactResume(), LateSAM(start=0.5, rho=0.1)], path)
        task.assert_same_bits(whole, resumed)


def test_unsupported_configurations_are_still_refused(task, tmp_path):
    with pytest.raises(ValueError, match="the run ends at epoch 2"):
        fit(task, tmp_path, [LateSAM(start=2, unit="epoch")])
