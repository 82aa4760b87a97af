"""The claims on leading users to a target (LLM-IPP, arXiv 2409.04827, and its baselines)."""

from typing import Any

from lightning_plugins.claims.claim import Claim, Column, Paper
from lightning_plugins.claims.papers import influence_paths_experiments as experiments
from lightning_plugins.claims.rules import Equivalence, Superiority

_REGIME = (
    "MovieLens-100k, 200 users, paths of 10 films, GRU4Rec as evaluator that no planner has seen"
)
_LM_REGIME = "MovieLens-100k, 24 users, SmolLM2-135M decoded greedily over the catalogue"
_UNSEEN = "not at hand"


def paper() -> Paper:
    """Influence, coherence and acceptance of planners, measured side by side."""
    return Paper(
        name="influence-paths",
        title="Leveraging LLMs for influence path planning in proactive recommendation",
        citation="Wang, Bi, Wang, Gao, Li, Feng; WWW 2025; arXiv 2409.04827",
        experiments=(
            experiments.followed(),
            experiments.chosen(),
            experiments.language_model(),
            experiments.published_settings(),
        ),
        claims=(*_influence_claims(), *_coherence_claims(), *_choice_claims(), *_model_claims()),
        columns=(
            Column("IoI gru4rec", "interest +nats", ".2f"),
            Column("IoI sasrec", "by SASRec", ".2f"),
            Column("IoR gru4rec", "places risen", ".0f"),
            Column("logP gru4rec", "log P of an item", ".2f"),
            Column("genres", "genres alike", ".3f"),
            Column("together", "taken together", ".3f"),
            Column("variety", "variety", ".3f"),
            Column("taken", "taken", ".2f"),
            Column("target", "target taken", ".2f"),
            Column("reached", "reached unaided", ".2f"),
        ),
        next_steps=(
            "lightning-plugins reproduce influence-paths --scale cpu  (3 seeds; half an hour)",
            "lightning-plugins predict --config influence_paths/tiny  (one run, with its table)",
            "planners={'mine': LanguageModel(ChatServer(...))} for a language model of yours",
        ),
    )


def _better(
    name: str,
    statement: str,
    metric: str,
    arm: str,
    over: str,
    figure: str,
    source: str,
    experiment: str = "followed",
    rivals: tuple[str, ...] = (),
    regime: str = _REGIME,
) -> Claim:
    return Claim(
        name=name,
        statement=statement,
        paper_figure=figure,
        source=source,
        experiment=experiment,
        rule=Superiority(metric, arm=arm, over=over, direction="higher", rivals=rivals),
        in_paper_regime=False,
        regime=regime,
    )


def _influence_claims() -> tuple[Claim, ...]:
    aimless: dict[str, Any] = {"over": "next item", "rivals": ("random", "popular")}
    ipg, irs = "IPG, arXiv 2403.07571", "IRS, arXiv 2211.10002"
    return (
        _better(
            "IPG moves users",
            "Its paths raise the interest in the target more than paths without an aim.",
            "IoI gru4rec",
            "ipg",
            figure=_UNSEEN,
            source=ipg,
            **aimless,
        ),
        _better(
            "IRN moves users",
            "The same for a network trained to lead to an objective.",
            "IoI gru4rec",
            "irn",
            figure=_UNSEEN,
            source=irs,
            **aimless,
        ),
        _better(
            "IRN's paths are likelier than IPG's",
            "An item on IRN's paths has a higher probability when it comes.",
            "logP gru4rec",
            "irn",
            "ipg",
            "acceptance .840, the best of the baselines, as cited by ProRL for ML-1M",
            irs,
        ),
        _better(
            "aim costs acceptability",
            "An item that the backbone expects, whatever the target, has a higher probability "
            "than one on IPG's paths.",
            "logP gru4rec",
            "next item",
            "ipg",
            "not claimed there",
            "our control",
        ),
    )


def _coherence_claims() -> tuple[Claim, ...]:
    related = "relatedness .671 against .437 of IRS on Last.FM, judged by Llama 3"
    return (
        _better(
            "words make paths coherent",
            "Neighbours on paths planned by the words of titles and genres, as a language model "
            "might, share more genres than on IPG's and IRN's. No language model is asked.",
            "genres",
            "text",
            "ipg",
            related,
            "arXiv 2409.04827, saved outputs of the authors' notebooks",
            rivals=("irn",),
        ),
        _better(
            "but do not move users as far",
            "IPG's paths raise the interest more than those planned by words.",
            "IoI gru4rec",
            "ipg",
            "text",
            "not claimed there",
            "our control",
        ),
        _better(
            "words within a shortlist are more coherent than IPG",
            "Choosing by words and embeddings among the backbone's 200 best shares more genres.",
            "genres",
            "text of 200",
            "ipg",
            "not claimed there",
            "ours",
        ),
        Claim(
            name="and move users as far",
            statement="Its paths raise the interest as much as IPG's, within 0.3 nats.",
            paper_figure="not claimed there",
            source="ours",
            experiment="followed",
            rule=Equivalence("IoI gru4rec", arm="text of 200", to="ipg", margin=0.3),
            in_paper_regime=False,
            regime=_REGIME,
        ),
    )


def _choice_claims() -> tuple[Claim, ...]:
    regime = (
        "MovieLens-100k, 200 users, paths of 10 films; a user takes what GRU4Rec ranks among its "
        "first 20, and SASRec of another seed than the planners' evaluates"
    )
    return (
        _better(
            "users who may refuse are moved less",
            "Where users take only what is likely, fewer of IPG's recommendations are taken than "
            "of a recommender without an aim.",
            "taken",
            "next item",
            "ipg",
            "not claimed there",
            "our control",
            experiment="chosen",
            regime=regime,
        ),
        _better(
            "and still in the target's direction",
            "Their interest in the target grows more by IPG than without an aim.",
            "IoI sasrec",
            "ipg",
            "next item",
            _UNSEEN,
            "IPG, arXiv 2403.07571",
            experiment="chosen",
            rivals=("popular",),
            regime=regime,
        ),
    )


def _model_claims() -> tuple[Claim, ...]:
    return (
        _better(
            "a small language model's paths are more coherent than IRN's",
            "Neighbours on paths that SmolLM2 writes share more genres.",
            "genres",
            "SmolLM2, trie",
            "irn",
            "relatedness .671 against .437 of IRS on Last.FM, GPT-3.5 judged by Llama 3",
            "arXiv 2409.04827, saved outputs of the authors' notebooks",
            experiment="language model",
            rivals=("random",),
            regime=_LM_REGIME,
        ),
        _better(
            "and move users further than random items",
            "They raise the interest in the target more.",
            "IoI gru4rec",
            "SmolLM2, trie",
            "random",
            "IoR 662.5 on ML-1M, the best of the baselines, as cited by ProRL",
            "arXiv 2409.04827, second hand",
            experiment="language model",
            regime=_LM_REGIME,
        ),
    )
