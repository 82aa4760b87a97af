from functools import partial

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_plugins import litmodels
from lightning_plugins.callbacks import ExactResume
from lightning_plugins.cli import PluginCLI
from lightning_plugins.datamodules import DigitsDataModule, DirichletPartition
from lightning_plugins.litmodels.image import ImageClassifier
from lightning_plugins.optimizers import WarmupStableDecay
from lightning_plugins.recipes import load_recipe

GREY = {"network": "mlp", "in_channels": 1, "image_size": 8}
LOGGED = {f"{stage}/{name}" for stage in ("train", "val", "test") for name in ("loss", "accuracy")}


class RandomImages(LightningDataModule):
    """48 training and 20 evaluation images of 8x8 pixels, batches of 8."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(68, 1, 8, 8, generator=generator)
        labels = torch.randint(num_classes, (68,), generator=generator)
        self.train = TensorDataset(images[:48], labels[:48])
        self.evaluation = TensorDataset(images[48:], labels[48:])
        self.num_classes = num_classes

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=8)

    def val_dataloader(self):
        return DataLoader(self.evaluation, batch_size=8)

    test_dataloader = predict_dataloader = val_dataloader


def quiet_trainer(**options) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(
        **{"accelerator": "cpu", "enable_checkpointing": False, "max_epochs": 1, **quiet, **options}
    )


def seeded_classifier(**options) -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(**{**GREY, **options})


def test_both_folders_export_the_same_class():
    assert litmodels.ImageClassifier is ImageClassifier


@pytest.mark.parametrize(
    ("argument", "value"), [("label_smoothing", 1.0), ("num_classes", 0), ("dropout", -0.1)]
)
def test_errors_name_the_invalid_argument(argument, value):
    with pytest.raises(ValueError, match=f"{argument}={value}: expected"):
        ImageClassifier(**{**GREY, argument: value})


def test_the_documented_keys_are_logged_and_no_others(tmp_path):
    model, data = seeded_classifier(), RandomImages()
    trainer = quiet_trainer(logger=CSVLogger(tmp_path), log_every_n_steps=1)
    trainer.fit(model, datamodule=data)
    fitted = set(trainer.callback_metrics)
    tested = set(trainer.test(model, datamodule=data, verbose=False)[0])
    assert fitted | tested == LOGGED | {"train/loss_step", "train/loss_epoch"}


def test_only_the_training_loss_is_smoothed():
    model, data = seeded_classifier(label_smoothing=0.3), RandomImages()
    images, labels = data.train[:]
    logits = model(images).detach()
    trainer = quiet_trainer(max_epochs=1)
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.0)
    trainer.fit(model, datamodule=data)
    smoothed = cross_entropy(logits, labels, label_smoothing=0.3)
    torch.testing.assert_close(trainer.callback_metrics["train/loss"], smoothed)
    images, labels = data.evaluation[:]
    plain = cross_entropy(model(images), labels)
    torch.testing.assert_close(trainer.callback_metrics["val/loss"], plain.detach())
    torch.testing.assert_close(model.loss(images, labels), plain)


def test_accuracies_count_samples_in_unequal_batches():
    model, data = seeded_classifier(), RandomImages()
    images, labels = data.evaluation[:]
    logged = quiet_trainer().test(model, datamodule=data, verbose=False)[0]
    right = (model(images).argmax(dim=1) == labels).float().mean()
    assert logged["test/accuracy"] == pytest.approx(right.item())


def test_predictions_are_class_probabilities_with_or_without_labels():
    model, data = seeded_classifier(num_classes=7), RandomImages(num_classes=7)
    predicted = torch.cat(quiet_trainer().predict(model, datamodule=data))
    images, _ = data.evaluation[:]
    assert predicted.shape == (20, 7)
    torch.testing.assert_close(predicted, model.predict_step(images, 0))
    torch.testing.assert_close(predicted.sum(dim=1), torch.ones(20))


def test_data_with_another_number_of_classes_is_refused_before_training():
    with pytest.raises(ValueError, match=r"num_classes=10: RandomImages has 7 classes"):
        quiet_trainer().fit(seeded_classifier(), datamodule=RandomImages(num_classes=7))


def test_a_checkpoint_loads_with_weights_only(tmp_path):
    model = seeded_classifier(label_smoothing=0.1, num_classes=10)
    trainer = quiet_trainer(callbacks=[ModelCheckpoint(tmp_path)], enable_checkpointing=True)
    trainer.fit(model, datamodule=RandomImages())
    loaded = ImageClassifier.load_from_checkpoint(
        trainer.checkpoint_callback.best_model_path, weights_only=True
    )
    assert loaded.hparams == model.hparams
    assert "optimizer" not in loaded.hparams
    images = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(loaded.eval()(images), model.eval()(images))


class Rates(Callback):
    """The learning rate of every optimizer step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])


def run_cli(cli_cls: type[LightningCLI], arguments: list[str]) -> LightningCLI:
    options = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    return cli_cls(
        ImageClassifier,
        RandomImages,
        args=arguments,
        save_config_callback=None,
        trainer_defaults={"logger": False, "callbacks": [Rates()], **options},
    )


def schedule_arguments(folder, epochs: int) -> list[str]:
    config = {
        "trainer": {"max_epochs": epochs, "default_root_dir": str(folder)},
        "model": {
            **GREY,
            "optimizer": {
                "class_path": "torch.optim.SGD",
                "init_args": {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.001},
            },
            "lr_scheduler": {
                "class_path": "lightning_plugins.optimizers.WarmupStableDecay",
                "init_args": {"decay": 0.5},
            },
        },
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    return ["fit", f"--config={file}"]


@pytest.mark.parametrize("cli_cls", [LightningCLI, PluginCLI])
def test_a_schedule_from_yaml_gets_the_run_length_and_advances_every_step(cli_cls, tmp_path):
    cli = run_cli(cli_cls, schedule_arguments(tmp_path, epochs=2))
    (scheduler,) = cli.trainer.lr_scheduler_configs
    assert isinstance(scheduler.scheduler, WarmupStableDecay)
    assert scheduler.scheduler.total_steps == 12
    rates = cli.trainer.callbacks[0].rates
    assert rates == pytest.approx([0.05] * 7 + [0.05 * left / 6 for left in (5, 4, 3, 2, 1)])


@pytest.mark.parametrize("cli_cls", [LightningCLI, PluginCLI])
def test_resuming_from_the_command_line_restores_optimizer_and_schedule(cli_cls, tmp_path):
    arguments = schedule_arguments(tmp_path, epochs=4)
    checkpoint = tmp_path / "half.ckpt"

    class StopHalfway(cli_cls):
        def fit(self, model, **options):
            class Halfway(Callback):
                def on_train_epoch_end(self, trainer, pl_module):
                    if trainer.current_epoch == 1:
                        trainer.save_checkpoint(checkpoint)

            self.trainer.callbacks.append(Halfway())
            self.trainer.fit(model, **options)

    whole = run_cli(StopHalfway, arguments)
    resumed = run_cli(cli_cls, [*arguments, f"--ckpt_path={checkpoint}"])
    assert resumed.trainer.callbacks[0].rates == whole.trainer.callbacks[0].rates[12:]
    group = resumed.trainer.optimizers[0].param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.8, 0.001)
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("partition", [None, DirichletPartition(alpha=0.3, samples_per_agent=800)])
def test_a_run_on_augmented_digits_resumes_bit_for_bit_within_an_epoch(partition, tmp_path):
    pytest.importorskip("sklearn")

    class SaveWithinSecondEpoch(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 27:
                trainer.save_checkpoint(tmp_path / "within.ckpt")

    def run(callbacks, ckpt_path=None) -> dict[str, torch.Tensor]:
        schedule = partial(WarmupStableDecay, decay=0.5)
        model = seeded_classifier(dropout=0.2, lr_scheduler=schedule)
        data = DigitsDataModule(50, random_shift=1, label_noise=0.1, partition=partition)
        trainer = quiet_trainer(max_epochs=3, callbacks=[ExactResume(), *callbacks])
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
        return model.state_dict()

    whole = run([SaveWithinSecondEpoch()])
    torch.manual_seed(99)
    resumed = run([], ckpt_path=tmp_path / "within.ckpt")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_the_digits_recipe_parses_in_an_unmodified_lightning_cli(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(load_recipe("image/digits")))
    cli = LightningCLI(
        args=["--config", str(file), f"--trainer.default_root_dir={tmp_path}"],
        run=False,
        save_config_callback=None,
    )
    assert isinstance(cli.model, ImageClassifier)
    assert cli.model._optimizer(cli.model.parameters()).defaults["weight_decay"] == 0.0005


def test_resuming_merges_the_checkpoint_into_the_config_without_losing_the_recipe(
    tmp_path, monkeypatch
):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(load_recipe("image/digits")))
    arguments = ["fit", "--config", str(file)]
    monkeypatch.setattr(PluginCLI, "fit", lambda self, model, **options: None, raising=False)
    fresh = PluginCLI(args=arguments, save_config_callback=None)
    checkpoint = tmp_path / "any.ckpt"
    hparams = dict(fresh.model.hparams)
    assert hparams["_class_path"].endswith("ImageClassifier")
    torch.save({"hyper_parameters": hparams}, checkpoint)
    resumed = PluginCLI(args=[*arguments, f"--ckpt_path={checkpoint}"], save_config_callback=None)
    assert resumed.config.fit.model == fresh.config.fit.model
    assert resumed.config.fit.model.init_args.lr_scheduler.init_args.decay == 0.2


def test_the_default_optimizer_is_printed_as_plain_yaml(capsys):
    with pytest.raises(SystemExit):
        PluginCLI(args=["fit", "--model", "ImageClassifier", "--print_config"])
    optimizer = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.SGD"
    assert (optimizer["init_args"]["lr"], optimizer["init_args"]["momentum"]) == (0.1, 0.9)
