import builtins
from functools import partial

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins.callbacks import PhaseDetector
from lightning_plugins.callbacks.phase_detector import running_median
from lightning_plugins.datamodules import InductionMixtureDataModule
from lightning_plugins.litmodels import InductionMixture


def fit(folder, callbacks, module=None, ckpt_path=None, data=None, **arguments):
    defaults = {
        "max_steps": 60,
        "log_every_n_steps": 5,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    trainer = Trainer(**defaults | arguments, callbacks=callbacks)
    data = data or InductionMixtureDataModule(length=8, batch_size=64, steps_per_epoch=25)
    trainer.fit(module or InductionMixture(sigma_init=0.1), datamodule=data, ckpt_path=ckpt_path)
    return trainer


class Scripted(LightningModule):
    """Logs known curves: the lazy loss falls from step 10, and the progress starts at step 30."""

    def __init__(self, reference=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.reference = reference

    def training_step(self, batch, batch_idx):
        step = self.trainer.global_step + 1
        self.log("train/four_gram_loss", 1.0 if step < 10 else 0.01)
        self.log("train/match", max(0.0, (step - 30) / 20))
        self.log("train/induction_loss", 1.0)
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def phase_reference(self, steps):
        return self.reference and self.reference(steps)


@pytest.mark.scale(plugin="PhaseDetector", strategy="one device")
def test_it_finds_the_constructed_phases(tmp_path):
    detector = PhaseDetector(smoothing=1)
    trainer = fit(tmp_path, [detector], Scripted(), logger=CSVLogger(tmp_path))
    assert detector.steps == [1, *range(5, 61, 5)]
    assert 5 < detector.phases.partial_learning_end <= 10
    assert detector.phases.plateau_end == pytest.approx(32)
    assert detector.phases.emergence == pytest.approx(40)
    assert detector.phases.convergence == pytest.approx(48)
    assert detector.predicted is None
    assert trainer.callback_metrics["phases/emergence"] == pytest.approx(40)
    assert "phases/emergence" in next(tmp_path.rglob("metrics.csv")).read_text()
    assert list(tmp_path.rglob("phases.png"))


def test_a_reference_gives_predicted_phases(tmp_path):
    detector = PhaseDetector()

    def reference(steps):
        return {
            "train/four_gram_loss": [1.0 / step for step in steps],
            "train/match": [step / 60 for step in steps],
        }

    trainer = fit(tmp_path, [detector], Scripted(reference))
    assert detector.predicted.emergence == pytest.approx(30)
    assert trainer.callback_metrics["phases_predicted/emergence"] == pytest.approx(30)


def test_a_missing_reference_warns_and_keeps_the_phases(tmp_path):
    data = InductionMixtureDataModule(length=8, w_star=0.9, batch_size=64)
    detector = PhaseDetector()
    with pytest.warns(UserWarning, match=r"phases are missing: w_star=0\.9.*0\.8409"):
        fit(tmp_path, [detector], data=data)
    assert detector.predicted is None
    assert detector.phases is not None


def test_a_metric_that_is_not_logged_is_refused_with_the_logged_names(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"not log train/other.*train/match"):
        fit(tmp_path, [PhaseDetector(lazy="train/other")])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="smoothing=4"):
        PhaseDetector(smoothing=4)
    with pytest.raises(ValueError, match="partial_share=1"):
        PhaseDetector(partial_share=1)


def test_a_resumed_run_has_the_complete_curves(tmp_path):
    def run(max_steps, ckpt_path=None):
        detector = PhaseDetector()
        keep = ModelCheckpoint(tmp_path / str(max_steps), save_last=True, every_n_train_steps=1)
        fit(
            tmp_path,
            [detector, keep],
            ckpt_path=ckpt_path,
            enable_checkpointing=True,
            max_steps=max_steps,
        )
        return detector

    whole = run(60)
    run(33)
    resumed = run(60, tmp_path / "33" / "last.ckpt")
    assert len(resumed.steps) == 13
    assert resumed.steps == whole.steps
    assert resumed.values == whole.values
    assert repr(resumed.phases) == repr(whole.phases)  # some are NaN


def test_a_new_run_starts_new_curves(tmp_path):
    detector = PhaseDetector()
    for _ in range(2):
        fit(tmp_path, [detector])
        assert detector.steps == [1, *range(5, 61, 5)]


def test_without_matplotlib_the_phases_are_kept(tmp_path, monkeypatch):
    original = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    detector = PhaseDetector()
    with pytest.warns(UserWarning, match=r'pip install "matplotlib'):
        fit(tmp_path, [detector])
    assert detector.phases is not None


def test_the_running_median_is_symmetric_and_keeps_the_ends():
    assert running_median([5, 1, 9, 2, 3], 3) == [5, 5, 2, 3, 3]
    assert running_median([1, 2], 5) == [1, 2]


def test_it_does_not_change_the_run(tmp_path):
    ends = []
    for callbacks in ([], [PhaseDetector()]):
        module = InductionMixture(optimizer=partial(torch.optim.SGD, lr=0.5))
        fit(tmp_path, callbacks, module)
        ends.append([p.detach().clone() for p in module.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))
