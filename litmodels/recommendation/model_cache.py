"""Trains recommenders on first use, keeps their checkpoints in a cache, and loads networks."""

import copy
import hashlib
import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info
from torchmetrics import Metric

from lightning_plugins import __version__
from lightning_plugins.assets.cache import cache_folder
from lightning_plugins.assets.lock import process_lock
from lightning_plugins.litmodels.recommendation.sequential_recommender import SequentialRecommender
from lightning_plugins.nn.random_state import seeded
from lightning_plugins.nn.recommendation.item_network import ItemNetwork, NetworkName

_EPOCHS, _PATIENCE = 40, 5
_RECIPES: dict[NetworkName, dict[str, Any]] = {
    "sasrec": {"layers": 2, "lr": 4e-3, "batch_size": 32},
    "irn": {"layers": 2, "lr": 4e-3, "batch_size": 32},
    "gru4rec": {"layers": 1, "lr": 2e-3, "batch_size": 64},
}
_MONITORED = "val/ndcg@10"


def fitted_checkpoint(
    datamodule: LightningDataModule,
    network: NetworkName,
    seed: int,
    folder: Path | None = None,
    max_epochs: int | None = None,
) -> Path:
    """Return the checkpoint with the best validation NDCG@10, and train it if it does not exist.

    The settings, including batches, are those of the recipes ``recommendation/tiny``,
    ``recommendation/tiny_gru4rec`` and ``recommendation/tiny_irn``. The file name contains a hash
    of settings, data and version. The file is written atomically, and concurrent processes wait for
    the one that trains.

    Args:
        datamodule: An ``InteractionDataModule`` after ``setup``. It is not modified.
        network: ``sasrec``, ``gru4rec`` or ``irn``.
        seed: Seed of weights, dropout and the order of batches.
        folder: Folder of the checkpoints; None means the user's cache.
        max_epochs: Maximum number of epochs; None means 40, as in the recipes. Training also ends
            5 epochs after the best one.

    Returns:
        The path of the checkpoint.
    """
    users = {"num_users": datamodule.num_users} if network == "irn" else {}  # type: ignore[attr-defined]
    settings: dict[str, Any] = {
        "network": network,
        "num_items": datamodule.num_items,  # type: ignore[attr-defined]
        "max_length": datamodule.max_length,  # type: ignore[attr-defined]
        **_RECIPES[network],
        **users,
        "max_epochs": max_epochs or _EPOCHS,
    }
    folder = folder or cache_folder().parent / "recommenders"
    key = _key(datamodule, settings | {"seed": seed})
    path = folder / f"{network}-{seed}-{key[:16]}.ckpt"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with process_lock(
        folder / f".{path.name}.lock",
        lambda: rank_zero_info(f"waiting until another process has trained {path.name}"),
    ):
        if not path.is_file():
            rank_zero_info(f"training {network} with seed {seed} once, for {path}")
            _fit(datamodule, settings, seed, path)
    return path


def load_network(path: str, num_items: int, num_users: int | None = None) -> ItemNetwork:
    """Load the network of a ``SequentialRecommender`` checkpoint, in evaluation mode and frozen.

    Raises:
        ValueError: The network was trained on another number of items, or has weights for another
            number of users than ``num_users``.
    """
    recommender = SequentialRecommender.load_from_checkpoint(
        path, map_location="cpu", weights_only=True
    )
    network = recommender.eval().requires_grad_(False).network
    assert network is not None
    if network.num_items != num_items:
        raise ValueError(
            f"{path} was trained on {network.num_items} items, but the data has {num_items}: use "
            "the data settings with which it was trained"
        )
    of_users = getattr(network, "num_users", None)
    if num_users is not None and of_users not in (None, num_users):
        raise ValueError(
            f"{path} was trained on {of_users} users, but the data has {num_users}: use the data "
            "settings with which it was trained"
        )
    return network


def _fit(datamodule: LightningDataModule, settings: dict[str, Any], seed: int, path: Path) -> None:
    data = copy.copy(datamodule)  # with a separate trainer and order of batches
    data.trainer = None
    data.seed = seed  # type: ignore[attr-defined]
    data.batch_size = settings["batch_size"]  # type: ignore[attr-defined]
    model = {name: settings[name] for name in settings.keys() - {"lr", "batch_size", "max_epochs"}}
    with tempfile.TemporaryDirectory(prefix=".fitting-", dir=path.parent) as work, seeded(seed):
        best = ModelCheckpoint(work, "best", monitor=_MONITORED, mode="max", save_weights_only=True)
        stop = EarlyStopping(
            _MONITORED, patience=_PATIENCE, mode="max", check_on_train_epoch_end=False
        )
        trainer = Trainer(
            devices=1,
            max_epochs=settings["max_epochs"],
            callbacks=[best, stop],
            default_root_dir=work,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        optimizer = partial(torch.optim.AdamW, lr=settings["lr"])
        recommender = SequentialRecommender(**model, optimizer=optimizer)
        for metric in recommender.modules():
            if isinstance(metric, Metric):
                # Other processes wait for this fit, so metrics must not synchronize with them.
                metric.distributed_available_fn = _alone
        trainer.fit(recommender, datamodule=data)
        os.replace(best.best_model_path, path)


def _alone() -> bool:
    return False


def _key(datamodule: LightningDataModule, settings: dict[str, Any]) -> str:
    fixed = {
        "patience": _PATIENCE,
        "version": __version__,
    }
    key = hashlib.sha256(json.dumps(settings | fixed, sort_keys=True).encode())
    parts = datamodule.parts  # type: ignore[attr-defined]
    for items in (*parts.train, *(question.history for question in parts.validation)):
        key.update(np.ascontiguousarray(items, dtype=np.int64).tobytes() + b"|")
    key.update(np.array([question.target for question in parts.validation]).tobytes())
    return key.hexdigest()
