"""PretrainingMonitor: every key against a value computed by hand."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from small_language_models import GPT2, MIXTRAL, MOE, SMALL, made
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from lightning_plugins.callbacks import PretrainingMonitor, pretraining_monitor
from lightning_plugins.nn.transformer_flops import training_flops_per_token

TOKENS = torch.randint(256, (64, 17), generator=torch.Generator().manual_seed(0))


def fitted(folder, module, *callbacks, validates=False, **options):
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    usual = {"max_steps": 4, "log_every_n_steps": 2, **dict.fromkeys(quiet, False)}
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{**usual, **options},
    )
    trainer.fit(module, DataLoader(TOKENS, 8), DataLoader(TOKENS, 8) if validates else None)
    return trainer.callback_metrics


class Clock(Callback):
    """Time advances three seconds per batch."""

    def __init__(self, monkeypatch):
        self.now = 1.0
        monkeypatch.setattr(
            pretraining_monitor, "time", SimpleNamespace(monotonic=lambda: self.now)
        )

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.now += 3


@pytest.mark.parametrize("accumulate", [1, 2])
def test_throughput_and_mfu_are_those_of_the_clock(tmp_path, monkeypatch, accumulate):
    module = made()
    monitor = PretrainingMonitor(peak_flops=1e6)
    clock = Clock(monkeypatch)
    found = fitted(tmp_path, module, clock, monitor, accumulate_grad_batches=accumulate)
    assert found["throughput/tokens_per_second"] == pytest.approx(8 * 16 / 3)
    assert found["throughput/step_seconds"] == pytest.approx(3 * accumulate)
    flops = 8 * 16 / 3 * training_flops_per_token(module.network, 16)
    assert found["throughput/mfu"] == pytest.approx(flops / 1e6)
    assert 0.1 < found["throughput/memory_gib"] < 64
    assert found["lr/0"] == pytest.approx(1e-3)


def test_the_learning_rate_is_that_of_the_logged_step(tmp_path):
    def halved(optimizer):
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        return {"scheduler": schedule, "interval": "step"}

    module = made(optimizer=lambda p: torch.optim.SGD(p, lr=1.0))
    build = module.configure_optimizers
    module.configure_optimizers = lambda: {
        "optimizer": (optimizer := build()),
        "lr_scheduler": halved(optimizer),
    }
    found = fitted(tmp_path, module, PretrainingMonitor(), max_steps=4)
    assert found["lr/0"] == pytest.approx(0.5**3)


class Norm(Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradients = [p.grad.flatten() for p in pl_module.parameters()]
        self.seen = torch.cat(gradients).norm()


def test_the_gradient_norm_is_that_before_clipping(tmp_path):
    norm = Norm()
    found = fitted(tmp_path, made(), PretrainingMonitor(), norm, gradient_clip_val=1e-3)
    torch.testing.assert_close(found["train/gradient_norm"], norm.seen)


def test_the_loss_by_position_is_the_mean_of_its_tokens(tmp_path):
    module = made(optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    found = fitted(tmp_path, module, PretrainingMonitor(), validates=True, val_check_interval=4)
    with torch.no_grad():
        logits = module.eval()(TOKENS[:, :-1])
    losses = cross_entropy(logits.transpose(1, 2), TOKENS[:, 1:], reduction="none")
    for first, end in ((1, 2), (2, 4), (4, 8), (8, 16), (16, 17)):
        expected = losses[:, first - 1 : end - 1].mean()
        assert found[f"val/loss_at_position_{first}"] == pytest.approx(float(expected), rel=1e-5)
    assert "val/loss_at_position_32" not in found


def test_positions_are_those_in_the_document():
    module = made()
    labels = TOKENS[:2].clone()
    labels[:, 5] = -100
    places = torch.arange(17)
    batch = {
        "input_ids": TOKENS[:2],
        "position_ids": torch.where(places < 5, places, places - 5).expand(2, -1),
        "labels": labels,
    }
    losses, positions = module.token_losses(batch)
    assert positions[0].tolist() == [1, 2, 3, 4, *range(12)]
    assert losses.isnan().nonzero().tolist() == [[0, 4], [1, 4]]


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("llama", {**SMALL, "tie_word_embeddings": True}),
        ("gpt2", {**GPT2, "tie_word_embeddings": True}),
        ("qwen2_moe", {**MOE, "num_experts_per_tok": 4}),
        ("mixtral", {**MIXTRAL, "num_experts_per_tok": 4}),
    ],
)
def test_operations_are_those_that_torch_counts(architecture, config):
    network = made(architecture, config).network.eval()
    network.set_attn_implementation("eager")
    if hasattr(network, "set_experts_implementation"):
        network.set_experts_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        network(TOKENS[:2, :16])
    expected = 3 * counter.get_total_flops() / 32
    assert training_flops_per_token(network, 16) == pytest.approx(expected, rel=0.02)


def test_only_the_experts_of_a_token_are_counted():
    all_experts = made("mixtral", {**MIXTRAL, "num_experts_per_tok": 4}).network
    half = made("mixtral", MIXTRAL).network
    experts = sum(p.numel() for p in half.parameters() if p.dim() == 3)
    difference = training_flops_per_token(all_experts, 16) - training_flops_per_token(half, 16)
    assert difference == pytest.approx(6 * experts / 2)


def test_a_peak_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="peak_flops=0"):
        PretrainingMonitor(peak_flops=0)
