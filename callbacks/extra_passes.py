"""Forward passes that a callback adds to a run without changing the run, and their loss."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from io import IOBase
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_plugins._lightning_compat.closures import step_arguments
from lightning_plugins._lightning_compat.loops import callbacks_of
from lightning_plugins.nn.module_state import evaluation_mode, state_untouched
from lightning_plugins.nn.random_state import seeded

_ABSENT = object()
_LONGEST = 100


@contextmanager
def log_silenced(module: LightningModule) -> Iterator[None]:
    """Turn ``self.log`` and ``self.log_dict`` of ``module`` into no-ops inside the block."""
    before = module.__dict__.get("log", _ABSENT)
    module.__dict__["log"] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        if before is _ABSENT:
            del module.__dict__["log"]
        else:
            module.__dict__["log"] = before


@contextmanager
def callbacks_silenced(trainer: Trainer, hook: str) -> Iterator[None]:
    """Do not call ``hook`` of any callback of the run inside the block.

    Callbacks that count, time or log would otherwise see the passes of a step that Lightning does
    not make.
    """
    callbacks = [callback for callback in callbacks_of(trainer) if hook not in vars(callback)]
    for callback in callbacks:
        callback.__dict__[hook] = lambda *arguments: None
    try:
        yield
    finally:
        for callback in callbacks:
            del callback.__dict__[hook]


@contextmanager
def no_side_effects(module: LightningModule, leave: Iterable[Tensor] = ()) -> Iterator[None]:
    """Restore the state of ``module`` after the block, and log nothing inside it.

    Also restores the options of the optimizers, such as a learning rate that ``training_step``
    sets, and the learning-rate schedules.

    Args:
        module: The module that the block runs; see :func:`state_untouched` for what is restored.
        leave: Tensors that the caller restores itself, or that may change.
    """
    with state_untouched(module, leave, also=_schedules(module)), log_silenced(module):
        yield


def warn_of_iterators(module: LightningModule, repeats: str) -> None:
    """Warn if a module holds iterators, which :func:`no_side_effects` cannot rewind.

    Args:
        module: The module, whose attributes and their lists and dicts are searched.
        repeats: What the caller does with the module, for the message.
    """
    for prefix, owner in module.named_modules():
        for name, value in vars(owner).items():
            if not _holds_iterator(value):
                continue
            place = f"{prefix}.{name}".lstrip(".")
            rank_zero_warn(
                f"{repeats}, but cannot rewind the iterator in {place}: if training_step advances "
                "it, the next pass gets other items; pass several loaders to the Trainer as a dict "
                "instead"
            )
            return


def _holds_iterator(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        values = list(value.values() if isinstance(value, dict) else value)
        return len(values) <= _LONGEST and any(isinstance(x, Iterator) for x in values)
    return isinstance(value, Iterator) and not isinstance(value, IOBase)


def _schedules(module: LightningModule) -> Iterator[Any]:
    """Yield the groups of the optimizers, and the attributes of the learning-rate schedules."""
    trainer: Any = module._trainer
    if trainer is None:
        return
    for optimizer in trainer.optimizers:
        yield optimizer.param_groups
    schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
    while schedules:
        schedule = schedules.pop()
        yield vars(schedule)
        schedules += getattr(schedule, "_schedulers", [])


@contextmanager
def under_attack(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Run forward passes of an attack: no side effects, evaluation mode, the run's precision.

    The modes and the state of all submodules are restored afterwards.
    """
    with (
        trainer.precision_plugin.forward_context(),
        evaluation_mode(module),
        no_side_effects(module),
    ):
        yield


@contextmanager
def while_measuring(module: LightningModule, seed: int) -> Iterator[None]:
    """Run forward passes of a measurement: no side effects, evaluation mode, seeded, uncompiled.

    The states of the random generators are restored afterwards. Compiled code is not called,
    because it has no second derivative.
    """
    cuda = [module.device] if module.device.type == "cuda" else []
    with (
        evaluation_mode(module),
        no_side_effects(module),
        torch.random.fork_rng(cuda),
        seeded(seed),
        torch.compiler.set_stance("force_eager"),
    ):
        yield


def classification_loss(module: LightningModule) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the module's method ``loss(images, labels)``, or else the cross-entropy of its logits.

    The method is recognized by the names of its two parameters, because
    ``self.loss = nn.CrossEntropyLoss()`` and ``def loss(self, logits, labels)`` are common and mean
    something else. Without such a method the loss is the cross-entropy of ``module(images)``.
    """
    method = getattr(type(module), "loss", None)
    if inspect.isfunction(method):
        names = [name for name in inspect.signature(method).parameters if name != "self"]
        if names == ["images", "labels"]:
            return module.loss  # type: ignore[return-value]
    return lambda images, labels: cross_entropy(module(images), labels)


def batch_loss(
    module: LightningModule, loss: str | Callable[..., Tensor] | None
) -> Callable[[Any], Tensor]:
    """Return a function that computes the scalar loss of a batch as ``training_step`` receives it.

    Args:
        module: The module that computes the loss.
        loss: The name of a method, which is called with the elements of the batch; or a function,
            which is called with the module and the elements. None selects ``module.loss(batch)`` if
            that method takes one argument, ``module.loss(images, labels)`` if its parameters have
            these two names, and otherwise ``training_step``, for batches of any kind.

    Raises:
        ValueError: ``loss`` is not the name of a method.
        MisconfigurationException: The loss is that of ``training_step``, which returns none or
            optimizes manually.
    """
    if callable(loss):
        function = loss
        return lambda batch: function(module, *_elements(batch))
    if loss is not None:
        method = getattr(module, loss, None)
        if not callable(method):
            raise ValueError(f"loss={loss!r}: {type(module).__name__} has no such method")
        return lambda batch: method(*_elements(batch))
    own = getattr(type(module), "loss", None)
    if inspect.isfunction(own) and len(inspect.signature(own).parameters) == 2:
        return lambda batch: module.loss(batch)  # type: ignore[operator]
    names = list(inspect.signature(own).parameters) if inspect.isfunction(own) else []
    if names == ["self", "images", "labels"]:
        return lambda batch: module.loss(*_elements(batch))  # type: ignore[operator]
    if not module.automatic_optimization:
        raise MisconfigurationException(
            f"{type(module).__name__} uses manual optimization, so it is not known which of its "
            "losses to measure: set loss= to a function of the module and the batch"
        )
    return lambda batch: _loss_of_training_step(module, batch)


def _loss_of_training_step(module: LightningModule, batch: Any) -> Tensor:
    batch = deepcopy(batch)  # which the step may change
    output = module.training_step(*step_arguments(module.training_step, batch, 0))
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if not isinstance(loss, Tensor):
        raise MisconfigurationException(
            f"training_step of {type(module).__name__} returned no loss for the measured batch: "
            "set loss= to a function of the module and the batch"
        )
    return loss


def _elements(batch: Any) -> tuple[Any, ...]:
    """Return a batch as positional arguments; a tensor or a dictionary is one argument."""
    return tuple(batch) if isinstance(batch, list | tuple) else (batch,)
