"""A small catalogue in which what comes next is a rule that can be learned."""

import numpy as np
import pytest
from lightning.pytorch import Trainer

from lightning_plugins.datamodules import InteractionDataModule


@pytest.fixture(scope="session")
def walks(tmp_path_factory):
    """A file of 60 users who walk through 24 items, mostly to the next number."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(60):
        unseen, item = set(range(24)), int(generator.integers(24))
        for time in range(14):
            unseen.discard(item)
            rows.append(f"{user},{item:02d},{time},Film {item:02d},{1980 + item},genre {item // 6}")
            ahead = [step % 24 for step in range(item + 1, item + 24) if step % 24 in unseen]
            item = ahead[0] if generator.random() < 0.9 else int(generator.choice(ahead))
    path = tmp_path_factory.mktemp("walks") / "walks.csv"
    path.write_text("\n".join(["user,item,timestamp,title,year,genres", *rows]) + "\n")
    return path


@pytest.fixture(scope="session")
def walking_data(walks):
    """Makes the DataModule of the walks."""

    def make(**changes):
        settings = {"max_length": 8, "batch_size": 16, "predict_users": 12}
        return InteractionDataModule(str(walks), **(settings | changes))

    return make


@pytest.fixture(scope="session")
def quiet_trainer(tmp_path_factory):
    """Makes a Trainer that says and writes nothing."""
    folder = tmp_path_factory.mktemp("runs")

    def make(**options):
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        defaults = {"accelerator": "cpu", "enable_checkpointing": False, "max_epochs": 1}
        return Trainer(**{"default_root_dir": folder, **defaults, **quiet, **options})

    return make
