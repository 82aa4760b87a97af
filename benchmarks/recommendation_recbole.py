"""Trains RecBole's SASRec on a split from another process; runs in an environment with RecBole.

usage: PEER_PYTHON recommendation_recbole.py FOLDER  (recommendation.py runs it)

Reads ``FOLDER/split.npz`` and ``FOLDER/settings.json``, and writes ``FOLDER/EPOCH.npz`` after each
epoch: scores of all items for the validation and test questions, and the CPU seconds of training.
RecBole learns from every prefix of a user's sequence, as its own data augmentation makes them.
"""

import json
import logging
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch


def write_benchmark_files(split: dict[str, np.ndarray], folder: Path, length: int) -> None:
    """Write the prefixes of all sequences, and a row of each for the parts that are not used."""
    rows = ["user_id:token\titem_id_list:token_seq\titem_id:token\n"]
    for user in np.unique(split["users"]):
        items = split["items"][split["users"] == user]
        for end in range(1, len(items)):
            seen = " ".join(map(str, items[max(0, end - length) : end]))
            rows.append(f"{user}\t{seen}\t{items[end]}\n")
    for part, lines in (("train", rows), ("valid", rows[:2]), ("test", rows[:2])):
        (folder / f"split.{part}.inter").write_text("".join(lines))


@torch.no_grad()
def scores(
    model: torch.nn.Module,
    numbers: dict[int, int],
    histories: np.ndarray,
    num_items: int,
    length: int,
) -> np.ndarray:
    sequences = torch.zeros(len(histories), length, dtype=torch.int64)
    lengths = torch.ones(len(histories), dtype=torch.int64)
    for row, history in enumerate(histories):
        items = [numbers[item] for item in history[history > 0] if item in numbers][-length:]
        sequences[row, : len(items)] = torch.tensor(items, dtype=torch.int64)
        lengths[row] = max(1, len(items))
    found = model.forward(sequences, lengths) @ model.item_embedding.weight.T
    table = np.full((len(histories), num_items + 1), -np.inf, np.float32)
    table[:, list(numbers)] = found[:, list(numbers.values())].numpy()
    return table


def main() -> None:
    # RecBole 1.2.1 uses names that NumPy 2 has removed.
    for old, new in {"float_": "float64", "complex_": "complex128", "unicode_": "str_"}.items():
        setattr(np, old, getattr(np, new))
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender import SASRec
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder = Path(sys.argv[1]).absolute()
    settings = json.loads((folder / "settings.json").read_text())
    split = dict(np.load(folder / "split.npz"))
    length = settings["max_length"]
    data = folder / "split"
    data.mkdir()
    write_benchmark_files(split, data, length)
    config = Config(
        model="SASRec",
        dataset="split",
        config_dict={
            "data_path": str(folder),
            "benchmark_filename": ["train", "valid", "test"],
            "alias_of_item_id": ["item_id_list"],
            "load_col": {"inter": ["user_id", "item_id_list", "item_id"]},
            "MAX_ITEM_LIST_LENGTH": length,
            "train_neg_sample_args": None,
            "loss_type": "CE",
            "n_layers": settings["layers"],
            "n_heads": settings["heads"],
            "hidden_size": settings["dim"],
            "inner_size": 4 * settings["dim"],
            "hidden_dropout_prob": settings["dropout"],
            "attn_dropout_prob": settings["dropout"],
            "learning_rate": settings["lr"],
            "train_batch_size": settings["batch_size"],
            "seed": settings["seed"],
            "use_gpu": False,
            "show_progress": False,
            "checkpoint_dir": str(folder),
        },
    )
    logging.disable(logging.INFO)
    init_seed(settings["seed"], True)
    dataset = create_dataset(config)
    train, _, _ = data_preparation(config, dataset)
    model = SASRec(config, train.dataset)
    trainer = Trainer(config, model)
    num_items = int(split["num_items"])
    known = {str(token) for token in dataset.field2id_token["item_id"][1:]}
    numbers = {
        item: int(dataset.token2id("item_id", str(item)))
        for item in range(1, num_items + 1)
        if str(item) in known
    }
    seconds = 0.0
    for epoch in range(settings["epochs"]):
        started = time.process_time()
        trainer._train_epoch(train, epoch)
        seconds += time.process_time() - started
        model.eval()
        found = {
            part: scores(model, numbers, split[part], num_items, length)
            for part in ("validation", "test")
        }
        np.savez(folder / f"{epoch}.npz", seconds=seconds, **found)


if __name__ == "__main__":
    main()
