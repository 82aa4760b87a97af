"""The claims on leading users to a target (LLM-IPP, arXiv 2409.04827, and its baselines)."""

from lightning_plugins.claims.claim import Experiment, Paper, Scale
from lightning_plugins.claims.claim_tables import read_paper
from lightning_plugins.claims.measurements.influence_paths import run_planner

_PLANNERS = (
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
_USERS, _LANGUAGE_MODEL_USERS = 200, 24


def paper() -> Paper:
    """Return claims on influence, coherence and acceptance of planners, measured side by side."""
    return read_paper(__file__, *_experiments())


def _experiments() -> tuple[Experiment, ...]:
    """All planners; users who may refuse; a language model; the authors' users and prompts.

    In "followed" every recommendation is taken, as in the papers. In "chosen" a user takes what an
    evaluator ranks among its first 20, and only those items count. "language model" has fewer
    users, because SmolLM2 with 135M parameters is slow. The paper's settings need a language model
    behind your own server.
    """
    followed = {name: {"planner": name} for name in _PLANNERS}
    choosing = ("popular", "next item", "rec2inf", "ipg", "text", "text of 200")
    chosen = {name: {"planner": name, "accepted_rank": 20} for name in choosing}
    models = {"random": "random", "irn": "irn", "ipg": "ipg", "SmolLM2, trie": "smollm2"}
    model_arms = {arm: {"planner": name} for arm, name in models.items()}
    published = {"LLM-IPP": {"command": "predict", "recipe": "influence_paths/ml1m"}}
    smoke = Scale(
        seeds=(0, 1),
        overrides={"users": 20, "epochs": 1},
        only=("random", "popular", "next item", "ipg"),
    )
    cpu = Scale(_SEEDS, overrides={"users": _USERS, "epochs": 40})
    few_users = Scale(_SEEDS, overrides={"users": _LANGUAGE_MODEL_USERS, "epochs": 40})
    return (
        Experiment("followed", followed, {"cpu": cpu, "smoke": smoke}, run_planner),
        Experiment("chosen", chosen, {"cpu": cpu}, run_planner),
        Experiment("language model", model_arms, {"cpu": few_users}, run_planner),
        Experiment("the paper's settings", published, {"paper": Scale(_SEEDS)}, run_planner),
    )
