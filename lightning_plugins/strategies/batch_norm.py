"""Re-estimation of batch normalization statistics, for weights that were merged."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_plugins._lightning_compat.closures import preserved_metrics, step_arguments
from lightning_plugins.nn.random_state import RandomState


def normalizations(module: nn.Module) -> list[_BatchNorm]:
    """Return the batch normalization layers of ``module`` that track running statistics."""
    return [
        part
        for part in module.modules()
        if isinstance(part, _BatchNorm) and part.running_mean is not None
    ]


def running_statistics(module: nn.Module) -> list[Tensor]:
    """Return the running means and variances, in module order."""
    return [
        statistic
        for part in normalizations(module)
        for statistic in (part.running_mean, part.running_var)
        if statistic is not None
    ]


@torch.no_grad()
def recalibrate(module: LightningModule, batches: Sequence[tuple[Any, int]]) -> None:
    """Replace running statistics by their mean over ``batches`` at the current weights.

    Runs ``training_step`` on each batch with every layer except batch normalization in eval mode.
    Logging is disabled, and the states of metrics and random generators are restored afterwards.

    Args:
        module: The module whose statistics are replaced in place.
        batches: Pairs ``(batch, batch_idx)``; ``batch_idx`` is optional in ``training_step``.
    """
    parts = normalizations(module)
    if not parts or not batches:
        return
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    momenta = [part.momentum for part in parts]
    counts = [part.num_batches_tracked for part in parts]
    random_state = RandomState.capture()
    module.eval()
    try:
        for part in parts:
            part.num_batches_tracked = torch.zeros((), dtype=torch.long, device=module.device)
            part.reset_running_stats()
            part.momentum = None  # the mean over all batches
            part.train()
        with _nothing_logged(module), preserved_metrics(module):
            for batch, batch_idx in batches:
                module.training_step(*step_arguments(module.training_step, batch, batch_idx))
    finally:
        random_state.restore()
        for part, momentum, count in zip(parts, momenta, counts, strict=True):
            part.momentum, part.num_batches_tracked = momentum, count
        for submodule, was_training in modes:
            submodule.training = was_training


@contextmanager
def _nothing_logged(module: LightningModule) -> Iterator[None]:
    module.__dict__["log"] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        del module.__dict__["log"]
