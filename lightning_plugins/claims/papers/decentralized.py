"""The claims on one final merge (Zhu et al., ICLR 2026, arXiv 2507.06542), on the digits."""

from lightning_plugins.claims.claim import Claim, Column, Paper
from lightning_plugins.claims.papers import decentralized_experiments as experiments
from lightning_plugins.claims.rules import Equivalence, Recovers, Superiority

_DIGITS = (
    "16 simulated agents (8 at smoke scale), 26k-parameter fully connected net, 1000 8x8 digits, "
    "Dirichlet 0.1, SGD 0.02 with momentum, a round every 20 steps"
)


def paper() -> Paper:
    """The paper's claims as measured on the digits."""
    return Paper(
        name="decentralized",
        title="On the Surprising Effectiveness of a Single Global Merging in Decentralized "
        "Learning",
        citation="Zhu, Zhang, Wang, Zhou, Wang; ICLR 2026; arXiv 2507.06542v4",
        experiments=(experiments.schedules(),),
        claims=(*_merge_claims(), *_window_claims()),
        columns=(
            Column("held_accuracy", "agents hold %", ".2f"),
            Column("local_accuracy", "before a merge %", ".2f"),
            Column("merged_accuracy", "their mean %", ".2f"),
            Column("megabytes", "MB an agent", ".2f"),
            Column("times_less_than_ddp", "less than DDP", ".0f"),
            Column("consensus_distance", "consensus distance", ".2f"),
            Column("seconds", "seconds", ".1f"),
        ),
        next_steps=(
            "lightning-plugins reproduce decentralized --scale cpu   (16 agents, 5 seeds; minutes)",
            "lightning-plugins fit --config decentralized/digits     (4 real processes)",
            "Trainer(devices=4, strategy='decentralized') on a module of yours",
        ),
    )


def _merge_claims() -> tuple[Claim, ...]:
    return (
        Claim(
            name="one merge improves agents that see different classes",
            statement="With little gossip, the mean of all agents is more accurate than the agents "
            "are on average.",
            paper_figure="significantly improved under high heterogeneity; no table was read",
            source="abstract of versions 2 to 4, which weakens version 1",
            experiment="schedules",
            rule=Superiority(
                "held_accuracy", arm="gossip, merged", over="gossip", direction="higher"
            ),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
        Claim(
            name="one merge recovers most of the gap to a server",
            statement="It recovers at least half of what averaging after each step gains over the "
            "agents before the merge.",
            paper_figure="as version 1's title had it: recovering server-based performance",
            source="abstract of version 1; weakened since",
            experiment="schedules",
            rule=Recovers(
                "held_accuracy",
                arm="gossip, merged",
                between=("gossip", "server"),
                share=0.5,
                direction="higher",
            ),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
        Claim(
            name="one merge matches a server",
            statement="The merged model is as accurate as averaging after each step makes it, "
            "within two percentage points.",
            paper_figure="sufficient to match server-based training",
            source="abstract of version 1; no longer claimed",
            experiment="schedules",
            rule=Equivalence("held_accuracy", arm="gossip, merged", to="server", margin=2.0),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
        Claim(
            name="little communication keeps agents mergeable, none does not",
            statement="The mean of agents that gossiped a little is more accurate than that of "
            "agents that never met.",
            paper_figure="limited but nonzero communication preserves mergeability",
            source="abstract; released code: a random pull with probability 0.2 a round",
            experiment="schedules",
            rule=Superiority(
                "merged_accuracy", arm="gossip", over="no communication", direction="higher"
            ),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
        Claim(
            name="and the bytes are better spent so than on rare averages",
            statement="Gossip with one merge is more accurate than averaging all agents now and "
            "then (local SGD) with at least as many bytes.",
            paper_figure="not compared there, as far as was read",
            source="our rival",
            experiment="schedules",
            rule=Superiority(
                "held_accuracy",
                arm="gossip, merged",
                over="local SGD, equal bytes",
                direction="higher",
            ),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
    )


def _window_claims() -> tuple[Claim, ...]:
    return tuple(
        Claim(
            name=name,
            statement=f"A dense window in the last tenth of the run beats one of equal cost early "
            f"and one in the middle, in {what}.",
            paper_figure="concentrating communication late is best; no table was read",
            source=source,
            experiment="schedules",
            rule=Superiority(
                metric,
                arm="late window",
                over="early window",
                rivals=("middle window",),
                direction="higher",
            ),
            in_paper_regime=False,
            regime=_DIGITS,
        )
        for name, metric, what, source in (
            (
                "a late window leaves better agents than an earlier one",
                "held_accuracy",
                "what the agents hold at the end",
                "abstract; its late window touches the end of the run, so this is nearly by design",
            ),
            (
                "a late window leaves a better mean than an earlier one",
                "merged_accuracy",
                "the mean of the agents at the end",
                "the same with a free merge for every window, which takes that advantage away",
            ),
        )
    )
