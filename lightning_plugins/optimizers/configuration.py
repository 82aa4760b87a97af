"""Optimizers and schedules for ``LightningModule.configure_optimizers``, built from factories."""

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler

from lightning_plugins._lightning_compat.loops import optimizer_steps

OptimizerFactory = Callable[[Iterable], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler | ReduceLROnPlateau]


def configure_optimizers(
    module: LightningModule,
    optimizer: OptimizerFactory,
    lr_scheduler: SchedulerFactory | None = None,
) -> Optimizer | dict[str, Any]:
    """Build a module's optimizer and schedule from two factories.

    The optimizer receives ``(name, parameter)`` pairs, so that blockwise methods can identify the
    parameters. A schedule with an argument ``total_steps`` receives the length of the run in
    optimizer steps, unless the YAML sets it. Schedules that count optimizer steps advance every
    step; all others advance every epoch, as in Lightning's own command line.

    Args:
        module: The module, attached to a Trainer if the schedule requires the length of the run.
        optimizer: Builds the optimizer from named parameters.
        lr_scheduler: Builds the schedule from the optimizer.

    Raises:
        ValueError: The schedule requires ``total_steps``, but the run has no known end.
    """
    built = build_optimizer(optimizer, module)
    if lr_scheduler is None:
        return built
    if _takes_total_steps(lr_scheduler):
        scheduler = lr_scheduler(built, total_steps=_total_steps(module))  # type: ignore[call-arg]
    else:
        scheduler = lr_scheduler(built)
    return {"optimizer": built, "lr_scheduler": scheduler_config(scheduler)}


def build_optimizer(optimizer: OptimizerFactory, module: nn.Module) -> Optimizer:
    """Call ``optimizer`` with the named parameters of ``module``, or with bare ones.

    PyTorch's own optimizers accept ``(name, parameter)`` pairs. Some third-party optimizers iterate
    over tensors before they call ``Optimizer.__init__`` and raise a ``TypeError`` or
    ``AttributeError`` that mentions a tuple; they get bare parameters.
    """
    try:
        return optimizer(module.named_parameters())
    except (TypeError, AttributeError) as error:
        if "tuple" not in str(error):
            raise
        return optimizer(module.parameters())


def scheduler_config(scheduler: LRScheduler | ReduceLROnPlateau) -> dict[str, Any]:
    """Return Lightning's ``lr_scheduler`` dictionary with the interval of the schedule."""
    config: dict[str, Any] = {"scheduler": scheduler}
    if isinstance(scheduler, ReduceLROnPlateau):
        config["monitor"] = scheduler.monitor
    elif isinstance(scheduler, CyclicLR) or hasattr(scheduler, "total_steps"):
        config["interval"] = "step"
    return config


def _takes_total_steps(factory: SchedulerFactory) -> bool:
    """Return whether ``factory`` has an argument ``total_steps`` without a value."""
    target: Any = factory
    while isinstance(target, functools.partial):
        if target.keywords.get("total_steps") is not None:
            return False
        classes = [a for a in target.args if isinstance(a, type) and issubclass(a, LRScheduler)]
        target = classes[0] if classes else target.func
    return "total_steps" in inspect.signature(target).parameters


def _total_steps(module: LightningModule) -> int:
    total = optimizer_steps(module.trainer)
    if math.isinf(total):
        raise ValueError(
            "total_steps of the learning-rate schedule is unknown because the run has no known "
            "end: set trainer.max_steps, or trainer.max_epochs if the training loader has a "
            "length, or set total_steps of the schedule"
        )
    return int(total)
