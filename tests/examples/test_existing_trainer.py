"""User scripts add the plugins with at most three changed lines, and run."""

import difflib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins.optimizers import BlockwiseAdamW

FOLDER = Path(__file__).parents[2] / "examples" / "existing_trainer"
CHANGED = {
    "digits_late_sam": "digits",
    "digits_decentralized": "digits",
    "fine_tune_blockwise": "fine_tune",
    "gan_late_sam": "gan",
}


def script(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def quiet(tmp_path):
    return {"default_root_dir": tmp_path, "logger": False, "enable_progress_bar": False}


@pytest.mark.parametrize("changed", CHANGED)
def test_at_most_three_lines_change(changed):
    before, after = (
        (FOLDER / f"{name}.py").read_text("utf-8").splitlines()
        for name in (CHANGED[changed], changed)
    )
    difference = [line for line in difflib.ndiff(before, after) if line[:2] in ("+ ", "- ")]
    added = [line for line in difference if line[0] == "+" and line[2:].strip()]
    removed = [line for line in difference if line[0] == "-"]
    assert 1 <= len(added) <= 3
    assert len(removed) <= len(added)


def test_every_script_is_listed():
    table = (FOLDER / "README.md").read_text("utf-8")
    scripts = sorted(path.stem for path in FOLDER.glob("*.py"))
    assert scripts == sorted({*CHANGED, *CHANGED.values()})
    assert all(f"`{name}.py`" in table for name in scripts)


def test_the_tutorial_learns_with_and_without_late_sam(quiet):
    plain = script("digits").main(2, **quiet)
    late_sam = script("digits_late_sam").main(2, **quiet)
    for trainer in (plain, late_sam):
        assert trainer.callback_metrics["val_acc"] > 0.85
    assert late_sam.callback_metrics["val_loss"] != plain.callback_metrics["val_loss"]


def test_agents_train_separately_and_merge(tmp_path):
    command = [sys.executable, FOLDER / "digits_decentralized.py", "2"]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "max_epochs=2` reached" in ended.stdout + ended.stderr


def test_an_encoder_is_fine_tuned_block_by_block(quiet):
    trainer = script("fine_tune_blockwise").main(1, limit_val_batches=1, **quiet)
    (optimizer,) = trainer.optimizers
    assert isinstance(optimizer, BlockwiseAdamW)
    assert {group["lr"] for group in optimizer.param_groups} >= {5e-5, 50e-5}


def test_a_gan_trains_and_late_sam_refuses_it_before_training(quiet):
    assert script("gan").main(1, **quiet).global_step > 0
    with pytest.raises(MisconfigurationException, match="LateSAM needs automatic optimization"):
        script("gan_late_sam").main(1, **quiet)
