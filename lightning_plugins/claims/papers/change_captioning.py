"""The claims on CCExpert, change captioning (Wang et al., arXiv 2411.11360)."""

from lightning_plugins.claims.claim import Claim, Column, Paper
from lightning_plugins.claims.papers import change_captioning_experiments as experiments
from lightning_plugins.claims.rules import Superiority

_REGIME = (
    "0.4M parameters pre-trained on made-up tiles for a minute, 600 steps of 32 pairs (20 from "
    "random weights at smoke scale), 200 test pairs"
)


def paper() -> Paper:
    """The paper's module and stages, measured on synthetic tiles."""
    return Paper(
        name="change-captioning",
        title="CCExpert: a difference-aware module in a multimodal language model",
        citation="Wang et al.; arXiv 2411.11360",
        experiments=(experiments.tiles(),),
        claims=(*(_module_claim(*one) for one in _SCORES), _stages_claim()),
        columns=(
            Column("s_m", "S*_m", ".1f"),
            Column("changed_s_m", "S*_m of changed pairs", ".1f"),
            Column("change_accuracy", "change / no change %", ".1f"),
            Column("bleu_4", "BLEU-4", ".1f"),
            Column("rouge_l", "ROUGE-L", ".1f"),
            Column("cider_d", "CIDEr-D", ".1f"),
            Column("parameters", "parameters", ".0f"),
            Column("steps", "steps", ".0f"),
        ),
        next_steps=(
            "lightning-plugins reproduce change-captioning --scale cpu  (3 seeds, every control)",
            "lightning-plugins fit --config change_captioning/tiny       (one run, with pictures)",
            "lightning-plugins fit --config ccexpert/levir_cc_05b        (LEVIR-CC and weights)",
        ),
    )


_SCORES = (
    ("the module describes changes better", "s_m", "S*_m is higher"),
    ("where something did change, too", "changed_s_m", "S*_m over changed pairs alone is higher"),
    (
        "and tells whether anything changed",
        "change_accuracy",
        "change is told from none better",
    ),
)


def _module_claim(name: str, metric: str, statement: str) -> Claim:
    return Claim(
        name=name,
        statement=f"With the difference module, {statement} than without it, and than with the "
        "same module that is given each image alone.",
        paper_figure="LEVIR-CC: S*_m 80.99 with it; its ablation was not at hand",
        source="released code's table; the control is ours",
        experiment="tiles",
        rule=Superiority(
            metric,
            arm=experiments.MODULE,
            over=experiments.PLAIN,
            direction="higher",
            rivals=(experiments.CONTROL,),
        ),
        in_paper_regime=False,
        regime=_REGIME,
    )


def _stages_claim() -> Claim:
    return Claim(
        name="three stages beat direct fine-tuning",
        statement="The module and the projector first, then everything on every caption, then "
        "everything on a random one, reach a higher S*_m than everything from the first step.",
        paper_figure="three stages are proposed, the first two on 200,000 other pairs",
        source="section on training; that all stages have one data set here is ours",
        experiment="tiles",
        rule=Superiority(
            "s_m", arm=experiments.MODULE, over=experiments.DIRECT, direction="higher"
        ),
        in_paper_regime=False,
        regime=_REGIME,
    )
