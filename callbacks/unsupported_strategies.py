"""Errors for strategies that a callback does not support."""

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

_SHARDED = ("FSDP", "DeepSpeed", "ModelParallel", "XLA")


def refuse_sharded(trainer: Trainer, callback: Callback) -> None:
    """Refuse strategies that do not keep all parameters and gradients on each rank.

    Raises:
        MisconfigurationException: The strategy shards the parameters.
    """
    strategy = type(trainer.strategy).__name__
    if strategy.startswith(_SHARDED):
        raise MisconfigurationException(
            f"{type(callback).__name__} does not support {strategy}: it needs whole parameters and "
            "gradients on each rank; use strategy='ddp' or a single device"
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
    # Imported here, so that the other callbacks do not load the strategies.
    from lightning_plugins.strategies.decentralized_simulated import SimulatedDecentralizedStrategy

    if isinstance(trainer.strategy, SimulatedDecentralizedStrategy):
        raise MisconfigurationException(
            f"{setting} with SimulatedDecentralizedStrategy clears the optimizer state of one "
            f"agent only: {remedy}, or use strategy='decentralized'"
        )
