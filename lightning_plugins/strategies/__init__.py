"""Lightning strategies; importing this registers ``Trainer(strategy="decentralized")``."""

from lightning.pytorch.strategies import StrategyRegistry

from lightning_plugins.strategies.decentralized import DecentralizedStrategy
from lightning_plugins.strategies.decentralized_simulated import SimulatedDecentralizedStrategy
from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.simulate import Simulated, simulate

__all__ = [
    "CommLedger",
    "DecentralizedStrategy",
    "Simulated",
    "SimulatedDecentralizedStrategy",
    "simulate",
]

StrategyRegistry.register(
    "decentralized",
    DecentralizedStrategy,
    description="A model in each process; they gossip along random pairs and merge at the end",
    override=True,
)
StrategyRegistry.register(
    "decentralized_simulated",
    SimulatedDecentralizedStrategy,
    description="16 agents take turns in one process",
    override=True,
)
