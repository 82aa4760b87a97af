"""The subset of samples and the loss that SharpnessMonitor measures."""

import copy
import math
from dataclasses import dataclass

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler

from lightning_plugins.callbacks import SharpnessMonitor
from lightning_plugins.callbacks.batches import fixed_subset
from lightning_plugins.datamodules.resumable import ResumableDataLoader


def every_epoch(**arguments):
    return SharpnessMonitor(max_share=1, **arguments)


class Quadratic(LightningModule):
    """Mean of (w . x)^2: its Hessian is twice the mean of x x^T."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1, bias=False)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def loss(self, inputs):
        inputs = inputs["inputs"] if isinstance(inputs, dict) else inputs
        return self.layer(inputs).square().mean()

    def of_three(self, inputs, unused, weight):
        return weight.mean() * self.loss(inputs)


def largest(monitor, tmp_path, task, samples, **loaders):
    trainer = task.trainer(tmp_path, [monitor])
    trainer.fit(Quadratic(), DataLoader(samples, batch_size=7), **loaders)
    return monitor.values["lambda_max"][-1]


INPUTS = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
EXPECTED = torch.linalg.eigvalsh(2 * INPUTS.T @ INPUTS / 20)[-1].item()


@pytest.mark.parametrize(
    "samples", [INPUTS, [{"inputs": row} for row in INPUTS]], ids=["tensor", "dictionary"]
)
def test_a_loss_of_the_whole_batch_is_measured_for_batches_of_any_kind(task, tmp_path, samples):
    monitor = every_epoch(batch_size=6)
    assert largest(monitor, tmp_path, task, samples) == pytest.approx(EXPECTED, rel=1e-3)


@pytest.mark.parametrize(
    "loss", ["of_three", lambda module, inputs, *_: 3 * module.loss(inputs)], ids=["name", "other"]
)
def test_the_loss_can_be_a_method_or_a_function(task, tmp_path, loss):
    samples = [(row, 0, torch.tensor(3.0)) for row in INPUTS]

    class OfThree(Quadratic):
        def training_step(self, batch, batch_idx):
            return self.loss(batch[0])

    monitor = every_epoch(loss=loss)
    task.trainer(tmp_path, [monitor]).fit(OfThree(), DataLoader(samples, batch_size=5))
    assert monitor.values["lambda_max"][-1] == pytest.approx(3 * EXPECTED, rel=1e-3)


def test_the_validation_data_can_be_measured(task, tmp_path):
    class Validated(Quadratic):
        def validation_step(self, batch, batch_idx):
            pass

    monitor = every_epoch(split="val")
    trainer = task.trainer(tmp_path, [monitor])
    trainer.fit(Validated(), DataLoader(INPUTS), DataLoader(2 * INPUTS))
    assert monitor.values["lambda_max"][-1] == pytest.approx(4 * EXPECTED, rel=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResumableDataLoader(INPUTS, 5, shuffle=True),
        lambda: DataLoader(INPUTS, batch_sampler=BatchSampler(RandomSampler(INPUTS), 5, False)),
    ],
    ids=["resumable", "batch sampler"],
)
def test_every_loader_that_collates_samples_is_supported(task, tmp_path, make):
    monitor = every_epoch()
    task.trainer(tmp_path, [monitor]).fit(Quadratic(), make())
    assert monitor.values["lambda_max"][-1] == pytest.approx(EXPECTED, rel=1e-3)


class Augmenting(Dataset):
    """Adds noise from the global generator."""

    def __len__(self):
        return len(INPUTS)

    def __getitem__(self, index):
        return INPUTS[index] + torch.randn(3)


def test_augmentation_is_drawn_from_the_seed_and_changes_no_generator(task, tmp_path):
    found, states = [], []
    for run in range(2):
        torch.manual_seed(run)
        before = torch.get_rng_state()
        trainer = task.trainer(tmp_path)
        found.append(fixed_subset(trainer, DataLoader(Augmenting()), 10, 4, seed=5))
        states.append(torch.equal(before, torch.get_rng_state()))
    assert states == [True, True]
    assert [part.num_samples for part in found[0]] == [4, 4, 2]
    assert all(torch.equal(one.batch, two.batch) for one, two in zip(*found, strict=True))


class Offering(Augmenting):
    """Has a method that returns its samples without the added noise."""

    def without_augmentation(self):
        return INPUTS


def test_augmentation_is_omitted_if_the_data_set_supports_it(task, tmp_path):
    assert largest(every_epoch(), tmp_path, task, Offering()) == pytest.approx(EXPECTED, rel=1e-3)


@pytest.mark.parametrize(
    ("monitor", "loader", "error"),
    [
        ({"loss": "absent"}, DataLoader(INPUTS), "loss='absent'"),
        ({"loss": lambda module, x: module.layer(x)}, DataLoader(INPUTS, 4), "scalar loss"),
        ({"loss": lambda module, x: x.mean()}, DataLoader(INPUTS, 4), "cannot differentiate"),
        ({"top_k": 4}, DataLoader(INPUTS), "top_k=4: expected at most the 3"),
        ({"split": "val"}, DataLoader(INPUTS), "NoneType.*set split='train'"),
    ],
)
def test_an_unknown_loss_is_refused_before_the_first_step(task, tmp_path, monitor, loader, error):
    class NeverTrained(Quadratic):
        loss = None

        def training_step(self, batch, batch_idx):
            raise AssertionError("a step was taken")

    trainer = task.trainer(tmp_path, [every_epoch(**monitor)])
    with pytest.raises((ValueError, MisconfigurationException), match=error):
        trainer.fit(NeverTrained(), loader)


class Stream(IterableDataset):
    def __init__(self):
        self.reads = 0

    def __iter__(self):
        self.reads += 1
        return iter(INPUTS)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataLoader(Stream(), 4),
        lambda: DataLoader(INPUTS, batch_size=None, sampler=[[0, 1, 2], [3, 4, 5, 6]]),
    ],
    ids=["stream", "batch_size=None"],
)
def test_a_loader_that_cannot_be_indexed_is_measured_on_the_first_batches_of_the_run(
    task, tmp_path, make
):
    class Scales(Quadratic):
        loss, used = None, None

        def training_step(self, batch, batch_idx):
            self.used = (self.used or []) + [batch.clone()]
            batch.mul_(2)  # in place: the subset has the values from before
            return self.layer(batch / 2).square().mean()

    found = []
    for monitors in ([every_epoch(num_samples=7)], []):
        torch.manual_seed(0)
        module, loader = Scales(), make()
        task.trainer(tmp_path, monitors).fit(module, copy.deepcopy(loader))
        found.append((module, monitors))
    (module, (monitor,)), (plain, _) = found
    assert torch.equal(module.layer.weight, plain.layer.weight)  # bit for bit the plain run
    assert all(map(torch.equal, module.used, plain.used))
    inputs = torch.cat(module.used[:2])
    assert len(inputs) >= 7
    expected = torch.linalg.eigvalsh(2 * inputs.T @ inputs / len(inputs))[-1]
    assert monitor.values["lambda_max"] == pytest.approx([float(expected)] * 2, rel=1e-3)


class AnyBatch(Quadratic):
    """Computes its loss in training_step only, from batches that are not pairs."""

    loss = None

    def training_step(self, batch, batch_idx):
        self.log("train/loss", 1.0)
        self.passes = getattr(self, "passes", 0) + 1
        inputs = batch["x"]["inner"] if isinstance(batch, dict) else batch[0].values
        return {"loss": self.layer(inputs).square().mean()}


@dataclass
class Sample:
    values: torch.Tensor


def nested():
    return [{"x": {"inner": row}} for row in INPUTS]


def with_objects(samples):
    return [Sample(torch.stack([sample["x"]["inner"] for sample in samples]))]


@pytest.mark.parametrize("collate", [None, with_objects])
def test_the_loss_is_that_of_training_step_for_nested_batches_and_objects(task, tmp_path, collate):
    monitor, module = every_epoch(), AnyBatch()
    loader = DataLoader(nested(), 4, collate_fn=collate)
    task.trainer(tmp_path, [monitor]).fit(module, loader)
    assert monitor.values["lambda_max"] == pytest.approx([EXPECTED] * 2, rel=1e-4)
    assert module.passes == 2 * math.ceil(len(INPUTS) / 4)


def test_manual_optimization_without_a_loss_is_refused(task, tmp_path):
    class Manual(AnyBatch):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

    trainer = task.trainer(tmp_path, [every_epoch()])
    with pytest.raises(MisconfigurationException, match=r"manual optimization.*set loss="):
        trainer.fit(Manual(), DataLoader(nested(), 4))


def test_a_training_step_without_a_loss_is_refused(task, tmp_path):
    class NoLoss(AnyBatch):
        def training_step(self, batch, batch_idx):
            return None

    trainer = task.trainer(tmp_path, [every_epoch()])
    with pytest.raises(MisconfigurationException, match="NoLoss returned no loss"):
        trainer.fit(NoLoss(), DataLoader(nested(), 4))
