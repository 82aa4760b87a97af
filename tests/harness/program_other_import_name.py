"""Runs by name, by class and by ``_target_`` under a Trainer of ``pytorch_lightning``.

``python program_other_import_name.py FOLDER``; Lightning starts the second process. The imports of
this package come first, as tools that sort imports place them.
"""

import importlib
import json
import sys
import warnings
from pathlib import Path

from lightning_plugins.callbacks import CommunicationSchedule, MergedEvaluation

import pytorch_lightning as pl  # isort: skip
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = torch.nn.Linear(8, 4)

    def training_step(self, batch, batch_idx):
        return cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/accuracy", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def target(path, **arguments):
    """Instantiate a class as Hydra does for ``_target_``."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)(**arguments)


def fit(folder, strategy, devices, ckpt_path=None):
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(64, 8, generator=generator), torch.arange(64) % 4
    data = TensorDataset(inputs, labels)
    module = Classifier()
    keep = pl.callbacks.ModelCheckpoint(folder, "{step}", every_n_train_steps=4, save_top_k=-1)
    trainer = pl.Trainer(
        strategy=strategy,
        accelerator="cpu",
        devices=devices,
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[CommunicationSchedule(every_n_steps=3), MergedEvaluation(), keep],
        default_root_dir=folder,
    )
    trainer.fit(module, DataLoader(data, 8, shuffle=True), DataLoader(data, 8), ckpt_path=ckpt_path)
    return {
        "weights": module.net.weight.detach().reshape(-1).tolist(),
        "gap": float(trainer.callback_metrics["mergeability_gap"]),
        "has_merged": bool(trainer.strategy.report["by_kind"]["merge"]["rounds"]),
        "is_other": isinstance(trainer.strategy, pl.strategies.Strategy),
        "launcher": type(trainer.strategy.launcher).__module__.partition(".")[0],
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    strategies = "lightning_plugins.strategies."
    by_class = target(f"{strategies}DecentralizedStrategy", timeout_seconds=20)
    simulated = target(f"{strategies}SimulatedDecentralizedStrategy", num_agents=4)
    runs = {
        "by name": fit(folder / "name", "decentralized", 2),
        "by class": fit(folder / "class", by_class, 2),
        "resumed": fit(folder / "resumed", "decentralized", 2, folder / "name" / "step=4.ckpt"),
        "simulated": fit(folder / f"simulated{by_class.global_rank}", simulated, 1),
    }
    (folder / f"{by_class.global_rank}.json").write_text(json.dumps(runs))
