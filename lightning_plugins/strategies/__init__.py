"""Lightning strategies; importing this registers ``Trainer(strategy="decentralized")``."""

from lightning.pytorch.strategies import StrategyRegistry

from lightning_plugins.strategies.decentralized import DecentralizedStrategy
from lightning_plugins.strategies.ledger import CommLedger

__all__ = ["CommLedger", "DecentralizedStrategy"]

StrategyRegistry.register(
    "decentralized",
    DecentralizedStrategy,
    description="A model in each process; they gossip along random pairs and merge at the end",
    override=True,
)
