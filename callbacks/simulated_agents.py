"""The strategy under which one module is all agents in turn."""

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins.strategies.decentralized_simulated import SimulatedDecentralizedStrategy


def refuse_simulated_agents(trainer: Trainer, setting: str, remedy: str) -> None:
    """Refuse to clear an optimizer's state where it is that of the agent whose turn it is.

    Args:
        trainer: of the run.
        setting: what clears the state, as the user wrote it.
        remedy: what to set instead.

    Raises:
        MisconfigurationException: simulated agents.
    """
    if isinstance(trainer.strategy, SimulatedDecentralizedStrategy):
        raise MisconfigurationException(
            f"{setting} with SimulatedDecentralizedStrategy clears the optimizer state of one "
            f"agent and not of the others: {remedy}, or take strategy='decentralized'"
        )
