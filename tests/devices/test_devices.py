"""Properties that must hold on every kind of device. Without a GPU the CUDA half is skipped.

`make test-gpu` runs the CUDA half alone, and says what it skips.
"""

import subprocess
import sys
from pathlib import Path

import program_two_devices as program
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from small_transformers import transformer

from lightning_plugins.callbacks import LateSAM
from lightning_plugins.optimizers import AdamMini, AdamWPower, BlockwiseAdamW, BlockwiseLion


def cuda(devices=1):
    missing = torch.cuda.device_count() < devices
    reason = f"needs {devices} CUDA device(s), this machine has {torch.cuda.device_count()}"
    return [pytest.mark.cuda, pytest.mark.skipif(missing, reason=reason)]


DEVICES = ["cpu", pytest.param("cuda", marks=cuda())]
TWO_DEVICES = [
    pytest.param("cpu", marks=pytest.mark.slow),
    pytest.param("cuda", marks=cuda(2)),
]
PRECISIONS = [
    pytest.param("cpu", "bf16-mixed"),
    pytest.param("cuda", "16-mixed", marks=cuda()),
    pytest.param("cuda", "bf16-mixed", marks=cuda()),
]


def fit(folder, accelerator, callbacks=(), **options):
    seed_everything(1)
    module = program.Classifier()
    trainer = Trainer(
        default_root_dir=folder,
        accelerator=accelerator,
        devices=1,
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )
    trainer.fit(module)
    return torch.cat([p.detach().cpu().flatten() for p in module.parameters()])


@pytest.mark.scale(plugin="LateSAM", strategy="one device")
@pytest.mark.scale(plugin="AdamWPower", strategy="one device")
@pytest.mark.parametrize("accelerator", DEVICES)
def test_two_runs_with_late_sam_are_equal_bit_for_bit(tmp_path, accelerator):
    once, again = (
        fit(tmp_path, accelerator, [LateSAM(start=0.5)], deterministic=True) for _ in range(2)
    )
    assert torch.equal(once, again)
    assert not torch.equal(once, fit(tmp_path, accelerator, deterministic=True))


@pytest.mark.parametrize("accelerator", DEVICES)
def test_late_sam_before_its_start_changes_no_bit(tmp_path, accelerator):
    # With limited batches, a start after the end is a warning, not an error.
    options = {"deterministic": True, "limit_train_batches": 8}
    idle = [LateSAM(start=10_000, unit="step")]
    with pytest.warns(UserWarning, match="never"):
        beside = fit(tmp_path, accelerator, idle, **options)
    assert torch.equal(beside, fit(tmp_path, accelerator, **options))


@pytest.mark.scale(plugin="LateSAM", strategy="one device")
@pytest.mark.parametrize(("accelerator", "precision"), PRECISIONS)
def test_mixed_precision_training_stays_close_to_single(tmp_path, accelerator, precision):
    sam = [LateSAM(start=0.5)]
    mixed = fit(tmp_path, accelerator, sam, precision=precision)
    single = fit(tmp_path, accelerator, [LateSAM(start=0.5)])
    assert torch.isfinite(mixed).all()
    assert (mixed - single).norm() < 0.1 * single.norm()


@pytest.mark.scale(plugin="{optimizer.__name__}", strategy="one device")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimizer", [AdamWPower, BlockwiseAdamW])
@pytest.mark.parametrize("how", [{"foreach": True}, {"fused": True}])
def test_every_implementation_takes_the_step_of_the_plain_loop(device, optimizer, how):
    plain, other = (
        trained_on(device, optimizer, **settings) for settings in ({"foreach": False}, how)
    )
    torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.scale(plugin="{optimizer.__name__}", strategy="one device")
@pytest.mark.parametrize("optimizer", [AdamWPower, BlockwiseAdamW, BlockwiseLion, AdamMini])
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=cuda())])
def test_a_device_takes_the_steps_of_the_cpu(device, optimizer):
    torch.testing.assert_close(
        trained_on(device, optimizer), trained_on("cpu", optimizer), rtol=1e-3, atol=1e-4
    )


@pytest.mark.scale(plugin="LateSAM", strategy="ddp")
@pytest.mark.scale(plugin="AdamWPower", strategy="ddp")
@pytest.mark.scale(plugin="DecentralizedStrategy", strategy="decentralized")
@pytest.mark.scale(plugin="AdamWPower", strategy="decentralized")
@pytest.mark.parametrize("accelerator", TWO_DEVICES)
def test_two_devices_gossip_merge_and_share_sam(tmp_path, accelerator):
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *(str(Path(program.__file__)), accelerator, str(tmp_path)),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for what, weights in first.items():
        assert torch.isfinite(weights).all()
        assert torch.equal(weights, second[what]), what


def trained_on(device, optimizer, **settings):
    torch.manual_seed(5)
    model = transformer("llama").to(device)
    stepping = optimizer(model.named_parameters(), lr=1e-3, **settings)
    for step in range(5):
        tokens = torch.randint(24, (4, 12), generator=torch.Generator().manual_seed(step))
        stepping.zero_grad()
        model(tokens.to(device), labels=tokens.to(device)).loss.backward()
        stepping.step()
    return torch.cat([p.detach().cpu().flatten() for p in model.parameters()])
