"""Lightning strategies; importing this registers ``Trainer(strategy="decentralized")``."""

import sys
from typing import TYPE_CHECKING, Any

from lightning.pytorch.strategies import StrategyRegistry

from lightning_plugins._lazy import lazy_exports
from lightning_plugins.strategies.import_roots import when_imported

if TYPE_CHECKING:
    from .decentralized import DecentralizedStrategy as DecentralizedStrategy
    from .decentralized_simulated import (
        SimulatedDecentralizedStrategy as SimulatedDecentralizedStrategy,
    )
    from .ledger import CommLedger as CommLedger
    from .simulation import Simulated as Simulated
    from .simulation import simulate as simulate
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "CommLedger": "ledger",
            "DecentralizedStrategy": "decentralized",
            "Simulated": "simulation",
            "SimulatedDecentralizedStrategy": "decentralized_simulated",
            "simulate": "simulation",
        },
    )


def _decentralized() -> "DecentralizedStrategy":
    from lightning_plugins.strategies.decentralized import DecentralizedStrategy

    return DecentralizedStrategy()


def _simulated() -> "SimulatedDecentralizedStrategy":
    from lightning_plugins.strategies.decentralized_simulated import SimulatedDecentralizedStrategy

    return SimulatedDecentralizedStrategy()


def _register(registry: Any) -> None:
    registry.register(
        "decentralized",
        _decentralized,
        description="One model per process; processes gossip in random pairs and merge at the end",
        override=True,
    )
    registry.register(
        "decentralized_simulated",
        _simulated,
        description="16 agents take turns in one process",
        override=True,
    )


def _register_in_other_root() -> None:
    _register(sys.modules["pytorch_lightning.strategies"].StrategyRegistry)


_register(StrategyRegistry)
when_imported("pytorch_lightning.strategies", _register_in_other_root)
