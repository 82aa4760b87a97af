"""The experiments behind the claims on influence paths: their arms and scales."""

from typing import Any

from lightning_plugins.claims.claim import Experiment, Scale
from lightning_plugins.claims.measurements.influence_paths import run_planner

PLANNERS = (
    "random",
    "popular",
    "next item",
    "rec2inf",
    "walk",
    "irn",
    "ipg",
    "text",
    "text of 200",
)
_SEEDS = (0, 1, 2)
_SMOKE = Scale(
    seeds=(0, 1),
    overrides={"users": 20, "epochs": 1},
    only=("random", "popular", "next item", "ipg"),
)


def followed() -> Experiment:
    """Every recommendation is taken, as in the papers."""
    return _experiment("followed", {name: {"planner": name} for name in PLANNERS}, _SMOKE)


def chosen() -> Experiment:
    """A user takes what an evaluator ranks among its first 20, and only that counts."""
    names = ("popular", "next item", "rec2inf", "ipg", "text", "text of 200")
    return _experiment(
        "chosen", {name: {"planner": name, "accepted_rank": 20} for name in names}, None
    )


def language_model() -> Experiment:
    """A language model of 135M parameters, on fewer users since it is slow."""
    names = {"random": "random", "irn": "irn", "ipg": "ipg", "SmolLM2, trie": "smollm2"}
    return _experiment(
        "language model", {arm: {"planner": name} for arm, name in names.items()}, None, users=24
    )


def published_settings() -> Experiment:
    """The authors' users and prompts, with a language model behind a server of yours."""
    arms = {"LLM-IPP": {"command": "predict", "recipe": "influence_paths/ml1m"}}
    return Experiment("the paper's settings", arms, {"paper": Scale(seeds=_SEEDS)}, run_planner)


def _experiment(
    name: str, arms: dict[str, dict[str, Any]], smoke: Scale | None, users: int = 200
) -> Experiment:
    scales = {"cpu": Scale(seeds=_SEEDS, overrides={"users": users, "epochs": 40})}
    if smoke is not None:
        scales["smoke"] = smoke
    return Experiment(name, arms, scales, run_planner)
