"""Errors for strategies that a callback does not support."""

from collections.abc import Collection

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins._lightning_compat.loops import callbacks_of
from lightning_plugins._lightning_compat.processes import Sharding, model_parallel_sizes

_REASONS = {
    "FSDPStrategy": "requires a GPU accelerator; flattens parameters",
    "DeepSpeedStrategy": "only CUDA in Lightning; keeps gradients and master weights in its engine",
}


def refuse_sharded(
    trainer: Trainer, callback: Callback, supports: Collection[Sharding] = ()
) -> None:
    """Refuse strategies that shard parameters in a way that the callback does not support.

    Args:
        trainer: The Trainer of the run.
        callback: The callback, whose class the error names.
        supports: The kinds of sharding of ``ModelParallelStrategy`` that the callback supports.

    Raises:
        MisconfigurationException: The strategy shards the parameters in an unsupported way.
    """
    strategy = type(trainer.strategy).__name__
    name = type(callback).__name__
    sizes = model_parallel_sizes(trainer)
    if strategy.startswith("ModelParallel"):
        refused = [kind for kind, size in sizes.items() if size > 1 and kind not in supports]
        if refused:
            option = {"fsdp2": "data_parallel_size", "tp": "tensor_parallel_size"}[refused[0]]
            where = f"{strategy} with {option} above 1" if supports else strategy
            remedy = f"set {option}=1, or use" if supports else "use"
            raise MisconfigurationException(
                f"{name} does not support {where}: it needs whole parameters and gradients on each "
                f"rank; {remedy} strategy='ddp' or a single device"
            )
    elif sizes["fsdp2"] > 1 and "fsdp2" not in supports:
        raise MisconfigurationException(
            f"{name} does not support {strategy} with inside='fsdp': it needs whole parameters and "
            "gradients in each process; set inside='ddp'"
        )
    elif strategy.startswith(("FSDP", "DeepSpeed", "XLA")):
        reason = _REASONS.get(strategy, "shards the parameters")
        remedy = "ModelParallelStrategy" if supports else "strategy='ddp' or a single device"
        raise MisconfigurationException(
            f"{name} does not support {strategy}: {reason}; use {remedy}"
        )


def refuse_copied_modules(trainer: Trainer) -> None:
    """Refuse Lightning's averages of weights if several ranks share the parameters.

    They copy the module: FSDP2 does not support that, and under tensor parallelism a checkpoint
    would lack the averages of the other ranks. ``StochasticWeightAveraging`` copies it before
    ``configure_model`` makes the network, and averages nothing.

    Args:
        trainer: The Trainer of the run.

    Raises:
        MisconfigurationException: The strategy is ``ModelParallelStrategy``, and a callback
            averages a copy.
    """
    if max(model_parallel_sizes(trainer).values()) == 1:
        return
    for callback in callbacks_of(trainer):
        names = {cls.__name__ for cls in type(callback).__mro__}
        if names & {"WeightAveraging", "StochasticWeightAveraging"}:
            raise MisconfigurationException(
                f"{type(callback).__name__} does not support ModelParallelStrategy: it averages a "
                "copy of the module, which has no shards; use ShardedEMA, which docs/scale.md shows"
            )


def refuse_simulated_agents(trainer: Trainer, setting: str, remedy: str) -> None:
    """Refuse a setting that clears the optimizer state if one module simulates several agents.

    Only the state of the agent that is currently loaded would be cleared.

    Args:
        trainer: The Trainer of the run.
        setting: The setting that clears the state, as the user wrote it.
        remedy: The setting to use instead.

    Raises:
        MisconfigurationException: The strategy is ``SimulatedDecentralizedStrategy``.
    """
    # The name instead of the class, so that the callbacks do not depend on the strategies.
    if getattr(trainer.strategy, "strategy_name", None) == "decentralized_simulated":
        raise MisconfigurationException(
            f"{setting} with SimulatedDecentralizedStrategy clears the optimizer state of one "
            f"agent only: {remedy}, or use strategy='decentralized'"
        )
