"""The gradient of a step is the mean over all targets, accumulated or distributed."""

import multiprocessing
import os
import socket

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.strategies import DDPStrategy
from small_language_models import MOE, SMALL

from lightning_plugins.callbacks import LateSAM, PretrainingMonitor
from lightning_plugins.datamodules import ResumableDataLoader
from lightning_plugins.litmodels import CausalLM


def windows(count=16, without_targets=()):
    """The first half has about half of its targets masked, the last half has none masked."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 64, (count, 17), generator=generator)
    labels = tokens.clone()
    labels[: count // 2][torch.rand(count // 2, 17, generator=generator) < 0.5] = -100
    labels[list(without_targets)] = -100
    place = torch.arange(17)
    return [
        {"input_ids": t, "position_ids": place, "labels": label}
        for t, label in zip(tokens, labels, strict=True)
    ]


class GradientNorm(Callback):
    """The norm of the gradient that callbacks see before the step."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.norm = torch.stack([p.grad.norm() for p in pl_module.parameters()]).norm().item()


def update(
    data, batch_size, accumulate=1, architecture="llama", config=SMALL, callbacks=(), **options
):
    """The change of all weights by one step of plain gradient descent."""
    seed_everything(0, verbose=False)
    model = CausalLM(architecture, 64, 16, config, optimizer=lambda p: torch.optim.SGD(p, lr=1.0))
    model.configure_model()
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **{"devices": 1, **options},
    )
    rank, world_size = int(os.environ.get("LOCAL_RANK", 0)), trainer.world_size
    loader = ResumableDataLoader(data, batch_size, rank=rank, world_size=world_size)
    trainer.fit(model, loader)
    return torch.cat([p.detach().flatten() for p in model.parameters()]) - before


def difference(one, other):
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("size", [8, 4, 5])
def test_accumulated_batches_of_unequal_targets_are_one_batch(size):
    whole = update(windows(), 16)
    assert difference(update(windows(), size, -(-16 // size)), whole) < 1e-5


def test_a_short_window_at_the_end_of_the_epoch_is_the_mean_of_its_targets():
    data = windows()
    options = {"limit_train_batches": 3}
    assert difference(update(data, 4, 8, **options), update(data[:12], 12)) < 1e-5


def test_a_batch_without_targets_changes_nothing():
    data = windows(without_targets=(0, 1, 2, 3))
    assert difference(update(data, 4, 4), update(data[4:], 12)) < 1e-5


def test_callbacks_see_the_mean_gradient():
    one, other = GradientNorm(), GradientNorm()
    update(windows(), 4, 4, callbacks=[one])
    update(windows(), 16, callbacks=[other])
    assert one.norm == pytest.approx(other.norm, rel=1e-5)


def test_the_auxiliary_loss_has_the_weight_of_its_batch():
    config = {**MOE, "router_aux_loss_coef": 10.0}
    data = windows()[:4] * 4  # equal batches have equal auxiliary losses
    parts = update(data, 4, 4, "qwen2_moe", config)
    assert difference(parts, update(data[:4], 4, 1, "qwen2_moe", config)) < 1e-4


def test_sharpness_aware_steps_are_those_of_one_batch():
    whole = update(windows(), 16, callbacks=[LateSAM()])
    assert difference(update(windows(), 4, 4, callbacks=[LateSAM()]), whole) < 1e-4


def processes(body, count=2, limit=120):
    """Return what ``body()`` gives in each process of a launcher; none outlives the limit."""
    context = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def run(rank, pipe):
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1")
        os.environ["MASTER_PORT"] = port
        pipe.send(body().tolist())

    pipes = [context.Pipe() for _ in range(count)]
    started = [context.Process(target=run, args=(r, pipes[r][1])) for r in range(count)]
    for process in started:
        process.start()
    try:
        assert all(own.poll(limit) for own, _ in pipes), "the processes hang"
        return [torch.tensor(own.recv()) for own, _ in pipes]
    finally:
        for process in started:
            process.kill()


class Watched(Callback):
    """What is logged at the first step."""

    names = ("train/gradient_norm", "lr/0", "train/router_max_load")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values = torch.tensor([float(trainer.callback_metrics[name]) for name in self.names])


def dense(size, accumulate=1, **options):
    # Ranks read every second window; one of them gets all the masked ones.
    data = [window for pair in zip(windows()[:8], windows()[8:], strict=True) for window in pair]
    return update(data, size, accumulate, **options)


def routed(size, **options):
    watched, config = Watched(), {**MOE, "router_aux_loss_coef": 10.0}
    callbacks = [PretrainingMonitor(), watched]
    options |= {"callbacks": callbacks, "log_every_n_steps": 1}
    change = update(windows()[8:] * 2, size, 1, "qwen2_moe", config, **options)
    return torch.cat([change, watched.values])


def test_two_processes_with_unequal_documents_or_loads_are_one():
    whole, whole_routed = dense(16), routed(16)

    def both():
        def ranks():
            return {"devices": 2, "strategy": DDPStrategy(process_group_backend="gloo")}

        return torch.cat([dense(4, 2, **ranks()), routed(8, **ranks())])

    for found in processes(both):
        assert difference(found[: len(whole)], whole) < 1e-5
        found_routed = found[len(whole) :]
        assert difference(found_routed[:-3], whole_routed[:-3]) < 1e-5
        torch.testing.assert_close(found_routed[-3:], whole_routed[-3:])
