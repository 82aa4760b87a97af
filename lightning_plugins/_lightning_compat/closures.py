"""Training closures: the passes that the Trainer runs for one batch, wrapped or repeated.

- ``_AutomaticOptimization._make_closure``: runs a second pass or replaces a batch. Without it, the
  public ``LightningModule.optimizer_step`` is wrapped. The wrapper supports neither accumulation
  nor replaced batches, which then raise a ``MisconfigurationException``.
- ``Closure._step_fn``, ``_backward_fn``, ``_zero_grad_fn``: the passes of that closure. Without
  them, the whole closure is repeated and Lightning reports the second loss.
- ``is_param_in_hook_signature``: whether a step has the argument ``batch_idx``.
- ``Metric._copy_state_dict``, ``_update_count``, ``_computed``, ``_forward_cache``: undo an update.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torchmetrics import Metric

WrapClosure = Callable[[Any, dict[str, Any], int], Any]


def wrap_closures(trainer: Trainer, wrap: WrapClosure) -> Callable[[], None]:
    """Replace the training closures of the run by ``wrap(closure, kwargs, batch_idx)``.

    A closure runs forward, zero-grad and backward of one batch in automatic optimization. Wrapping
    it where it is built keeps gradient scaling, accumulation and synchronization correct.

    Returns:
        A function that removes the wrapper; it can be called twice.

    Raises:
        MisconfigurationException: This Lightning builds no such closure, and the run accumulates.
    """
    loop = trainer.fit_loop.epoch_loop.automatic_optimization
    if not _builds_closures(trainer):
        return _wrap_optimizer_step(trainer, wrap)
    wrappers: list[WrapClosure] = loop.__dict__.setdefault("_lightning_plugins_wrappers", [])
    wrappers.append(wrap)

    def make_wrapped(kwargs: dict[str, Any], optimizer: Any, batch_idx: int) -> Any:
        closure = type(loop)._make_closure(loop, kwargs, optimizer, batch_idx)  # type: ignore[arg-type]
        for wrapper in wrappers:
            closure = wrapper(closure, kwargs, batch_idx)
        return closure

    loop._make_closure = make_wrapped  # type: ignore[method-assign]

    def remove() -> None:
        if wrap in wrappers:
            wrappers.remove(wrap)
        if not wrappers:
            loop.__dict__.pop("_make_closure", None)

    return remove


def _builds_closures(trainer: Trainer) -> bool:
    return hasattr(trainer.fit_loop.epoch_loop.automatic_optimization, "_make_closure")


def _wrap_optimizer_step(trainer: Trainer, wrap: WrapClosure) -> Callable[[], None]:
    """Wrap the closure with public hooks only, for runs that step at every batch."""
    if trainer.accumulate_grad_batches != 1:
        raise MisconfigurationException(
            "this package cannot wrap the training closures of this Lightning release, so "
            "accumulate_grad_batches must be 1; lightning 2.6 supports any value"
        )
    module = trainer.lightning_module
    optimizer_step = module.optimizer_step

    def with_wrapped_closure(
        epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        optimizer_step(epoch, batch_idx, optimizer, wrap(optimizer_closure, {}, batch_idx))

    module.__dict__["optimizer_step"] = with_wrapped_closure

    def remove() -> None:
        module.__dict__.pop("optimizer_step", None)

    return remove


def has_wrapped_closures(trainer: Trainer) -> bool:
    """Return whether :func:`wrap_closures` is in effect."""
    loop = trainer.fit_loop.epoch_loop.automatic_optimization
    wrapped = "optimizer_step" in trainer.lightning_module.__dict__
    return bool(loop.__dict__.get("_lightning_plugins_wrappers")) or wrapped


def replace_batches(trainer: Trainer, replace: Callable[[Any, int], Any]) -> Callable[[], None]:
    """Call ``training_step`` with ``replace(batch, batch_idx)`` instead of the batch.

    ``replace`` is called once per batch, after the transfer to the device and before any forward
    pass. A plugin that repeats the closure, such as LateSAM, repeats it with the replaced batch.
    The loader's own batch is not modified.

    Returns:
        A function that stops the replacement; it can be called twice.

    Raises:
        MisconfigurationException: This Lightning builds no such closure.
    """

    def wrap(closure: Any, kwargs: dict[str, Any], batch_idx: int) -> Any:
        # The closure uses this dictionary object, which is created for each batch.
        kwargs["batch"] = replace(kwargs["batch"], batch_idx)
        return closure

    if not _builds_closures(trainer):
        raise MisconfigurationException(
            "this package cannot wrap the training closures of this Lightning release, so it "
            "cannot replace batches: install lightning 2.6"
        )
    return wrap_closures(trainer, wrap)


def passes_of(closure: Any) -> "Passes":
    """Return the passes of a training closure, or the whole closure if they are not separable."""
    return Passes(closure) if hasattr(closure, "_step_fn") else _WholeClosure(closure)


class Passes:
    """The separate passes of one Lightning training closure.

    Attributes:
        loss: Detached loss of Lightning's pass; None before it and if ``training_step`` returned
            None.
        second_loss: Loss of the repeated pass.
    """

    def __init__(self, closure: Any) -> None:
        self._closure = closure
        self.loss: Tensor | None = None
        self.second_loss: Tensor | None = None

    @property
    def starts_accumulation(self) -> bool:
        """Whether this closure zeroes the gradients before its backward pass."""
        return self._closure._zero_grad_fn is not None

    @property
    def skips_backward(self) -> bool:
        """Whether this pass has no backward, for example when BatchNorm statistics are updated."""
        return self._closure._backward_fn is None

    def run(self) -> Tensor | None:
        """Run forward, zero-grad and backward as Lightning; return the detached loss or None."""
        self.loss = self._closure()
        return self.loss

    def run_again(self) -> None:
        """Run forward and backward again, adding to the gradients."""
        result = self._closure._step_fn()
        self._closure._backward_fn(result.closure_loss)
        self.second_loss = result.loss

    def consume_result(self) -> Any:
        """Return the result that Lightning reports for the step: that of its own pass."""
        return self._closure.consume_result()


class _WholeClosure(Passes):
    """A closure whose passes are not separable in this Lightning: it can only be called again."""

    @property
    def starts_accumulation(self) -> bool:
        return True

    @property
    def skips_backward(self) -> bool:
        return False

    def run_again(self) -> None:
        self.second_loss = self._closure()


def step_arguments(step: Callable[..., Any], batch: Any, *indices: int) -> tuple[Any, ...]:
    """Return the arguments with which Lightning calls ``training_step`` or ``validation_step``.

    Args:
        step: The bound method of the module.
        batch: The batch.
        indices: ``batch_idx``, which a step may omit, and ``dataloader_idx`` if there are several
            loaders.
    """
    from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

    batch_idx, *of_loader = indices
    # A second argument of any name is the index.
    if is_param_in_hook_signature(step, "batch_idx", min_args=2):
        return batch, batch_idx, *of_loader
    return batch, *of_loader


@contextmanager
def preserved_metrics(module: nn.Module) -> Iterator[None]:
    """Restore the state of the torchmetrics of ``module`` at the end of the block."""
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
