"""Every use of a private Lightning or torchmetrics interface, and the fallback if it is missing.

Tested with lightning and pytorch-lightning 2.6.6 and torchmetrics 1.9. Unless stated otherwise, a
missing interface raises an ``AttributeError``.

- ``_AutomaticOptimization._make_closure``: runs a second pass or replaces a batch. Without it, the
  public ``LightningModule.optimizer_step`` is wrapped. The wrapper supports neither accumulation
  nor replaced batches, which then raise a ``MisconfigurationException``.
- ``Closure._step_fn``, ``_backward_fn``, ``_zero_grad_fn``: the passes of that closure. Without
  them, the whole closure is repeated and Lightning reports the second loss.
- ``FitLoop._should_accumulate``: whether a batch ends an accumulation window.
- ``FitLoop._load_combined_loader_states``: resumes loaders created before the restore.
- ``FitLoop._combined_loader``, ``_BatchProgress.current``: the place in the epoch after a change of
  the batch size or of the number of processes.
- ``FitLoop.on_advance_start``, ``_combined_loader``, ``_data_fetcher``,
  ``reset_restart_stage``, ``_TrainingEpochLoop.on_run_start``, ``CombinedLoader._iterator``,
  ``_DataFetcher._start_profiler``: repeat the iterator of a resumed epoch.
- ``_TrainingEpochLoop.advance``: called for each batch; it begins with a collective call.
- ``torch.distributed``'s ``_get_default_store``: the ranks compare their places through it.
- ``ModelParallelStrategy._data_parallel_size``, ``_tensor_parallel_size``, ``_device_mesh``: how
  parameters are sharded, and which share of the data a rank reads.
- ``DDPStrategy._ddp_kwargs``: whether the graph is static, and whether DDP searches for unused
  parameters. Without it, the graph is assumed to be dynamic and the search to be off.
- ``Metric._copy_state_dict``, ``_update_count``, ``_computed``, ``_forward_cache``: undo an update.
- ``_init_dist_connection``, ``_optimizers_to_device``, ``_SubprocessScriptLauncher``,
  ``_MultiProcessingLauncher``, ``reset_seed``: set-up of a strategy with several processes.
- ``Trainer._results``: names of logged values in errors. Without it, errors do not have them.
- ``_update_dataloader``: rebuilds a data loader with another sampler.
- ``AcceleratorConnector.use_distributed_sampler``: leaves samplers to the strategy.
- ``is_param_in_hook_signature``: whether a step has the argument ``batch_idx``.
- ``LightningCLI._add_configure_optimizers_method_to_model``: passes parameter names to optimizers.
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
from torch.distributed import Store
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Sampler
from torchmetrics import Metric

from lightning_plugins._import_names import of_root

Sharding = Literal["fsdp2", "tp"]
"""The kinds of sharding of ``ModelParallelStrategy``: data-parallel (FSDP2) or tensor-parallel."""

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


def steps_the_optimizer(trainer: Trainer) -> bool:
    """Return whether the current batch ends an accumulation window."""
    return not trainer.fit_loop._should_accumulate()


def load_pending_loader_states(trainer: Trainer) -> None:
    """Load the pending states of the resumed checkpoint into the data loaders.

    Lightning loads them when it creates the loaders, but not if the loaders were created before the
    checkpoint was read. Reading ``trainer.estimated_stepping_batches`` in ``configure_optimizers``,
    as most schedules do, creates them that early (Lightning #20550).
    """
    loop = trainer.fit_loop
    type(loop)._load_combined_loader_states(loop)  # not a wrapper of it


class EpochIterators:
    """Calls a run's observer whenever an iterator over the training batches is made or continued.

    Args:
        trainer: The Trainer, before its loaders exist.
        before_loader: Called after new loaders are created and before their first iterator.
        before_epoch: Called at the start of each epoch, before hooks and before its iterator.
        before_iterator: Called before an epoch may make a new iterator.
        after_iterator: Called with whether it did, before the first batch is fetched.
    """

    def __init__(
        self,
        trainer: Trainer,
        before_loader: Callable[[], None],
        before_epoch: Callable[[], None],
        before_iterator: Callable[[], None],
        after_iterator: Callable[[bool], None],
    ) -> None:
        self._trainer = trainer
        loop: Any = trainer.fit_loop
        epoch_loop: Any = loop.epoch_loop

        def load_states() -> None:
            type(loop)._load_combined_loader_states(loop)
            before_loader()

        def on_advance_start() -> None:
            if self.resumed_after_last_batch():
                loop.reset_restart_stage()  # a new epoch: its hooks run, and it is counted
            before_epoch()
            type(loop).on_advance_start(loop)

        def on_run_start(fetcher: Any) -> None:
            before_iterator()
            before = self._iterator()
            type(epoch_loop).on_run_start(epoch_loop, fetcher)
            after_iterator(self._iterator() is not before)

        loop._load_combined_loader_states = load_states
        loop.on_advance_start = on_advance_start
        epoch_loop.on_run_start = on_run_start

    def remove(self) -> None:
        """Remove the observer; it can be called twice."""
        for name in ("_load_combined_loader_states", "on_advance_start"):
            self._trainer.fit_loop.__dict__.pop(name, None)
        self._trainer.fit_loop.epoch_loop.__dict__.pop("on_run_start", None)

    def loaders(self) -> list[Any]:
        """Return the training loaders."""
        combined = self._trainer.fit_loop._combined_loader
        return [] if combined is None else list(combined.flattened)

    def resumed_after_last_batch(self) -> bool:
        """Return whether the checkpoint was written between an epoch's last batch and its end.

        Lightning then goes on with the next epoch as if in its middle.
        """
        loop: Any = self._trainer.fit_loop
        return bool(
            loop.restarted_mid_epoch
            and loop.epoch_loop.restarted_on_train_batch_end
            and loop.epoch_loop.batch_progress.is_last_batch
        )

    def is_over(self) -> bool:
        """Return whether the epoch has no batches left, as at the end of a resumed epoch."""
        return self._trainer.fit_loop.epoch_loop.done

    def batches_taken(self) -> int:
        """Return the number of batches that this epoch has fetched."""
        return self._trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def restart(self) -> None:
        """Make a new iterator over the training batches."""
        iter(self._fetcher())

    def skip(self, batches: int) -> int:
        """Fetch and drop batches; returns how many there were."""
        fetcher = self._fetcher()
        for taken in range(batches):
            try:
                next(fetcher)
            except StopIteration:
                return taken
        return batches

    def before_first_fetch(self, act: Callable[[], None]) -> None:
        """Call ``act`` before the next batch is fetched."""
        fetcher = self._fetcher()
        before = fetcher._start_profiler

        def start() -> None:
            fetcher._start_profiler = before
            act()
            before()

        fetcher._start_profiler = start

    def _fetcher(self) -> Any:
        return self._trainer.fit_loop._data_fetcher

    def _iterator(self) -> Any:
        return getattr(self._trainer.fit_loop._combined_loader, "_iterator", None)


def count_resumed_batches(trainer: Trainer) -> None:
    """Convert the restored count of batches to the present batch size and number of processes.

    Call it in ``on_train_start``, after the states of the loaders were loaded. Loaders with a
    method ``take_resized_batches`` report the count, such as this package's
    ``ResumableDataLoader``.

    Raises:
        MisconfigurationException: There are several training loaders, which can be at different
            places.
    """
    combined = trainer.fit_loop._combined_loader
    loaders = [] if combined is None else combined.flattened
    counts = [
        loader.take_resized_batches()
        for loader in loaders
        if hasattr(loader, "take_resized_batches")
    ]
    if not any(count is not None for count in counts):
        return
    if len(loaders) > 1:
        raise MisconfigurationException(
            "the checkpoint was written with another batch size or number of processes, which "
            "several training loaders do not support: use the previous values"
        )
    current = trainer.fit_loop.epoch_loop.batch_progress.current
    change = counts[0] - current.ready
    for name in ("ready", "started", "processed", "completed"):
        setattr(current, name, getattr(current, name) + change)


def run_validation(trainer: Trainer) -> None:
    """Run a validation in ``on_train_end``, as within training."""
    trainer.validating = True
    try:
        trainer.fit_loop.epoch_loop.val_loop.run()
    finally:
        trainer.training = True


def logs_at_this_step(trainer: Trainer) -> bool:
    """Return whether the Trainer logs the last optimizer step."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every) and trainer.global_step % every == 0


def optimizer_steps(trainer: Trainer) -> float:
    """Return the optimizer steps of the whole run; infinity if it has no known end.

    Unlike ``trainer.estimated_stepping_batches``, this supports loaders without a length, for which
    the estimate is -1, and an accumulation factor that changes between epochs. Both create the
    loaders if they do not exist yet.
    """
    estimated = trainer.estimated_stepping_batches
    if estimated < 0:
        return math.inf
    if trainer.max_epochs == -1 or _accumulation_scheduler(trainer) is None:
        return estimated
    steps = steps_of_epochs(trainer, trainer.max_epochs or 0)
    return steps if trainer.max_steps < 0 else min(steps, trainer.max_steps)


def steps_of_epochs(trainer: Trainer, epochs: float) -> float:
    """Return the optimizer steps of the first ``epochs``; infinity for a loader without a length.

    The data loaders must exist.
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
    """Return the run's ``GradientAccumulationScheduler``, of lightning or pytorch_lightning."""
    found = (c for c in callbacks_of(trainer) if hasattr(c, "get_accumulate_grad_batches"))
    return next(found, None)


def largest_accumulation_factor(trainer: Trainer) -> int:
    """Return the largest accumulation factor of all epochs."""
    scheduler = _accumulation_scheduler(trainer)
    if scheduler is None:
        return trainer.accumulate_grad_batches
    return max(scheduler.scheduling.values())


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return the Trainer's callbacks, an attribute that type checkers do not find."""
    return trainer.callbacks  # type: ignore[attr-defined]


def uses_static_graph(trainer: Trainer) -> bool:
    """Return whether the strategy uses DistributedDataParallel with ``static_graph=True``."""
    return bool(getattr(trainer.strategy, "_ddp_kwargs", {}).get("static_graph"))


def finds_unused_parameters(trainer: Trainer) -> bool:
    """Return whether DistributedDataParallel searches for parameters without gradients."""
    return bool(getattr(trainer.strategy, "_ddp_kwargs", {}).get("find_unused_parameters"))


def no_gradient_synchronization(trainer: Trainer) -> AbstractContextManager[None]:
    """Return a context in which the strategy does not synchronize gradients between ranks."""
    block = getattr(trainer.strategy, "block_backward_sync", None)
    return nullcontext() if block is None else block()


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


# Only the decentralized strategies use the interfaces below. They are imported where they are used,
# so a release without one of them does not affect the other plugins.


def default_backend(device: torch.device) -> str:
    """Return the default backend of a process group for tensors on ``device``."""
    from lightning.fabric.utilities.distributed import (
        _get_default_process_group_backend_for_device,
    )

    return _get_default_process_group_backend_for_device(device)


def connect_processes(
    environment: ClusterEnvironment, backend: str, timeout: timedelta, device: torch.device
) -> None:
    """Join torch's default process group, unless this process already belongs to one."""
    from lightning.fabric.utilities.distributed import _init_dist_connection

    device_id = None if device.type == "cpu" else device
    _init_dist_connection(environment, backend, timeout=timeout, device_id=device_id)


def before_each_batch(trainer: Trainer, act: Callable[[], None]) -> Callable[[], None]:
    """Call ``act`` before each training batch, and before Lightning's own collective call for it.

    Returns:
        A function that stops the calls; it can be called twice.
    """
    loop: Any = trainer.fit_loop.epoch_loop

    def advance(data_fetcher: Any) -> None:
        act()
        type(loop).advance(loop, data_fetcher)

    loop.advance = advance
    return lambda: loop.__dict__.pop("advance", None)


def default_store() -> Store:
    """Return the store of torch's default process group."""
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()


def restart_seed() -> None:
    """Seed the generators again, as Lightning does when it connects several processes."""
    from lightning.fabric.utilities.seed import reset_seed

    reset_seed()


def names_of_logged_values(trainer: Trainer) -> list[str]:
    """Return the names that this process has logged so far in the current loop."""
    results = getattr(trainer, "_results", None)
    logged = {metric.meta.name for metric in (results or {}).values()}
    return sorted(logged)


def process_launcher(
    strategy: Strategy,
    environment: ClusterEnvironment,
    num_processes: int,
    num_nodes: int,
    start_method: Literal["popen", "spawn", "fork"],
) -> Any:
    """Return Lightning's launcher, which runs the script again or starts functions."""
    # Of the same import name as the Trainer, which recognizes launchers by their class.
    if start_method == "popen":
        launcher = of_root(strategy, "strategies.launchers._SubprocessScriptLauncher")
        return launcher(environment, num_processes, num_nodes)
    launcher = of_root(strategy, "strategies.launchers._MultiProcessingLauncher")
    return launcher(strategy, start_method=start_method)


def optimizers_to_device(optimizers: list[Optimizer], device: torch.device) -> None:
    """Move the optimizers' state."""
    from lightning.fabric.utilities.optimizer import _optimizers_to_device

    _optimizers_to_device(optimizers, device)


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


def with_sampler(dataloader: DataLoader, sampler: Sampler) -> DataLoader:
    """Rebuild ``dataloader`` with another sampler; also supports user-defined loader classes."""
    from lightning.pytorch.utilities.data import _update_dataloader

    return _update_dataloader(dataloader, sampler)


def disable_sampler_replacement(trainer: Trainer) -> None:
    """Prevent the Trainer from replacing samplers, because the strategy distributes the samples."""
    trainer._accelerator_connector.use_distributed_sampler = False


def rebuilt_training_loader(trainer: Trainer, loader: Any) -> Any:
    """Create the training loader again, or return ``loader`` if no method creates it."""
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


def model_parallel_sizes(trainer: Trainer) -> dict[Sharding, int]:
    """Return the number of ranks over which each kind of sharding splits the parameters.

    Also before the processes exist. Both are 1 unless the strategy is ``ModelParallelStrategy``.
    """
    strategy: Any = trainer.strategy
    if not type(strategy).__name__.startswith("ModelParallel"):
        return {"fsdp2": 1, "tp": 1}
    options = ("_data_parallel_size", "_tensor_parallel_size")
    sizes = [getattr(strategy, option, "auto") for option in options]
    default = trainer.num_nodes, trainer.num_devices
    fsdp2, tp = (int(d if size == "auto" else size) for size, d in zip(sizes, default, strict=True))
    return {"fsdp2": fsdp2, "tp": tp}


def request_stop(trainer: Trainer) -> None:
    """End training after the current batch, on all ranks, as after a SIGTERM.

    The Trainer raises a ``SIGTERMException``. Without the private interface, a public
    ``should_stop`` ends the run, after the validation and the hooks of an ordinary end.
    """
    connector = getattr(trainer, "_signal_connector", None)
    if connector is None:
        trainer.should_stop = True
    else:
        connector.received_sigterm = True
