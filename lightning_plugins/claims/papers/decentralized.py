"""The claims on one final merge (Zhu et al., ICLR 2026, arXiv 2507.06542), on the digits."""

from typing import Any

from lightning_plugins.claims.claim import Experiment, Paper, Scale
from lightning_plugins.claims.claim_tables import read_paper
from lightning_plugins.claims.measurements.decentralized import run_schedules

_SEEDS = (0, 1, 2, 3, 4)


def paper() -> Paper:
    """Return the paper's claims, measured on the digits."""
    return read_paper(__file__, _schedules())


def _schedules() -> Experiment:
    """Communication schedules, from no communication to averaging after each step."""
    gossip = {"topology": "pull", "rate": 1.0}
    window = {"shape": "window", "topology": "pull", "end_rate": 1.0, "width": 0.1}
    arms: dict[str, dict[str, Any]] = {
        "no communication": {"topology": "pull", "rate": 0.0},
        "gossip": gossip,
        "gossip, merged": {**gossip, "final_merge": True},
        "early window": {**window, "start": 0.1},
        "middle window": {**window, "start": 0.5},
        "late window": {**window, "start": 0.9},
        "linear": {"shape": "linear", "topology": "pull", "rate": 0.0, "end_rate": 1.0},
        "local SGD, equal bytes": {"topology": "complete", "budget_of": "gossip, merged"},
        "local SGD": {"topology": "complete", "rate": 1.0},
        "server": {"topology": "complete", "each_step": True},
    }
    published = {
        "gossip, merged": {"recipe": "decentralized/imagenet200_resnet18"},
        "late window": {"recipe": "decentralized/imagenet200_resnet18_late_window"},
    }
    scales = {
        "smoke": Scale(seeds=(0, 1), overrides={"agents": 8, "rounds": 20}),
        "cpu": Scale(_SEEDS),
        "paper": Scale(_SEEDS, only=tuple(published), arms=published),
    }
    return Experiment("schedules", arms, scales, run_schedules)
