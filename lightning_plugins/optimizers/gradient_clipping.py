"""Gradient clipping for modules whose parameters may be sharded."""

from lightning.pytorch import LightningModule
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from lightning_plugins.nn.shards import clip_gradients_by_norm, clip_gradients_by_value


def clip_gradients(
    module: LightningModule, optimizer: Optimizer, limit: float | None, algorithm: str | None
) -> None:
    """Clip as the Trainer asks, also where parameters are distributed tensors.

    For ``LightningModule.configure_gradient_clipping``, whose own clipping raises where plain and
    distributed parameters occur together.

    Args:
        module: Its Trainer clips plain parameters as usual.
        optimizer: The gradients of its parameters are clipped.
        limit: ``gradient_clip_val`` of the Trainer; None or 0 clips nothing.
        algorithm: ``gradient_clip_algorithm`` of the Trainer: ``norm`` (default) or ``value``.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if not limit or not any(isinstance(parameter, DTensor) for parameter in parameters):
        module.clip_gradients(optimizer, limit, algorithm)
    elif algorithm == "value":
        clip_gradients_by_value(parameters, limit)
    else:
        clip_gradients_by_norm(parameters, limit)
