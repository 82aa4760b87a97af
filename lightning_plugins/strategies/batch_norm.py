"""Statistics of batch normalization for weights that were never trained: those of a merge."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_plugins._lightning_compat import metrics_untouched, step_arguments
from lightning_plugins.nn.random_state import RandomState


def normalizations(module: nn.Module) -> list[_BatchNorm]:
    """The batch normalizations of ``module`` that keep running statistics."""
    return [
        part
        for part in module.modules()
        if isinstance(part, _BatchNorm) and part.running_mean is not None
    ]


def running_statistics(module: nn.Module) -> list[Tensor]:
    """Running means and variances, in the order of the modules."""
    return [
        statistic
        for part in normalizations(module)
        for statistic in (part.running_mean, part.running_var)
        if statistic is not None
    ]


@torch.no_grad()
def recalibrate(module: LightningModule, batches: Sequence[tuple[Any, int]]) -> None:
    """Replace running statistics by their mean over ``batches`` at the present weights.

    ``training_step`` runs on each batch with everything but batch normalization in eval mode; it
    logs nothing, and metrics and random generators end as they were.

    Args:
        module: whose statistics are replaced, in place.
        batches: ``(batch, batch_idx)``; a ``training_step`` may do without the second.
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
        with _nothing_logged(module), metrics_untouched(module):
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
