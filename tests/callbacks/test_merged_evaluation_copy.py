"""The module copy of MergedEvaluation does not change the module's lists."""

import copy
from collections import defaultdict, deque

import decentralized_trainers as harness
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from lightning_plugins.callbacks import MergedEvaluation
from lightning_plugins.callbacks.merged_evaluation import copied_module
from lightning_plugins.datamodules import ResumableDataLoader
from lightning_plugins.strategies import SimulatedDecentralizedStrategy

AGENTS, VALIDATION_BATCHES = 2, 3


class Gathering(LightningModule):
    """Collects outputs in lists, as Lightning 2's migration guide does, also in nested ones."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.network = nn.Linear(6, 3)
        self.validation_step_outputs = []
        self.by_name = defaultdict(list)
        self.batches_seen = set()
        self.last = deque(maxlen=100)
        self.counts, self.lengths_in_step = [], []

    def training_step(self, batch, batch_idx):
        return cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        loss = cross_entropy(self.network(batch[0]), batch[1])
        self.validation_step_outputs.append(loss)
        self.by_name["loss"].append(loss)
        self.batches_seen.add((batch_idx, float(loss)))
        self.last.append(loss)
        self.log("val/loss", loss, batch_size=1)
        self.log("val/gathered", float(len(self.validation_step_outputs)), batch_size=1)

    def on_validation_epoch_end(self):
        gathered = (self.validation_step_outputs, self.by_name["loss"], self.last)
        self.counts.append([*map(len, gathered), len(self.batches_seen)])
        self.log("val/mean", torch.stack(self.validation_step_outputs).mean())
        self.validation_step_outputs.clear()
        self.by_name.clear()
        self.batches_seen.clear()
        self.last.clear()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return ResumableDataLoader(harness.samples(), 4, rank=rank, world_size=world_size)

    def val_dataloader(self):
        return DataLoader(harness.samples(), batch_size=harness.SAMPLES // VALIDATION_BATCHES)


def fit(folder, callbacks):
    module = Gathering()
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        strategy=SimulatedDecentralizedStrategy(AGENTS),
        max_epochs=3,
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=callbacks,
    )
    trainer.fit(module)
    return module, {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gathering")
    return fit(folder, [MergedEvaluation("val/loss")]), fit(folder, [])


def test_measuring_does_not_change_the_lists_and_logs_of_a_module(runs):
    (measured, measured_metrics), (plain, plain_metrics) = runs
    of_each_validation = AGENTS * VALIDATION_BATCHES
    assert plain.counts[0][:3] == [of_each_validation] * 3
    assert measured.counts == plain.counts
    assert {name: measured_metrics[name] for name in plain_metrics} == plain_metrics


def test_every_validation_of_the_copy_starts_from_the_modules_lists(runs):
    (_, metrics), _ = runs
    # In the last validation both run on two agents, before and after the merge.
    assert metrics["val/gathered_merged"] == metrics["val/gathered_local_mean"]


def test_containers_are_copied_at_every_depth():
    module = Gathering()
    module.save_hyperparameters({"depth": 3})
    module.nested = {"losses": [[], deque([1], maxlen=2)]}
    module.alias = module.nested["losses"]
    module.itself = [module.nested]
    module.itself.append(module.itself)
    before = copy.deepcopy((module.nested, dict(module.hparams), module.last))
    copied = copied_module(module)
    assert type(copied.by_name) is defaultdict
    assert copied.last.maxlen == 100
    assert copied.alias is copied.nested["losses"]
    assert copied.itself[1] is copied.itself
    copied.nested["losses"][0].append(1)
    copied.nested["losses"][1].append(2)
    copied.hparams["depth"] = 4
    copied.last.append(1)
    assert (module.nested, dict(module.hparams), module.last) == before


def test_containers_of_the_copy_refer_to_the_parts_of_the_copy():
    module = Gathering()
    module.layers, module.steps = [module.network], {"loss": module.training_step}
    module.tied = (held,) = [module.network.weight]
    copied = copied_module(module)
    assert copied.layers == [copied.network] != module.layers
    assert copied.tied[0] is copied.network.weight is not held
    assert copied.steps["loss"].__self__ is copied
