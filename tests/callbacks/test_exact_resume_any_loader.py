"""ExactResume with unmodified data loaders: resumed weights equal the uninterrupted ones."""

import copy
import math
import multiprocessing
import os
import random
import signal
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lightning_plugins.callbacks import ExactResume

EPOCHS, BATCHES = 3, 5  # of 6 samples, the last one of 4
STEPS = range(1, EPOCHS * BATCHES)


class Augmented(Dataset):
    """Adds noise from its own generator and from the three global ones."""

    def __init__(self, samples):
        self.samples = samples
        self.generator = np.random.default_rng(4)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        features, label = self.samples[index]
        noise = self.generator.normal() + random.gauss(0, 1) + np.random.normal()
        return features + 0.1 * noise + 0.1 * torch.randn(features.shape), label


class BucketBatches(Sampler):
    """Batches of neighbours in an order that its own generator draws; rotated by its epoch."""

    def __init__(self, size, batch_size):
        self.size, self.batch_size = size, batch_size
        self.random, self.visits = random.Random(3), 0

    def __len__(self):
        return math.ceil(self.size / self.batch_size)

    def __iter__(self):
        self.visits += 1
        order = [(index + self.visits) % self.size for index in range(self.size)]
        starts = list(range(0, self.size, self.batch_size))
        self.random.shuffle(starts)
        for start in starts:
            yield order[start : start + self.batch_size]


class Curriculum(Sampler):
    """Shuffles its own list further in each epoch, decays weights, and depends on the epoch."""

    def __init__(self, size):
        self.order, self.weights, self.epoch = list(range(size)), torch.ones(size), 0
        self.skills = np.zeros(size)

    def __len__(self):
        return len(self.order)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        random.shuffle(self.order)
        self.weights = self.weights * torch.rand(len(self.order))
        self.skills[self.order[0]] += 1
        shift = int(100 * self.weights.sum() + self.skills @ self.skills) + 7 * self.epoch
        return iter([(index + shift) % len(self.order) for index in self.order])


class Stream(IterableDataset):
    """Goes on where it stopped, and has a state."""

    def __init__(self, samples):
        self.samples, self.position = samples, 0

    def __iter__(self):
        for _ in range(28):
            self.position += 5
            yield self.samples[self.position % 28]

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


class Noise:
    """A collate function with a generator and a counter of its own."""

    def __init__(self):
        self.generator, self.batches = np.random.default_rng(3), 0

    def __call__(self, rows):
        self.batches += 1
        noise = self.generator.normal() + 0.01 * self.batches
        features, labels = (torch.stack(part) for part in zip(*rows, strict=True))
        return features + noise, labels


class OwnState(DataLoader):
    """Saves its order and position, as torchdata's loader, but not the generators of its data."""

    loaded = None

    def __iter__(self):
        order, first = self.loaded or (list(super().__iter__()._sampler_iter), 0)
        self.loaded, self.order, self.position = None, order, first
        for batch in order[first:]:
            self.position += 1
            yield self.collate_fn([self.dataset[index] for index in batch])

    def state_dict(self):
        return {"order": self.order, "position": self.position}

    def load_state_dict(self, state):
        is_over = state["position"] == len(state["order"])
        self.loaded = None if is_over else (state["order"], state["position"])


class EveryOther:
    """A loader of the caller's own class that counts its epochs."""

    def __init__(self, loader):
        self.loader, self.epochs = loader, 0
        self.iterable = iter(int, 1)  # endless; only the loader itself may be iterated

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        self.epochs += 1
        return ((features * self.epochs, labels) for features, labels in self.loader)


def loaders(kind, samples):
    data = TensorDataset(*samples[:2])
    seeded = torch.Generator().manual_seed(5)
    makers = {
        "plain": lambda: DataLoader(data, 6),
        "shuffled": lambda: DataLoader(data, 6, shuffle=True),
        "own generator": lambda: DataLoader(Augmented(data), 6, shuffle=True, generator=seeded),
        "weighted": lambda: DataLoader(
            data, 6, sampler=WeightedRandomSampler(torch.arange(1.0, 29), 28)
        ),
        "sampler with a generator": lambda: DataLoader(
            data, 6, sampler=RandomSampler(data, replacement=True, generator=seeded)
        ),
        "batch sampler": lambda: DataLoader(data, batch_sampler=BucketBatches(28, 6)),
        "augmented": lambda: DataLoader(Augmented(data), 6, shuffle=True, collate_fn=Noise()),
        "workers": lambda: DataLoader(Augmented(data), 6, shuffle=True, num_workers=2),
        "combined": lambda: CombinedLoader(
            {
                "a": DataLoader(data, 10, shuffle=True),  # starts again after 3 of 5 batches
                "b": DataLoader(data, batch_sampler=BucketBatches(28, 6)),
            },
            "max_size_cycle",
        ),
        "sampler that changes": lambda: DataLoader(data, 6, sampler=Curriculum(28)),
        "parts with generators": lambda: DataLoader(
            ConcatDataset([Augmented(data), Augmented(data)]), 12, shuffle=True
        ),
        "stream": lambda: DataLoader(Stream(data), 6),
        "own class": lambda: EveryOther(DataLoader(data, 6, shuffle=True, generator=seeded)),
        "own state": lambda: OwnState(Augmented(data), 6, shuffle=True, generator=seeded),
        "persistent workers": lambda: DataLoader(
            data, 6, shuffle=True, num_workers=1, persistent_workers=True
        ),
    }
    return makers[kind]()


KINDS = (
    "plain", "shuffled", "own generator", "weighted", "sampler with a generator", "batch sampler",
    "augmented", "workers", "combined", "sampler that changes", "parts with generators", "stream",
    "own class", "own state", "persistent workers",
)  # fmt: skip


def module_of(task):
    class Draws(task.Classifier):
        def on_train_epoch_start(self):
            torch.rand(2)

        def training_step(self, batch, batch_idx):
            pairs = batch.values() if isinstance(batch, dict) else [batch]
            return sum(cross_entropy(self(features), labels) for features, labels in pairs)

    return Draws()


def fit(task, folder, kind, callbacks=(), ckpt_path=None, loader=None, module=None, **options):
    features, labels = (part[:28] for part in task.samples())
    torch.manual_seed(0 if ckpt_path is None else 99)
    random.seed(0 if ckpt_path is None else 99)
    np.random.seed(0 if ckpt_path is None else 99)
    module = module_of(task) if module is None else copy.deepcopy(module)
    loader = loaders(kind, (features, labels)) if loader is None else loader
    trainer = task.trainer(
        folder,
        [ExactResume(), *callbacks],
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        **{"max_epochs": EPOCHS, **options},
    )
    with warnings.catch_warnings():
        ignored = "many workers|not resumable|logging interval|the training loader is a EveryOther"
        warnings.filterwarnings("ignore", f".*({ignored}).*")
        trainer.fit(module, loader, ckpt_path=ckpt_path)
    return task.weights(module)


def every_step(folder):
    return ModelCheckpoint(
        folder, filename="{step}", every_n_train_steps=1, save_top_k=-1, save_weights_only=False
    )


def every_epoch(folder):
    return ModelCheckpoint(folder, filename="end-{epoch}", save_top_k=-1)


def assert_resumes_exactly(task, folder, kind, steps, epochs, **options):
    checkpoints = [every_step(folder / "all"), every_epoch(folder / "all")]
    whole = fit(task, folder, kind, checkpoints, **options)
    task.assert_same_bits(whole, fit(task, folder, kind, **options))
    moments = [f"step={step}" for step in steps] + [f"end-epoch={epoch}" for epoch in epochs]
    for moment in moments:
        resumed = fit(task, folder, kind, ckpt_path=folder / f"all/{moment}.ckpt", **options)
        different = [name for name in whole if not torch.equal(whole[name], resumed[name])]
        assert not different, f"{kind}, resumed from {moment}"


@pytest.mark.parametrize("kind", KINDS)
def test_any_map_style_loader_resumes_in_an_epoch_and_at_its_ends(task, tmp_path, kind):
    steps = [2, 7] if "workers" in kind else [3, BATCHES, 2 * BATCHES - 1]
    assert_resumes_exactly(task, tmp_path, kind, steps, [0])


def test_accumulated_steps_resume(task, tmp_path):
    steps = range(1, 3 * 3)  # windows of 2, 2 and 1 batches
    assert_resumes_exactly(task, tmp_path, "shuffled", [1, 3, 5], [1], accumulate_grad_batches=2)
    assert len(list((tmp_path / "all").glob("step=*.ckpt"))) >= len(steps)


def test_a_run_that_max_steps_ends_resumes_from_the_end_of_an_epoch(task, tmp_path):
    assert_resumes_exactly(task, tmp_path, "shuffled", [BATCHES], [0], max_steps=12)


def test_loaders_that_are_created_again_in_each_epoch_resume(task, tmp_path):
    samples = [part[:28] for part in task.samples()]

    class Reloads(LightningDataModule):
        def train_dataloader(self):
            return loaders("own generator", samples)

    class KeepsItsData(Reloads):
        def setup(self, stage):
            self.data = {"train": Augmented(TensorDataset(*samples))}
            self.generator = torch.Generator().manual_seed(5)

        def train_dataloader(self):
            return DataLoader(self.data["train"], 6, shuffle=True, generator=self.generator)

    for kind, steps in ((Reloads, [3, BATCHES]), (KeepsItsData, [7])):
        options = {"loader": kind(), "reload_dataloaders_every_n_epochs": 1}
        assert_resumes_exactly(task, tmp_path / kind.__name__, "", steps, [0], **options)


def test_a_module_that_initializes_weights_after_they_were_restored_is_named(task, tmp_path):
    class Initializes(type(module_of(task))):
        def on_train_start(self):
            nn.init.xavier_normal_(self.network[0].weight.data)

    fit(task, tmp_path, "plain", [every_step(tmp_path)], module=Initializes(), max_steps=2)
    resume = {"ckpt_path": tmp_path / "step=2.ckpt"}
    with pytest.warns(
        UserWarning, match="Initializes changes its weights after they were restored"
    ):
        fit(task, tmp_path, "plain", module=Initializes(), **resume)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*after they were restored")
        fit(task, tmp_path, "plain", module=module_of(task), **resume)


def test_a_step_that_fetches_its_own_batches_resumes(task, tmp_path):
    class Fetches(task.Classifier):
        def training_step(self, dataloader_iter):
            features, labels = next(dataloader_iter)[0]
            return cross_entropy(self(features), labels)

    assert_resumes_exactly(task, tmp_path, "shuffled", [2, 8], [0], module=Fetches())


def test_a_validation_that_was_due_at_the_checkpoint_is_run(task, tmp_path):
    class Validates(task.Classifier):
        def training_step(self, batch, batch_idx):
            return cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            torch.rand(3)

        def val_dataloader(self):
            return DataLoader(TensorDataset(*task.samples()), 10, shuffle=True)

    options = {"module": Validates(), "val_check_interval": 2}
    assert_resumes_exactly(task, tmp_path, "shuffled", [2, 3, 9], [0], **options)


def test_a_finished_run_goes_on_with_more_epochs(task, tmp_path):
    def run(epochs, **options):
        features, labels = (part[:28] for part in task.samples())
        torch.manual_seed(0)
        trainer = task.trainer(tmp_path, [ExactResume()], max_epochs=epochs)
        module = module_of(task)
        trainer.fit(module, loaders("sampler with a generator", (features, labels)), **options)
        return trainer, task.weights(module)

    run(2)[0].save_checkpoint(tmp_path / "end.ckpt")
    task.assert_same_bits(run(3)[1], run(3, ckpt_path=tmp_path / "end.ckpt")[1])


def test_a_second_resume_in_the_same_epoch_is_exact(task, tmp_path):
    whole = fit(task, tmp_path, "augmented", [every_step(tmp_path / "all")])
    first = tmp_path / "all/step=6.ckpt"
    again = every_step(tmp_path / "again")
    fit(task, tmp_path, "augmented", [again], ckpt_path=first, max_steps=8)
    resumed = fit(task, tmp_path, "augmented", ckpt_path=tmp_path / "again/step=8.ckpt")
    task.assert_same_bits(whole, resumed)


class Endless(IterableDataset):
    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        return iter(self.samples)


def pairs(task):
    return list(zip(*task.samples(), strict=True))


@pytest.mark.parametrize(
    ("loader_of", "message"),
    [
        (lambda data: DataLoader(Endless(data), 5), "iterable .* 15 samples are repeated"),
        (lambda data: DataLoader(data, 4), r"batch sizes \[5\] -> \[4\].* 15 samples are repeated"),
    ],
    ids=["iterable", "another batch size"],
)
def test_a_position_that_cannot_be_found_warns_with_the_number_of_samples(
    task, tmp_path, loader_of, message
):
    data = pairs(task)
    before = loader_of(data) if "iterable" in message else DataLoader(data, 5)
    fit(task, tmp_path, "", [every_step(tmp_path)], loader=before, max_steps=3)
    with pytest.warns(UserWarning, match=message):
        fit(task, tmp_path, "", ckpt_path=tmp_path / "step=3.ckpt", loader=loader_of(data))


def test_the_state_of_a_loader_is_preferred_to_skipping(task, tmp_path):
    class Stateful(DataLoader):
        fetched = 0

        def __iter__(self):
            for batch in super().__iter__():
                self.fetched += 1
                yield batch

        def state_dict(self):
            return {"fetched": self.fetched}

        def load_state_dict(self, state):
            self.loaded = state

    fit(task, tmp_path, "", [every_step(tmp_path)], loader=Stateful(pairs(task), 5), max_steps=3)
    loader = Stateful(pairs(task), 5)
    fit(task, tmp_path, "", ckpt_path=tmp_path / "step=3.ckpt", loader=loader, max_steps=4)
    assert loader.loaded == {"fetched": 3}
    assert loader.fetched == 1


def test_the_loops_are_released_after_a_run(task, tmp_path):
    _, trainer = task.train(tmp_path, [ExactResume()], max_epochs=1)
    loop = trainer.fit_loop
    assert not {"_load_combined_loader_states", "on_advance_start"} & vars(loop).keys()
    assert "on_run_start" not in vars(loop.epoch_loop)


class KillAfter(Callback):
    def __init__(self, step):
        self.step = step

    def on_before_zero_grad(self, trainer, *_):
        if trainer.global_step >= self.step:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", ["plain", "shuffled", "batch sampler", "workers", "combined"])
def test_a_run_that_is_killed_at_any_step_resumes_exactly(task, tmp_path, kind, accumulate):
    options = {"accumulate_grad_batches": accumulate}
    whole = fit(task, tmp_path, kind, **options)
    fork = multiprocessing.get_context("fork")
    for step in range(1, EPOCHS * -(-BATCHES // accumulate)):
        folder = tmp_path / str(step)
        killed = fork.Process(
            target=fit,
            args=(task, folder, kind, [every_step(folder), KillAfter(step)]),
            kwargs=options,
        )
        killed.start()
        killed.join(120)
        assert killed.exitcode == -signal.SIGKILL
        resumed = fit(task, folder, kind, ckpt_path=folder / f"step={step}.ckpt", **options)
        different = [name for name in whole if not torch.equal(whole[name], resumed[name])]
        assert not different, f"killed at step {step}"
