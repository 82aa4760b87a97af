"""AdversarialEvaluation compared with robust_accuracy, and its cost when it is inactive."""

import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from lightning_plugins.__main__ import main
from lightning_plugins.attacks.image import robust_accuracy
from lightning_plugins.callbacks import AdversarialEvaluation

EPS = 0.1


def samples(count=50):
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(count, 1, 4, 4, generator=generator)
    w = torch.randn(3, 16, generator=generator)
    return images, ((images.flatten(1) - 0.5) @ w.T).argmax(dim=1)


class Classifier(LightningModule):
    def __init__(self, mean=0.0, std=1.0):
        super().__init__()
        torch.manual_seed(7)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        images, labels = samples()
        w = torch.linalg.lstsq(
            torch.cat([images.flatten(1), torch.ones(50, 1)], dim=1),
            torch.nn.functional.one_hot(labels, 3).float(),
        ).solution
        self.network[1].weight.data = w[:16].T.contiguous() * 5
        self.network[1].bias.data = w[16] * 5
        self.mean, self.std = mean, std
        self.accuracy = MulticlassAccuracy(3, average="micro")
        self.forwards = 0

    def forward(self, images):
        self.forwards += 1
        return self.network(images * self.std + self.mean)

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean() * 0

    def evaluate(self, batch):
        self.accuracy(self(batch[0]), batch[1])
        self.log("accuracy", self.accuracy)

    def validation_step(self, batch, batch_idx):
        self.evaluate(batch)

    def test_step(self, batch, batch_idx):
        self.evaluate(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def loader(images=None, batch_size=16):
    ours, labels = samples()
    images = ours if images is None else images
    return DataLoader(TensorDataset(images, labels), batch_size=batch_size)


def trainer(tmp_path, *callbacks, **arguments):
    return Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **{"max_epochs": 1, **arguments},
    )


@pytest.fixture(autouse=True)
def _without_hints_on_workers():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        yield


def callback(**arguments):
    return AdversarialEvaluation(**{"eps": EPS, "steps": 5, "restarts": 3, **arguments})


@pytest.mark.scale(plugin="AdversarialEvaluation", strategy="one device")
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("inference_mode", [True, False])
def test_a_test_run_reports_the_robust_accuracy_of_all_samples(tmp_path, norm, inference_mode):
    module = Classifier()
    run = trainer(tmp_path, callback(norm=norm), inference_mode=inference_mode)
    (result,) = run.test(module, loader(), verbose=False)
    batches = zip(*(values.split(16) for values in samples()), strict=True)
    expected = robust_accuracy(module, list(batches), EPS, norm=norm, steps=5, restarts=3)
    assert result["robust/accuracy"] == pytest.approx(expected.robust)
    assert result["robust/natural_accuracy"] == pytest.approx(expected.natural)
    assert expected.robust < expected.natural
    # The module's own metric was updated with the unchanged samples only.
    assert result["accuracy"] == pytest.approx(expected.natural)


def test_normalized_inputs_are_attacked_in_pixel_units(tmp_path):
    (of_pixels,) = trainer(tmp_path, callback()).test(Classifier(), loader(), verbose=False)
    normalized = loader((samples()[0] - 0.5) / 0.25)
    run = trainer(tmp_path, callback(mean=[0.5], std=[0.25]))
    (result,) = run.test(Classifier(0.5, 0.25), normalized, verbose=False)
    assert result["robust/accuracy"] == pytest.approx(of_pixels["robust/accuracy"], abs=0.021)
    with pytest.raises(ValueError, match="if they are normalized, pass mean and std"):
        trainer(tmp_path, callback()).test(Classifier(0.5, 0.25), normalized, verbose=False)


class Sure(Classifier):
    """Probability ``e^-24`` of the wrong class, less than the smallest number of half precision."""

    def __init__(self):
        super().__init__()
        self.network[1] = nn.Linear(16, 2)
        weight = torch.tensor([[15.0], [-15.0]]).expand(2, 16)
        self.network[1].weight.data = weight.contiguous()
        self.network[1].bias.data = -weight.sum(1) / 2
        self.accuracy = MulticlassAccuracy(2, average="micro")
        self.called_in = set()

    def forward(self, images):
        logits = super().forward(images)
        self.called_in.add(logits.dtype)
        return logits


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
def test_a_confident_module_is_not_robust_in_any_precision(tmp_path, precision):
    labels = torch.arange(8) % 2
    images = (0.55 - 0.1 * labels).view(8, 1, 1, 1).expand(8, 1, 4, 4)
    data = DataLoader(TensorDataset(images, labels), batch_size=4)
    arguments = {"precision": precision}
    if precision == "16-mixed":  # which Lightning replaces by bf16-mixed on a CPU
        scaler = torch.amp.GradScaler("cpu")
        arguments = {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=scaler)]}
    module = Sure()
    (result,) = trainer(tmp_path, callback(), **arguments).test(module, data, verbose=False)
    assert result["robust/natural_accuracy"] == 1
    assert result["robust/accuracy"] == 0
    # The forward passes of the run keep its precision.
    assert (torch.float16 in module.called_in) == (precision == "16-mixed")


def test_half_precision_weights_are_refused_with_a_remedy(tmp_path):
    run = trainer(tmp_path, callback(), precision="16-true")
    with pytest.raises(MisconfigurationException, match=r"'16-true'.*precision='16-mixed' or '32"):
        run.test(Classifier(), loader(), verbose=False)


def test_num_samples_limits_the_attack_to_the_first_samples(tmp_path):
    module = Classifier()
    (result,) = trainer(tmp_path, callback(num_samples=20)).test(module, loader(), verbose=False)
    images, labels = (values[:20] for values in samples())
    batches = list(zip(images.split(16), labels.split(16), strict=True))
    expected = robust_accuracy(module, batches, EPS, steps=5, restarts=3)
    assert result["robust/accuracy"] == pytest.approx(expected.robust)
    assert result["robust/natural_accuracy"] == pytest.approx(expected.natural)


def test_validation_during_training_reports_it_and_does_not_change_training(tmp_path):
    def run(*callbacks):
        module = Classifier()
        fit = trainer(tmp_path, *callbacks)
        torch.manual_seed(0)
        fit.fit(module, loader(), loader())
        return fit.callback_metrics, torch.get_rng_state(), module.forwards

    metrics, random_state, _ = run(callback(stage="validate"))
    assert 0 < metrics["robust/accuracy"] < metrics["robust/natural_accuracy"]
    plain, plain_random_state, forwards = run()
    assert torch.equal(random_state, plain_random_state)
    assert "robust/accuracy" not in plain
    # With another stage it runs no forward pass.
    assert run(callback(stage="test"))[2] == forwards


def test_several_loaders_are_reported_separately(tmp_path):
    run = trainer(tmp_path, callback(num_samples=16))
    Several = type(
        "Several", (Classifier,), {"test_step": lambda self, batch, _, dataloader_idx: None}
    )
    results = run.test(Several(), [loader(), loader()], verbose=False)
    keys = {key for result in results for key in result}
    assert {"robust/accuracy/dataloader_idx_0", "robust/accuracy/dataloader_idx_1"} <= keys


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"stage": "fit"}, "stage='fit'"),
        ({"eps": -1.0}, r"eps=-1\.0"),
        ({"norm": "l0"}, "norm='l0'"),
        ({"steps": 0}, "steps=0"),
        ({"restarts": 0}, "restarts=0"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"seed": -1}, "seed=-1"),
        ({"std": [1.0]}, "expected both or neither"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        AdversarialEvaluation(**arguments)


def test_a_batch_or_module_that_cannot_be_attacked_raises_an_error(tmp_path):
    with pytest.raises(ValueError, match="input_key='image': the batch is a list of 2 elements"):
        trainer(tmp_path, callback(input_key="image")).test(Classifier(), loader(), verbose=False)

    class NoLogits(Classifier):
        def forward(self, images):
            return images

        def test_step(self, batch, batch_idx):
            pass

    with pytest.raises(ValueError, match="logits have shape"):
        trainer(tmp_path, callback()).test(NoLogits(), loader(), verbose=False)


def test_the_recipe_reports_robust_accuracy_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = ["--config", "late_at/digits", "--trainer.enable_progress_bar=false"]
    assert main(["fit", *config, "--trainer.max_epochs=2"]) == 0
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    assert main(["test", *config, f"--ckpt_path={checkpoint}"]) == 0
    assert "robust/accuracy" in capsys.readouterr().out
