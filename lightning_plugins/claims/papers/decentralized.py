"""The claims on one final merge (Zhu et al., ICLR 2026, arXiv 2507.06542), on the digits."""

from typing import Any

from lightning_plugins.claims.claim import Claim, Column, Experiment, Paper, Scale, claims_on
from lightning_plugins.claims.measurements.decentralized import run_schedules
from lightning_plugins.claims.rules import Equivalence, Recovers, Superiority

_SEEDS = (0, 1, 2, 3, 4)
_REGIME = (
    "16 simulated agents (8 at smoke scale), 26k-parameter fully connected net, 1000 8x8 digits, "
    "Dirichlet 0.1, SGD 0.02 with momentum, a round every 20 steps"
)


def paper() -> Paper:
    """Return the paper's claims, measured on the digits."""
    return Paper(
        name="decentralized",
        title="On the Surprising Effectiveness of a Single Global Merging in Decentralized "
        "Learning",
        citation="Zhu, Zhang, Wang, Zhou, Wang; ICLR 2026; arXiv 2507.06542v4",
        experiments=(_schedules(),),
        claims=_claims(),
        columns=(
            Column("held_accuracy", "agents' models %", ".2f"),
            Column("local_accuracy", "before a merge %", ".2f"),
            Column("merged_accuracy", "mean of weights %", ".2f"),
            Column("megabytes", "MB per agent", ".2f"),
            Column("times_less_than_ddp", "times less than DDP", ".0f"),
            Column("consensus_distance", "consensus distance", ".2f"),
            Column("seconds", "seconds", ".1f"),
        ),
        next_steps=(
            "lightning-plugins reproduce decentralized --scale cpu   (16 agents, 5 seeds; minutes)",
            "lightning-plugins fit --config decentralized/digits     (4 real processes)",
            "Trainer(devices=4, strategy='decentralized') with your own module",
        ),
    )


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
        "smoke": Scale(seeds=(0, 1, 2), overrides={"agents": 8, "rounds": 40}),
        "cpu": Scale(_SEEDS),
        "paper": Scale(_SEEDS, only=tuple(published), arms=published),
    }
    return Experiment("schedules", arms, scales, run_schedules)


_POINTS = 2.0


def _claims() -> tuple[Claim, ...]:
    merged = "gossip, merged"
    late, early, middle = "late window", "early window", ("middle window",)
    dense_window = (
        "A dense window in the last tenth of the run beats a window of equal cost early in the run "
        "and one in the middle, in"
    )
    return claims_on(
        "schedules",
        _REGIME,
        (
            "one merge improves agents that see different classes",
            "With little gossip, the mean of all agents' weights is more accurate than the agents "
            "are on average.",
            Superiority("held_accuracy", merged, "gossip", "higher", (), _POINTS),
            "significantly improved under high heterogeneity; we read no table",
            "abstract of versions 2 to 4, which weakens version 1",
        ),
        (
            "one merge recovers most of the gap to a server",
            "It recovers at least half of the accuracy that averaging after each step gains over "
            "the agents before the merge.",
            Recovers("held_accuracy", merged, ("gossip", "server"), 0.5, "higher"),
            "title of version 1: recovering server-based performance",
            "abstract of version 1; weakened since",
        ),
        (
            "one merge matches a server",
            "The merged model is as accurate as the model that is averaged after each step, within "
            "two percentage points.",
            Equivalence("held_accuracy", merged, "server", margin=_POINTS),
            "sufficient to match server-based training",
            "abstract of version 1; no longer claimed",
        ),
        (
            "little communication keeps agents mergeable, none does not",
            "The mean of agents with a little gossip is more accurate than the mean of agents that "
            "never communicate.",
            Superiority("merged_accuracy", "gossip", "no communication", "higher", (), _POINTS),
            "limited but nonzero communication preserves mergeability",
            "abstract; released code: a random pull with probability 0.2 per round",
        ),
        (
            "and the bytes are better spent so than on rare averages",
            "Gossip with one merge is more accurate than averaging all agents at long intervals "
            "(local SGD) with at least as many bytes.",
            Superiority("held_accuracy", merged, "local SGD, equal bytes", "higher", (), _POINTS),
            "not compared in the parts of the paper that we read",
            "our rival",
        ),
        (
            "a late window leaves better agents than an earlier one",
            f"{dense_window} the accuracy of the agents' final models.",
            Superiority("held_accuracy", late, early, "higher", middle, _POINTS),
            "concentrating communication late is best; we read no table",
            "abstract; the late window extends to the end of the run, so this holds nearly by "
            "design",
        ),
        (
            "a late window leaves a better mean than an earlier one",
            f"{dense_window} the accuracy of the mean of their final weights.",
            Superiority("merged_accuracy", late, early, "higher", middle, _POINTS),
            "concentrating communication late is best; we read no table",
            "the same with a free merge for every window, which removes that advantage",
        ),
        ours=("and the bytes are better spent so than on rare averages",),
    )
