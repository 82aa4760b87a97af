"""The claims on leading users to a target (LLM-IPP, arXiv 2409.04827, and its baselines)."""

from lightning_plugins.claims.claim import Claim, Column, Experiment, Paper, Scale, claims_on
from lightning_plugins.claims.measurements.influence_paths import run_planner
from lightning_plugins.claims.rules import Equivalence, Superiority

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
_IPG, _IRS = "IPG, arXiv 2403.07571", "IRS, arXiv 2211.10002"
_UNSEEN = "we did not have the paper"
_NOT_CLAIMED = "not claimed in the paper"


def paper() -> Paper:
    """Return claims on influence, coherence and acceptance of planners, measured side by side."""
    return Paper(
        name="influence-paths",
        title="Leveraging LLMs for influence path planning in proactive recommendation",
        citation="Wang, Bi, Wang, Gao, Li, Feng; WWW 2025; arXiv 2409.04827",
        experiments=_experiments(),
        claims=(*_influence_claims(), *_coherence_claims(), *_choice_claims(), *_model_claims()),
        columns=(
            Column("IoI gru4rec", "interest +nats", ".2f"),
            Column("IoI sasrec", "by SASRec", ".2f"),
            Column("IoR gru4rec", "places risen", ".0f"),
            Column("logP gru4rec", "log P of an item", ".2f"),
            Column("genres", "shared genres", ".3f"),
            Column("together", "taken together", ".3f"),
            Column("variety", "variety", ".3f"),
            Column("taken", "taken", ".2f"),
            Column("target", "target taken", ".2f"),
            Column("reached", "reached unaided", ".2f"),
        ),
        next_steps=(
            "lightning-plugins reproduce influence-paths --scale cpu  (3 seeds; half an hour)",
            "lightning-plugins predict --config influence_paths/tiny  (one run, with its table)",
            "planners={'mine': LanguageModel(ChatServer(...))} for your own language model",
        ),
    )


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


def _higher(metric: str, arm: str, over: str, *rivals: str) -> Superiority:
    effect = {"IoI": 0.3, "logP": 0.3, "genres": 0.05, "taken": 0.05}[metric.split()[0]]
    return Superiority(metric, arm, over, "higher", rivals, effect)


_FOLLOWED = (
    f"MovieLens-100k, {_USERS} users, paths of 10 films, GRU4Rec as an evaluator that no planner "
    "uses"
)


def _influence_claims() -> tuple[Claim, ...]:
    return claims_on(
        "followed",
        _FOLLOWED,
        (
            "IPG moves users",
            "Its paths raise the interest in the target more than paths without a target.",
            _higher("IoI gru4rec", "ipg", "next item", "random", "popular"),
            _UNSEEN,
            _IPG,
        ),
        (
            "IRN moves users",
            "The same for a network that is trained to lead to an objective.",
            _higher("IoI gru4rec", "irn", "next item", "random", "popular"),
            _UNSEEN,
            _IRS,
        ),
        (
            "IRN's paths are likelier than IPG's",
            "An item on a path of IRN has a higher probability, given the items before it.",
            _higher("logP gru4rec", "irn", "ipg"),
            "acceptance .840, the best of the baselines, as cited by ProRL for ML-1M",
            _IRS,
        ),
        (
            "aim costs acceptability",
            "An item that the backbone predicts without regard to the target has a higher "
            "probability than an item on a path of IPG.",
            _higher("logP gru4rec", "next item", "ipg"),
            _NOT_CLAIMED,
            "our control",
        ),
        ours=("aim costs acceptability",),
    )


def _coherence_claims() -> tuple[Claim, ...]:
    return claims_on(
        "followed",
        _FOLLOWED,
        (
            "words make paths coherent",
            "Neighbours on paths planned by the words of titles and genres, as a language model "
            "might plan them, share more genres than on the paths of IPG and IRN. No language "
            "model is used.",
            _higher("genres", "text", "ipg", "irn"),
            "relatedness .671 against .437 of IRS on Last.FM, judged by Llama 3",
            "arXiv 2409.04827, saved outputs of the authors' notebooks; a different measure, and "
            "words of genres share genres nearly by design",
        ),
        (
            "but do not move users as far",
            "IPG's paths raise the interest more than paths planned by words.",
            _higher("IoI gru4rec", "ipg", "text"),
            _NOT_CLAIMED,
            "our control",
        ),
        (
            "words within a shortlist are more coherent than IPG",
            "On paths chosen by words and embeddings among the backbone's top 200, neighbours "
            "share more genres.",
            _higher("genres", "text of 200", "ipg"),
            _NOT_CLAIMED,
            "ours",
        ),
        (
            "and move users as far",
            "Its paths raise the interest as much as those of IPG, within 0.3 nats.",
            Equivalence("IoI gru4rec", "text of 200", "ipg", margin=0.3),
            _NOT_CLAIMED,
            "ours",
        ),
        ours=(
            "but do not move users as far",
            "words within a shortlist are more coherent than IPG",
            "and move users as far",
        ),
    )


def _choice_claims() -> tuple[Claim, ...]:
    return claims_on(
        "chosen",
        f"MovieLens-100k, {_USERS} users, paths of 10 films; a user takes an item if GRU4Rec ranks "
        "it among its first 20; the evaluator is a SASRec of another seed than the planners'",
        (
            "users who may refuse are moved less",
            "If users take only likely items, they take fewer of IPG's recommendations than of a "
            "recommender without a target.",
            _higher("taken", "next item", "ipg"),
            _NOT_CLAIMED,
            "our control",
        ),
        (
            "and still in the target's direction",
            "Their interest in the target grows more with IPG than without a target.",
            _higher("IoI sasrec", "ipg", "next item", "popular"),
            _UNSEEN,
            _IPG,
        ),
        ours=("users who may refuse are moved less",),
    )


def _model_claims() -> tuple[Claim, ...]:
    return claims_on(
        "language model",
        f"MovieLens-100k, {_LANGUAGE_MODEL_USERS} users, SmolLM2-135M decoded greedily over the "
        "catalogue",
        (
            "a small language model's paths are more coherent than IRN's",
            "Neighbours on paths that SmolLM2 writes share more genres.",
            _higher("genres", "SmolLM2, trie", "irn", "random"),
            "relatedness .671 against .437 of IRS on Last.FM, GPT-3.5 judged by Llama 3",
            "arXiv 2409.04827, saved outputs of the authors' notebooks; a different measure",
        ),
        (
            "and move users further than random items",
            "They raise the interest in the target more.",
            _higher("IoI gru4rec", "SmolLM2, trie", "random"),
            "IoR 662.5 on ML-1M, the best of the baselines, as cited by ProRL",
            "arXiv 2409.04827, second hand",
        ),
    )
