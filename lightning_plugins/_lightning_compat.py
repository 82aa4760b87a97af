"""Every use of a private Lightning or torchmetrics interface, with what happens where it is gone.

Tested with lightning and pytorch-lightning 2.6.6 and torchmetrics 1.9. Where nothing else is said,
a missing interface is an ``AttributeError``.

- ``_AutomaticOptimization._make_closure``: to run a second pass, to replace a batch. Without it,
  the public ``LightningModule.optimizer_step`` is wrapped, which allows no accumulation and no
  replacing, or a ``MisconfigurationException`` says so.
- ``Closure._step_fn``, ``_backward_fn``, ``_zero_grad_fn``: the passes of that closure. Without
  them the whole closure is repeated, and Lightning reports the second loss.
- ``FitLoop._should_accumulate``: whether a batch ends an accumulation window.
- ``FitLoop._load_combined_loader_states``: to resume loaders that were made before the restore.
- ``DDPStrategy._ddp_kwargs``: whether the graph is static, and whether unused parameters are
  looked for; without it, taken to be dynamic, and that they are not.
- ``Metric._copy_state_dict``, ``_update_count``, ``_computed``, ``_forward_cache``: to undo an
  update.
- ``_init_dist_connection``, ``_optimizers_to_device``, ``_SubprocessScriptLauncher``,
  ``_MultiProcessingLauncher``, ``reset_seed``: what every strategy of several processes does.
- ``_update_dataloader``: a data loader with another sampler.
- ``AcceleratorConnector.use_distributed_sampler``: to leave samplers to the strategy.
- ``is_param_in_hook_signature``: whether a step takes ``batch_idx``.
- ``LightningCLI._add_configure_optimizers_method_to_model``: to give optimizers parameter names.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Sampler
from torchmetrics import Metric

WrapClosure = Callable[[Any, dict[str, Any], int], Any]


def wrap_closures(trainer: Trainer, wrap: WrapClosure) -> Callable[[], None]:
    """Let ``wrap(closure, kwargs, batch_idx)`` replace the training closures of the run.

    A closure does forward, zero-grad and backward of one batch in automatic optimization. Where it
    is built is the one place that is right for gradient scaling, accumulation and synchronization.

    Returns:
        A function that takes the wrapper off again; calling it twice is allowed.

    Raises:
        MisconfigurationException: this Lightning has no such place, and the run accumulates.
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
    """The same through public hooks alone, for runs that step at every batch."""
    if trainer.accumulate_grad_batches != 1:
        raise MisconfigurationException(
            "this Lightning release builds its training closures where this package does not "
            "know, so accumulate_grad_batches must be 1; with lightning 2.6 it can be anything"
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


def replace_batches(trainer: Trainer, replace: Callable[[Any, int], Any]) -> Callable[[], None]:
    """Let ``replace(batch, batch_idx)`` give the batch that ``training_step`` is called with.

    It is called once a batch, after the batch is on the device and before any forward pass; what
    else repeats the closure, as LateSAM does, repeats it with the replaced batch. The loader's own
    batch is not modified.

    Returns:
        A function that ends the replacing; calling it twice is allowed.

    Raises:
        MisconfigurationException: this Lightning has no such place.
    """

    def wrap(closure: Any, kwargs: dict[str, Any], batch_idx: int) -> Any:
        # The closure holds this very dictionary, made anew for each batch.
        kwargs["batch"] = replace(kwargs["batch"], batch_idx)
        return closure

    if not _builds_closures(trainer):
        raise MisconfigurationException(
            "this Lightning release builds its training closures where this package does not "
            "know, so it cannot replace batches: install lightning 2.6"
        )
    return wrap_closures(trainer, wrap)


def passes_of(closure: Any) -> "Passes":
    """The passes of a training closure, as far as this Lightning lets them be told apart."""
    return Passes(closure) if hasattr(closure, "_step_fn") else _WholeClosure(closure)


class Passes:
    """The separate parts of one stock training closure.

    Attributes:
        loss: of the stock pass, detached; None before it, and where ``training_step`` gave none.
        second_loss: of the repeated pass.
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
        """Whether this pass has no backward, as when weight averaging re-estimates BatchNorm."""
        return self._closure._backward_fn is None

    def run(self) -> Tensor | None:
        """Forward, zero-grad and backward as stock; returns the detached loss, if there was one."""
        self.loss = self._closure()
        return self.loss

    def run_again(self) -> None:
        """Forward and backward once more, adding to the gradients."""
        result = self._closure._step_fn()
        self._closure._backward_fn(result.closure_loss)
        self.second_loss = result.loss

    def consume_result(self) -> Any:
        """What Lightning reports of the step: the result of the stock pass."""
        return self._closure.consume_result()


class _WholeClosure(Passes):
    """A closure of a Lightning whose parts are not known: it can only be called again."""

    @property
    def starts_accumulation(self) -> bool:
        return True

    @property
    def skips_backward(self) -> bool:
        return False

    def run_again(self) -> None:
        self.second_loss = self._closure()


def steps_the_optimizer(trainer: Trainer) -> bool:
    """Whether the batch in progress ends an accumulation window."""
    return not trainer.fit_loop._should_accumulate()


def load_pending_loader_states(trainer: Trainer) -> None:
    """Hand the data loaders the states of the checkpoint that is being resumed, if they wait.

    Lightning does so when it makes the loaders, and forgets it where they were made before the
    checkpoint was read: anything that asks ``trainer.estimated_stepping_batches`` in
    ``configure_optimizers``, as most schedules do, makes them that early (Lightning #20550).
    """
    trainer.fit_loop._load_combined_loader_states()


def logs_at_this_step(trainer: Trainer) -> bool:
    """Whether the Trainer logs the optimizer step that was just taken."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every) and trainer.global_step % every == 0


def optimizer_steps(trainer: Trainer) -> float:
    """Optimizer steps of the whole run; infinity where it has no known end.

    ``trainer.estimated_stepping_batches`` is -1 for a loader without a length, and takes the
    accumulation factor of this moment for that of every epoch. As it does, this makes the loaders
    where they are not there yet.
    """
    estimated = trainer.estimated_stepping_batches
    if estimated < 0:
        return math.inf
    if trainer.max_epochs == -1 or _accumulation_scheduler(trainer) is None:
        return estimated
    steps = steps_of_epochs(trainer, trainer.max_epochs or 0)
    return steps if trainer.max_steps < 0 else min(steps, trainer.max_steps)


def steps_of_epochs(trainer: Trainer, epochs: float) -> float:
    """Optimizer steps of the first ``epochs``; infinity where the loader has no length.

    Ask once the data loaders are there.
    """
    batches = trainer.num_training_batches
    if math.isinf(batches):
        return math.inf if epochs else 0
    scheduler = _accumulation_scheduler(trainer)
    if scheduler is None:
        return epochs * math.ceil(batches / trainer.accumulate_grad_batches)
    whole = int(epochs)
    *steps, last = (
        math.ceil(batches / scheduler.get_accumulate_grad_batches(epoch))
        for epoch in range(whole + 1)
    )
    return sum(steps) + (epochs - whole) * last


def _accumulation_scheduler(trainer: Trainer) -> Any:
    """The ``GradientAccumulationScheduler`` of the run, by either name of Lightning."""
    found = (c for c in callbacks_of(trainer) if hasattr(c, "get_accumulate_grad_batches"))
    return next(found, None)


def most_batches_a_step(trainer: Trainer) -> int:
    """The largest accumulation factor of any epoch."""
    scheduler = _accumulation_scheduler(trainer)
    if scheduler is None:
        return trainer.accumulate_grad_batches
    return max(scheduler.scheduling.values())


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """The Trainer's callbacks, which it declares in no place that a type checker reads."""
    return trainer.callbacks  # type: ignore[attr-defined]


def uses_static_graph(trainer: Trainer) -> bool:
    """Whether the strategy promised DistributedDataParallel that every step is alike."""
    return bool(getattr(trainer.strategy, "_ddp_kwargs", {}).get("static_graph"))


def finds_unused_parameters(trainer: Trainer) -> bool:
    """Whether the strategy lets DistributedDataParallel look for parameters without gradients."""
    return bool(getattr(trainer.strategy, "_ddp_kwargs", {}).get("find_unused_parameters"))


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


# The interfaces below belong to the decentralized strategies alone, so they are imported where they
# are used: a release that lacks one leaves the other plugins whole.


def default_backend(device: torch.device) -> str:
    """Of a process group for tensors on ``device``."""
    from lightning.fabric.utilities.distributed import (
        _get_default_process_group_backend_for_device,
    )

    return _get_default_process_group_backend_for_device(device)


def connect_processes(
    environment: ClusterEnvironment, backend: str, timeout: timedelta, device: torch.device
) -> None:
    """Join torch's default process group, unless this process is in one."""
    from lightning.fabric.utilities.distributed import _init_dist_connection
    from lightning.fabric.utilities.seed import reset_seed

    # As Lightning does for several processes; one keeps the generators that it would have alone.
    if environment.world_size() > 1:
        reset_seed()
    device_id = None if device.type == "cpu" else device
    _init_dist_connection(environment, backend, timeout=timeout, device_id=device_id)


def process_launcher(
    strategy: Strategy,
    environment: ClusterEnvironment,
    num_processes: int,
    num_nodes: int,
    start_method: Literal["popen", "spawn", "fork"],
) -> Any:
    """Lightning's own launcher, which runs the script again or starts functions."""
    from lightning.pytorch.strategies import launchers

    if start_method == "popen":
        return launchers._SubprocessScriptLauncher(environment, num_processes, num_nodes)
    return launchers._MultiProcessingLauncher(strategy, start_method=start_method)  # type: ignore[arg-type]


def optimizers_to_device(optimizers: list[Optimizer], device: torch.device) -> None:
    """Move the optimizers' state."""
    from lightning.fabric.utilities.optimizer import _optimizers_to_device

    _optimizers_to_device(optimizers, device)


def step_arguments(step: Callable[..., Any], batch: Any, *indices: int) -> tuple[Any, ...]:
    """What Lightning calls ``training_step`` or ``validation_step`` with.

    Args:
        step: of a module, bound to it.
        batch: its batch.
        indices: ``batch_idx``, which a step need not take, and ``dataloader_idx`` where there are
            several loaders.
    """
    from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

    batch_idx, *of_loader = indices
    # A second argument of any name is the index.
    if is_param_in_hook_signature(step, "batch_idx", min_args=2):
        return batch, batch_idx, *of_loader
    return batch, *of_loader


def with_sampler(dataloader: DataLoader, sampler: Sampler) -> DataLoader:
    """``dataloader`` made anew with another sampler, also where its class is the user's own."""
    from lightning.pytorch.utilities.data import _update_dataloader

    return _update_dataloader(dataloader, sampler)


def leave_samplers_alone(trainer: Trainer) -> None:
    """Keep the Trainer from replacing samplers, because the strategy decides who sees what."""
    trainer._accelerator_connector.use_distributed_sampler = False


def training_loader_anew(trainer: Trainer, loader: Any) -> Any:
    """The training loader from the method that makes it, or ``loader`` where there is none."""
    source = trainer.fit_loop._data_source
    return source.dataloader() if source.is_module() else loader


def data_share(trainer: Trainer | None) -> tuple[int, int]:
    """Which share of the data this process reads: its index, and the number of shares.

    Under ``ModelParallelStrategy`` the ranks of one tensor-parallel group read the same batches, so
    there are fewer shares than processes.

    Args:
        trainer: None is one process.
    """
    if trainer is None:
        return 0, 1
    mesh = getattr(getattr(trainer, "strategy", None), "_device_mesh", None)
    if mesh is None:
        return trainer.global_rank, trainer.world_size
    data_parallel = mesh["data_parallel"]
    return data_parallel.get_local_rank(), data_parallel.size()
