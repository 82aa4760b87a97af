"""Every use of a private Lightning or torchmetrics interface, with what happens where it is gone.

Tested with lightning and pytorch-lightning 2.6.6 and torchmetrics 1.9.

| used | for | where it is missing |
|---|---|---|
| ``_AutomaticOptimization._make_closure`` | a second pass per step | ``MisconfigurationException`` |
| ``Closure._step_fn/_backward_fn/_zero_grad_fn/_result`` | the passes of that closure | the same |
| ``FitLoop._should_accumulate`` | which batch steps | ``AttributeError`` |
| ``FitLoop._load_combined_loader_states`` | loaders made before the restore | ``AttributeError`` |
| ``Metric._copy_state_dict/_update_count/_computed/_forward_cache`` | undoing an update | the same |
| ``LightningCLI._add_configure_optimizers_method_to_model`` | parameter names | bare parameters |
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torchmetrics import Metric

WrapClosure = Callable[[Any, dict[str, Any], int], Any]


def wrap_closures(trainer: Trainer, wrap: WrapClosure) -> Callable[[], None]:
    """Let ``wrap(closure, kwargs, batch_idx)`` replace each training closure of automatic optimization.

    The closure does forward, zero-grad and backward of one batch. This is the one place that is
    right for gradient scaling, accumulation and synchronization alike.

    Returns:
        A function that takes the wrapper off again; calling it twice is allowed.

    Raises:
        MisconfigurationException: this Lightning has no such place.
    """
    loop = getattr(trainer.fit_loop.epoch_loop, "automatic_optimization", None)
    original = getattr(type(loop), "_make_closure", None)
    if loop is None or original is None:
        raise MisconfigurationException(
            "this Lightning release builds its training closure elsewhere: "
            "install lightning 2.6 or report it to lightning-plugins"
        )
    wrappers: list[WrapClosure] = loop.__dict__.setdefault("_lightning_plugins_wrappers", [])
    wrappers.append(wrap)

    def make_wrapped(kwargs: dict[str, Any], optimizer: Any, batch_idx: int) -> Any:
        closure = original(loop, kwargs, optimizer, batch_idx)
        for wrapper in wrappers:
            closure = wrapper(closure, kwargs, batch_idx)
        return closure

    loop._make_closure = make_wrapped

    def remove() -> None:
        if wrap in wrappers:
            wrappers.remove(wrap)
        if not wrappers:
            loop.__dict__.pop("_make_closure", None)

    return remove


class Passes:
    """The separate parts of one stock training closure."""

    def __init__(self, closure: Any) -> None:
        self._closure = closure
        self.loss: Tensor | None = None

    @property
    def starts_accumulation(self) -> bool:
        """Whether this closure zeroes the gradients before its backward pass."""
        return self._closure._zero_grad_fn is not None

    @property
    def skips_backward(self) -> bool:
        """Whether this pass has no backward, as when weight averaging re-estimates BatchNorm."""
        return self._closure._backward_fn is None

    def run(self) -> Tensor | None:
        """Forward, zero-grad and backward as stock; returns the detached loss, if there was one."""
        self.loss = self._closure()
        return self.loss

    def run_again(self) -> Tensor:
        """Forward and backward once more, adding to the gradients; returns the detached loss."""
        result = self._closure._step_fn()
        self._closure._backward_fn(result.closure_loss)
        return result.loss

    def consume_result(self) -> Any:
        """What Lightning reports of the step: the result of the stock pass."""
        return self._closure.consume_result()


def steps_the_optimizer(trainer: Trainer) -> bool:
    """Whether the batch in progress ends an accumulation window."""
    return not trainer.fit_loop._should_accumulate()


def load_pending_loader_states(trainer: Trainer) -> None:
    """Hand the data loaders the states of the checkpoint that is being resumed, if they wait.

    Lightning does so when it makes the loaders, and forgets it where they were made before the
    checkpoint was read: anything that asks ``trainer.estimated_stepping_batches`` in
    ``configure_optimizers``, as most schedules do, makes them that early.
    """
    trainer.fit_loop._load_combined_loader_states()


def no_gradient_synchronization(trainer: Trainer) -> AbstractContextManager[None]:
    """Forward and backward inside it stay local to the rank, where the strategy synchronizes."""
    block = getattr(trainer.strategy, "block_backward_sync", None)
    return nullcontext() if block is None else block()


@contextmanager
def metrics_untouched(module: nn.Module) -> Iterator[None]:
    """Undo what happens to the torchmetrics of ``module`` inside the block."""
    metrics = [part for part in module.modules() if isinstance(part, Metric)]
    before = [
        (metric, metric._copy_state_dict(), metric._update_count, metric._computed)
        for metric in metrics
    ]
    forward_caches = [metric._forward_cache for metric in metrics]
    try:
        yield
    finally:
        for (metric, state, update_count, computed), cache in zip(
            before, forward_caches, strict=True
        ):
            for name, value in state.items():
                setattr(metric, name, value)
            metric._update_count = update_count
            metric._computed = computed
            metric._forward_cache = cache
