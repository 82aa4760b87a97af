import sys
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_plugins.datamodules import ImageDataModule, ResumableDataLoader
from lightning_plugins.datamodules.image import Cutout
from lightning_plugins.datamodules.image_source import _ColumnReader
from lightning_plugins.litmodels import ImageClassifier

pytest.importorskip("sklearn")
pytest.importorskip("torchvision")
pytest.importorskip("datasets")
from PIL import Image
from sklearn.datasets import load_digits

NO_AUGMENTATION = {"crop_padding": 0, "flip": False}
GREY = {"in_channels": 1, "batch_size": 16}


@pytest.fixture(scope="module")
def pixels():
    """150 real digits as uint8 (150, 8, 8) and their class numbers."""
    images, labels = load_digits(return_X_y=True)
    return (images[:150].reshape(-1, 8, 8) * 15.9).astype("uint8"), labels[:150].tolist()


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory, pixels):
    """train/<digit>/*.png with 100 digits and test/<digit>/*.png with 50."""
    folder = tmp_path_factory.mktemp("digits")
    for i, (picture, label) in enumerate(zip(*pixels, strict=True)):
        of_class = folder / ("train" if i < 100 else "test") / str(label)
        of_class.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(of_class / f"{i:03}.png")
    return folder


@pytest.fixture
def saved_dataset(pixels):
    """A DatasetDict of the same digits with two columns, train and test."""
    import datasets

    features = datasets.Features(
        {"picture": datasets.Image(), "digit": datasets.ClassLabel(num_classes=10)}
    )

    def part(start, stop):
        pictures = [Image.fromarray(picture) for picture in pixels[0][start:stop]]
        columns = {"picture": pictures, "digit": pixels[1][start:stop]}
        return datasets.Dataset.from_dict(columns, features=features)

    return datasets.DatasetDict({"train": part(0, 100), "test": part(100, 150)})


def ready(folder, **options) -> ImageDataModule:
    data = ImageDataModule(data_dir=str(folder), **{**GREY, **options})
    data.prepare_data()
    data.setup()
    return data


def stacked(loader) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


def by_content(images: torch.Tensor, labels: list[int] | torch.Tensor) -> list[tuple]:
    """Grey values 0 to 255 with their class numbers, sorted."""
    values = (images * 255).round().int().flatten(1).tolist()
    return sorted(zip(values, map(int, labels), strict=True))


def test_a_folder_returns_the_written_images(digits_folder, pixels):
    data = ready(digits_folder, normalize=False, **NO_AUGMENTATION)
    images, labels = stacked(data.train_dataloader())
    assert (images.shape, images.dtype, labels.dtype) == (
        (100, 1, 8, 8),
        torch.float32,
        torch.int64,
    )
    written = torch.from_numpy(pixels[0][:100]) / 255
    assert by_content(images, labels) == by_content(written, pixels[1][:100])
    assert len(data.test_dataset) == 50
    assert data.num_classes == 10


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_saved_and_parquet_folders_match_image_files(
    form, saved_dataset, digits_folder, tmp_path, monkeypatch
):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    if form == "arrow":
        saved_dataset.save_to_disk(str(folder))
    else:
        folder.mkdir()
        for name, part in saved_dataset.items():
            part.to_parquet(str(folder / f"{name}-00000-of-00001.parquet"))
    options = {"normalize": False, **NO_AUGMENTATION}
    got, expected = (ready(place, **options) for place in (folder, digits_folder))
    for part in ("train_dataloader", "test_dataloader"):
        a, b = (stacked(getattr(data, part)()) for data in (got, expected))
        assert by_content(*a) == by_content(*b)
    assert got.num_classes == 10


def test_normalized_training_images_have_zero_mean_and_unit_variance(digits_folder):
    data = ready(digits_folder, **NO_AUGMENTATION)
    images, _ = stacked(data.train_dataloader())
    assert images.mean().item() == pytest.approx(0, abs=1e-5)
    assert images.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_grey_images_are_converted_to_colour_and_resized(digits_folder):
    data = ready(digits_folder, in_channels=3, image_size=16)
    images, _ = next(iter(data.train_dataloader()))
    assert images.shape == (16, 3, 16, 16)


def test_augmentation_depends_on_the_epoch_but_not_on_the_global_generator(
    digits_folder,
):
    def batches(epoch: int, global_seed: int, **options) -> torch.Tensor:
        loader = ready(digits_folder, cutout=3, **options).train_dataloader()
        assert isinstance(loader, ResumableDataLoader)
        loader.set_epoch(epoch)
        torch.manual_seed(global_seed)
        return stacked(loader)[0]

    assert torch.equal(batches(1, 0), batches(1, 99))
    assert not torch.equal(batches(1, 0), batches(2, 0))
    assert not torch.equal(batches(1, 0), batches(1, 0, seed=1))


def test_crops_come_from_the_padded_and_possibly_mirrored_image(digits_folder):
    plain = ready(digits_folder, normalize=False, **NO_AUGMENTATION).train_dataset
    moving = ready(digits_folder, normalize=False, crop_padding=1).train_dataset
    padded = torch.nn.functional.pad(plain[0][0], (1, 1, 1, 1))
    crops = [padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    expected = {tuple(c.flatten().tolist()) for crop in crops for c in (crop, crop.flip(-1))}
    torch.manual_seed(0)
    assert {tuple(moving[0][0].flatten().tolist()) for _ in range(300)} == expected


def test_evaluation_images_are_in_order_and_not_augmented(digits_folder):
    plain = ready(digits_folder, **NO_AUGMENTATION)
    data = ready(digits_folder, cutout=4)
    for part in ("test_dataloader", "predict_dataloader"):
        images, labels = stacked(getattr(data, part)())
        assert torch.equal(images, stacked(getattr(plain, part)())[0])
        assert torch.equal(labels, data.test_dataset.images.labels)


def test_cutout_zeroes_one_clipped_square_with_a_uniform_centre():
    torch.manual_seed(0)
    image = torch.ones(2, 6, 6)
    cut = torch.stack([Cutout(3, probability=1.0)(image) for _ in range(4000)])
    assert torch.equal(cut[:, 0], cut[:, 1])
    assert image.sum() == 72
    sizes = set((cut[:, 0] == 0).flatten(1).sum(dim=1).tolist())
    assert sizes == {4, 6, 9}  # in a corner, at an edge, inside
    centre_share = (cut[:, 0, 2, 2] == 0).float().mean()
    assert centre_share.item() == pytest.approx(9 / 36, abs=0.03)


def test_cutout_is_applied_with_its_probability():
    torch.manual_seed(0)
    cutout = Cutout(2, probability=0.25)
    image = torch.ones(1, 4, 4)
    applied = [bool((cutout(image) == 0).any()) for _ in range(2000)]
    assert sum(applied) / 2000 == pytest.approx(0.25, abs=0.04)


def test_held_out_images_are_fixed_stratified_and_not_used_for_training(digits_folder):
    options = {"validation_fraction": 0.3, "normalize": False, **NO_AUGMENTATION}
    data, other_seed = (ready(digits_folder, seed=seed, **options) for seed in (0, 5))
    train, val = stacked(data.train_dataloader()), stacked(data.val_dataloader())
    assert (len(train[0]), len(val[0])) == (70, 30)
    everything = stacked(
        ready(digits_folder, normalize=False, **NO_AUGMENTATION).train_dataloader()
    )
    assert sorted(by_content(*train) + by_content(*val)) == by_content(*everything)
    assert torch.equal(val[0], stacked(other_seed.val_dataloader())[0])
    expected = 0.3 * torch.bincount(everything[1], minlength=10)
    assert (torch.bincount(val[1], minlength=10) - expected).abs().max() <= 2


def test_the_test_part_is_never_used_for_validation(digits_folder):
    data = ready(digits_folder)
    assert data.val_dataset is None
    assert data.val_dataloader() == []


def test_a_classifier_trains_and_tests_on_a_folder_without_validation_data(digits_folder):
    data = ImageDataModule(data_dir=str(digits_folder), crop_padding=0, flip=False, **GREY)
    torch.manual_seed(0)
    sgd = partial(torch.optim.SGD, lr=0.02, momentum=0.9)
    model = ImageClassifier("mlp", in_channels=1, image_size=8, optimizer=sgd)
    trainer = Trainer(
        max_epochs=15,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    assert trainer.test(model, datamodule=data, verbose=False)[0]["test/accuracy"] > 0.85
    with pytest.raises(ValueError, match="num_classes=3: ImageDataModule has 10 classes"):
        trainer.test(ImageClassifier("mlp", 3, 1, 8), datamodule=data, verbose=False)


def test_known_datasets_are_normalized_by_the_published_values(monkeypatch, saved_dataset):
    import datasets

    named = saved_dataset.rename_columns({"picture": "img", "digit": "label"})
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name: asked.append(name) or named)
    data = ImageDataModule("cifar10", crop_padding=0, flip=False)
    data.setup()
    image, _ = data.train_dataset[0]
    assert asked == ["uoft-cs/cifar10"]
    assert image.shape == (3, 32, 32)
    assert data.mean == [0.4914, 0.4822, 0.4465]
    black = -torch.tensor(data.mean) / torch.tensor(data.std)
    torch.testing.assert_close(image.amin(dim=(1, 2)), black)


def test_a_hub_dataset_without_a_test_part_is_tested_on_its_validation_part(
    monkeypatch, saved_dataset
):
    import datasets

    parts = datasets.DatasetDict({"train": saved_dataset["train"], "valid": saved_dataset["test"]})
    monkeypatch.setattr(datasets, "load_dataset", lambda name: parts)
    data = ImageDataModule("someone/digits", **GREY)
    data.setup()
    assert len(data.test_dataset) == 50
    assert data.val_dataset is None


def test_ambiguous_or_missing_columns_raise_an_error(monkeypatch, saved_dataset):
    import datasets

    both = saved_dataset.map(lambda row: {"second": row["digit"]})
    both = both.cast_column("second", datasets.ClassLabel(num_classes=10))
    monkeypatch.setattr(datasets, "load_dataset", lambda name: both)
    with pytest.raises(ValueError, match="set label_column to one of digit, second"):
        ImageDataModule("someone/digits").setup()
    ImageDataModule("someone/digits", label_column="second").setup()
    with pytest.raises(ValueError, match=r"image_column='photo'.*picture, digit, second"):
        ImageDataModule("someone/digits", image_column="photo", label_column="second").setup()


def test_an_unreachable_dataset_raises_a_one_line_error(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)

    def unreachable(name):
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub\nand a second line")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(FileNotFoundError, match=r"uoft-cs/cifar100.*hf download.*data_dir") as info:
        ImageDataModule("cifar100").prepare_data()
    assert "\n" not in str(info.value)
    assert info.value.__context__ is None


def test_the_error_for_a_folder_without_images_gives_the_expected_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match="the folder does not exist"):
        ImageDataModule(data_dir=str(tmp_path / "none")).setup()
    with pytest.raises(FileNotFoundError, match=r"expected train/<class>/\*\.png"):
        ImageDataModule(data_dir=str(tmp_path)).setup()


def test_test_classes_that_differ_from_the_training_classes_are_refused(tmp_path):
    for place in ("train/cat", "train/dog", "test/dog"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / place / "0.png")
    with pytest.raises(ValueError, match=r"test/ and train/ .* differ in cat"):
        ImageDataModule(data_dir=str(tmp_path)).setup()


def test_images_that_are_not_square_require_a_size_and_a_missing_test_part_raises(tmp_path):
    for label in ("a", "b"):
        (tmp_path / "train" / label).mkdir(parents=True)
        Image.new("L", (8, 6)).save(tmp_path / "train" / label / "0.png")
    with pytest.raises(ValueError, match=r"image_size=None: .*8x6.*set image_size"):
        ImageDataModule(data_dir=str(tmp_path)).setup()
    data = ready(tmp_path, image_size=8)
    with pytest.raises(ValueError, match="no labelled test part"):
        data.test_dataloader()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("image_size", 0),
        ("in_channels", 2),
        ("batch_size", 0),
        ("crop_padding", -1),
        ("cutout", -1),
        ("cutout_probability", 1.1),
        ("validation_fraction", 1.0),
        ("seed", -1),
        ("num_workers", -1),
    ],
)
def test_errors_name_the_invalid_argument(argument, value):
    with pytest.raises(ValueError, match=f"{argument}={value}: expected"):
        ImageDataModule(**{argument: value})


@pytest.mark.parametrize("package", ["datasets", "torchvision"])
def test_a_missing_package_raises_an_error_with_the_install_command(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'requires {package}\S*: pip install "?{package}'):
        ImageDataModule().prepare_data()


def test_training_images_are_available_without_augmentation(digits_folder):
    data = ready(digits_folder, crop_padding=4, flip=True)
    plain = data.train_dataset.without_augmentation()
    images = [torch.stack([plain[index][0] for index in range(20)]) for _ in range(2)]
    assert torch.equal(*images)
    assert [plain[i][1] for i in range(20)] == [data.train_dataset[i][1] for i in range(20)]
    moved = torch.stack([data.train_dataset[index][0] for index in range(20)])
    assert not torch.equal(moved, images[0])


def test_a_table_cannot_name_an_image_outside_its_folder(tmp_path):
    import datasets

    for name in ("private.png", "data/own.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    paths = ["data/own.png", "private.png", "data/../private.png"]
    table = datasets.Dataset.from_dict(
        {"image": [{"path": str(tmp_path / path), "bytes": None} for path in paths]},
        features=datasets.Features({"image": datasets.Image()}),
    )
    read = _ColumnReader(table, "image", tmp_path / "data")
    assert read(0).size == (8, 8)
    for place in (1, 2):
        with pytest.raises(ValueError, match=r"private\.png' leads out of"):
            read(place)
