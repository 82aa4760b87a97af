"""Trains RecTools' SASRec on a split from another process; runs in an environment with RecTools.

usage: PEER_PYTHON recommendation_rectools.py FOLDER  (recommendation.py runs it)

Reads ``FOLDER/split.npz`` and ``FOLDER/settings.json``, and writes ``FOLDER/EPOCH.npz`` after each
epoch: scores of all items for the validation and test questions, and the CPU seconds of training.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet


class Export(pytorch_lightning.Callback):
    """Writes the scores after each epoch; the time for this is not counted."""

    def __init__(self, model: SASRecModel, folder: Path) -> None:
        self.model, self.folder, self.seconds = model, folder, 0.0
        self.split = dict(np.load(folder / "split.npz"))

    def __deepcopy__(self, memo: dict) -> "Export":  # RecTools copies its trainer
        return self

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.started = time.process_time()

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.seconds += time.process_time() - self.started
        pl_module.eval()
        found = {part: self.scores(pl_module, part) for part in ("validation", "test")}
        pl_module.train()
        np.savez(self.folder / f"{trainer.current_epoch}.npz", seconds=self.seconds, **found)

    @torch.no_grad()
    def scores(self, module, part: str) -> np.ndarray:
        histories, num_items = self.split[part], int(self.split["num_items"])
        preparator = self.model.data_preparator
        known = {item: place for place, item in enumerate(preparator.item_id_map.external_ids)}
        numbers = [item for item in range(1, num_items + 1) if item in known]
        length = preparator.session_max_len
        sessions = torch.zeros(len(histories), length, dtype=torch.int64)
        for row, history in zip(sessions, histories, strict=True):
            items = [known[item] for item in history[history > 0] if item in known][-length:]
            row[length - len(items) :] = torch.tensor(items, dtype=torch.int64)
        embeddings = module.torch_model.item_model.get_all_embeddings()
        states = module.torch_model.encode_sessions({"x": sessions}, embeddings)[:, -1]
        scores = np.full((len(histories), num_items + 1), -np.inf, np.float32)
        scores[:, numbers] = (states @ embeddings.T)[:, [known[item] for item in numbers]].numpy()
        return scores


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    settings = json.loads((folder / "settings.json").read_text())
    split = np.load(folder / "split.npz")
    pytorch_lightning.seed_everything(settings["seed"])
    table = pd.DataFrame({Columns.User: split["users"], Columns.Item: split["items"]})
    table[Columns.Weight] = 1.0
    table[Columns.Datetime] = pd.to_datetime(np.arange(len(table)), unit="s")
    model = SASRecModel(
        n_blocks=settings["layers"],
        n_heads=settings["heads"],
        n_factors=settings["dim"],
        dropout_rate=settings["dropout"],
        session_max_len=settings["max_length"],
        lr=settings["lr"],
        batch_size=settings["batch_size"],
        loss="softmax",
        item_net_block_types=(IdEmbeddingsItemNet,),
        use_key_padding_mask=settings["mask_padding"],
    )
    model._trainer = pytorch_lightning.Trainer(
        max_epochs=settings["epochs"],
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Export(model, folder)],
    )
    model.fit(Dataset.construct(table))


if __name__ == "__main__":
    main()
