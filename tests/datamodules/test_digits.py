import hashlib
import sys

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import SequentialSampler

from lightning_plugins.datamodules import DigitsDataModule, DirichletPartition, ResumableDataLoader
from lightning_plugins.datamodules.digits import shift_randomly

pytest.importorskip("sklearn")


def ready(**options) -> DigitsDataModule:
    data = DigitsDataModule(**options)
    data.setup()
    return data


def all_indices(data: DigitsDataModule) -> list[np.ndarray]:
    return [data.train_indices, data.val_indices, data.test_indices]


def test_the_three_parts_are_fixed_disjoint_and_independent_of_the_seed():
    parts = all_indices(ready(seed=0))
    assert [len(part) for part in parts] == [1000, 297, 500]
    together = np.concatenate(parts)
    assert np.array_equal(np.sort(together), np.arange(1797))
    digest = hashlib.sha256(together.astype("<i8").tobytes()).hexdigest()
    assert digest == "a7147eb29507df645cb3c41bc2c4937f35f334c13cba7c07a3561e70972fdb12"
    assert np.array_equal(together, np.concatenate(all_indices(ready(seed=7, label_noise=0.5))))


def test_each_part_has_the_class_proportions_of_the_whole():
    data = ready()
    datasets = (data.train_dataset, data.val_dataset, data.test_dataset)
    whole = sum(torch.bincount(dataset.labels, minlength=10) for dataset in datasets)
    for dataset in datasets:
        expected = whole * len(dataset) / 1797
        assert (torch.bincount(dataset.labels, minlength=10) - expected).abs().max() <= 2


def test_batches_contain_images_in_the_unit_range_and_class_numbers():
    images, labels = next(iter(ready(batch_size=40).train_dataloader()))
    assert images.shape == (40, 1, 8, 8)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert 0 <= images.min() < images.max() <= 1
    assert ready().train_dataset.images.max() == 1


@pytest.mark.parametrize("share", [0.1, 0.333, 1.0])
def test_label_noise_replaces_exactly_its_fraction_of_the_training_labels(share):
    clean, noisy = ready(), ready(label_noise=share)
    wrong = (clean.train_dataset.labels != noisy.train_dataset.labels).sum()
    assert wrong == round(share * 1000)
    assert noisy.train_dataset.labels.min() >= 0
    assert noisy.train_dataset.labels.max() <= 9
    assert torch.equal(clean.val_dataset.labels, noisy.val_dataset.labels)
    assert torch.equal(clean.test_dataset.labels, noisy.test_dataset.labels)


def test_label_noise_is_uniform_over_the_other_labels_and_depends_on_the_seed():
    clean = ready().train_dataset.labels
    noisy = [ready(label_noise=1.0, seed=seed).train_dataset.labels for seed in (1, 1, 2)]
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.equal(noisy[0], noisy[2])
    offsets = torch.bincount((noisy[0] - clean) % 10, minlength=10)
    assert offsets[0] == 0
    assert (offsets[1:] - 1000 / 9).abs().max() < 45  # four standard deviations


def test_a_shift_moves_the_image_and_fills_with_black():
    torch.manual_seed(0)
    image = torch.arange(1.0, 10.0).reshape(1, 3, 3)
    seen = {tuple(shift_randomly(image, 1).flatten().tolist()) for _ in range(200)}
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    windows = {
        tuple(padded[:, top : top + 3, left : left + 3].flatten().tolist())
        for top in range(3)
        for left in range(3)
    }
    assert seen == windows


def test_shifted_batches_depend_on_seed_and_epoch_but_not_on_the_global_generator():
    def batches(seed: int, epoch: int, global_seed: int) -> torch.Tensor:
        loader = ready(random_shift=2, seed=seed).train_dataloader()
        loader.set_epoch(epoch)
        torch.manual_seed(global_seed)
        return torch.cat([images for images, _ in loader])

    assert torch.equal(batches(0, 1, 0), batches(0, 1, 99))
    assert not torch.equal(batches(0, 1, 0), batches(0, 2, 0))
    assert not torch.equal(batches(0, 1, 0), batches(1, 1, 0))


def test_evaluation_images_are_never_shifted():
    plain, moving = ready(), ready(random_shift=3)
    for loader in ("val_dataloader", "test_dataloader", "predict_dataloader"):
        a, b = (torch.cat([x for x, _ in getattr(d, loader)()]) for d in (plain, moving))
        assert torch.equal(a, b)


@pytest.mark.parametrize("partition", [None, DirichletPartition(0.1, 50)])
def test_evaluation_is_in_order_and_does_not_change_the_global_generator(partition):
    data = ready(partition=partition)
    before = torch.get_rng_state()
    labels = torch.cat([labels for _, labels in data.val_dataloader()])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(labels, data.val_dataset.labels)


def test_agents_evaluate_all_samples_while_ordinary_ranks_share_them():
    from torch.utils.data import DistributedSampler

    whole = ready(partition=DirichletPartition(0.1, 50)).val_dataloader().sampler
    # Lightning replaces every other sampler by one that splits over the ranks.
    assert isinstance(whole, DistributedSampler)
    assert len(whole) == 297
    assert isinstance(ready().val_dataloader().sampler, SequentialSampler)


def test_the_partition_uses_the_labels_without_noise():
    partition = DirichletPartition(1e-3, 100, "fixed")
    clean = ready(partition=partition).train_dataloader().indexed_dataset.indices
    noisy = ready(partition=partition, label_noise=0.5).train_dataloader().indexed_dataset.indices
    assert torch.equal(clean, noisy)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("batch_size", 0),
        ("seed", -1),
        ("label_noise", 1.5),
        ("random_shift", 8),
        ("random_shift", -1),
        ("num_workers", -1),
    ],
)
def test_errors_name_the_invalid_argument(argument, value):
    with pytest.raises(ValueError, match=f"{argument}={value}: expected"):
        DigitsDataModule(**{argument: value})


def test_a_missing_scikit_learn_raises_an_error_with_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install \"scikit-learn>=1\.4\.2\""):
        DigitsDataModule().setup()


def test_yaml_configures_a_partition():
    cli = LightningCLI(
        LightningModule,
        DigitsDataModule,
        run=False,
        save_config_callback=None,
        args={
            "data": {
                "partition": {
                    "class_path": "lightning_plugins.datamodules.DirichletPartition",
                    "init_args": {"alpha": 0.1, "samples_per_agent": 64, "mode": "fixed"},
                }
            }
        },
    )
    assert cli.datamodule.partition.samples_per_agent == 64
    cli.datamodule.setup()
    assert len(cli.datamodule.train_dataloader().indexed_dataset) == 64


def test_lightning_keeps_the_resumable_loader_and_sets_its_epoch():
    class Sums(LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.orders = []

        def training_step(self, batch, batch_idx):
            self.orders.append(batch[1].tolist())
            return self.weight * batch[0].sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    model = Sums()
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=DigitsDataModule(batch_size=500))
    assert isinstance(trainer.train_dataloader, ResumableDataLoader)
    assert len(model.orders) == 4
    assert model.orders[:2] != model.orders[2:]


def test_training_digits_are_available_without_shifts():
    data = DigitsDataModule(random_shift=3)
    data.setup()
    plain = data.train_dataset.without_augmentation()
    for index in range(20):
        assert torch.equal(plain[index][0], data.train_dataset.images[index])
        assert plain[index][1] == data.train_dataset[index][1]
