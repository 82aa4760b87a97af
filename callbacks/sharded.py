"""Strategies that leave no rank with all of the parameters."""

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

_SHARDED = ("FSDP", "DeepSpeed", "ModelParallel", "XLA")


def refuse_sharded(trainer: Trainer, callback: Callback) -> None:
    """Refuse strategies under which the bare module cannot be used on one rank.

    Raises:
        MisconfigurationException: such a strategy.
    """
    strategy = type(trainer.strategy).__name__
    if strategy.startswith(_SHARDED):
        raise MisconfigurationException(
            f"{type(callback).__name__} does not support {strategy}: it needs whole parameters and "
            "gradients on each rank; use strategy='ddp' or a single device"
        )
