"""The claims on SCRN (arXiv 2406.01179, ACL 2024): how robust are detectors of AI text?"""

from lightning_plugins.claims.claim import Claim, Column, Overview, Paper
from lightning_plugins.claims.papers import ai_text_experiments as experiments
from lightning_plugins.claims.rules import Equivalence, Superiority

_REGIME = (
    "one layer of MiniLM, 6 epochs on 600 texts of 40 words, SmolLM2-135M against prose of plays "
    "and manuals; 100 AI texts a seed, DeepWordBug and TextBugger on at most a quarter of the words"
)
_ABSTRACT = "abstract: 6.5 to 18.25 points more accuracy under attack than the best baseline"
_RELEASED = "the released code draws noise when it scores; not told apart there"


def paper() -> Paper:
    """The paper's claim, and what is left of it where noise cannot mislead the search."""
    return Paper(
        name="ai-text",
        title="Are AI-generated text detectors robust to adversarial perturbations?",
        citation="SCRN; ACL 2024; arXiv 2406.01179",
        experiments=(
            experiments.robustness(),
            experiments.settings(),
            experiments.published_settings(),
        ),
        claims=(*_robustness_claims(), *_clean_claims()),
        columns=(
            Column("clean_accuracy", "clean accuracy %", ".1f"),
            Column("aua", "AUA %", ".1f"),
            Column("aua_deep_word_bug", "AUA DeepWordBug %", ".1f"),
            Column("aua_text_bugger", "AUA TextBugger %", ".1f"),
            Column("fresh", "asked again %", ".1f"),
            Column("queries", "queries", ".1f"),
            Column("auroc", "AUROC", ".3f"),
            Column("tpr", "found, clean %", ".1f"),
            Column("fpr", "wrongly accused %", ".1f"),
            Column("calibration_error", "ECE %", ".1f"),
        ),
        next_steps=(
            "lightning-plugins reproduce ai-text --scale cpu   (3 seeds, every method)",
            "lightning-plugins fit --config ai_text/tiny       (one detector, minutes)",
            "lightning-plugins predict --config ai_text/tiny --ckpt_path last.ckpt "
            "--data.predict_path FILE",
        ),
        overview=Overview(
            experiment="robustness",
            metric="aua",
            title="Accuracy under attack, with noise off, on, sampled, and attacked in expectation",
            caption="AUA: AI texts of which a greedy search found no change that is called human, "
            "at a threshold set where 5 % of the people of the validation part are accused. Mean "
            "of both attacks and its 95 % interval over seeds; each seed has a test part of its "
            "own. Methods without noise answer alike in all ways and have one row.",
            conclusions=tuple(claim.name for claim in _robustness_claims()),
        ),
    )


def _robustness_claims() -> tuple[Claim, ...]:
    return (
        _harder(
            "as released, SCRN is harder to attack than plain fine-tuning",
            "With a fresh draw of noise in every answer, SCRN keeps more accuracy under attack.",
            "SCRN, noise on",
            "plain",
            _ABSTRACT,
        ),
        _harder(
            "and harder than every rival",
            "The same against R-Drop, Flooding, and RanMask with noise on.",
            "SCRN, noise on",
            "R-Drop",
            _ABSTRACT,
            rivals=("Flooding", "RanMask, noise on"),
        ),
        _harder(
            "with its noise off, SCRN is still harder to attack than plain fine-tuning",
            "Where the mean is decoded, nothing misleads the search but what was learned.",
            "SCRN, noise off",
            "plain",
            _RELEASED,
        ),
        _harder(
            "against an attack in expectation too",
            "Where the search climbs the mean of three draws to half of the threshold, and what "
            "it found is judged by fresh ones.",
            "SCRN, EOT",
            "plain",
            _RELEASED,
        ),
        _harder(
            "drawing noise when scoring adds robustness",
            "SCRN keeps more accuracy under attack with its noise on than with it off.",
            "SCRN, noise on",
            "SCRN, noise off",
            _RELEASED,
        ),
        _harder(
            "more than an attack in expectation takes away",
            "What noise adds is still there when the search climbs the mean of three draws.",
            "SCRN, EOT",
            "SCRN, noise off",
            _RELEASED,
        ),
        _harder(
            "reconstruction adds what R-Drop does not have",
            "Without noise, SCRN keeps more accuracy under attack than R-Drop, which lacks its "
            "reconstruction network.",
            "SCRN, noise off",
            "R-Drop",
            "an ablation is in the paper; its table was not read",
        ),
    )


def _harder(
    name: str, statement: str, arm: str, over: str, figure: str, rivals: tuple[str, ...] = ()
) -> Claim:
    return Claim(
        name=name,
        statement=statement,
        paper_figure=figure,
        source="abstract and released code",
        experiment="robustness",
        rule=Superiority("aua", arm=arm, over=over, direction="higher", rivals=rivals),
        in_paper_regime=False,
        regime=_REGIME,
    )


def _clean_claims() -> tuple[Claim, ...]:
    return (
        Claim(
            name="robustness costs no clean accuracy",
            statement="On texts that nobody changed SCRN without noise is as accurate as plain "
            "fine-tuning, within three points.",
            paper_figure="not read",
            source="ours",
            experiment="robustness",
            rule=Equivalence("clean_accuracy", arm="SCRN, noise off", to="plain", margin=3.0),
            in_paper_regime=False,
            regime=_REGIME,
        ),
        Claim(
            name="SCRN carries over to another domain",
            statement="Trained on manuals, SCRN tells plays apart better than plain fine-tuning.",
            paper_figure="cross-domain is one of the paper's four settings; its table was not read",
            source="section on settings, second-hand",
            experiment="settings",
            rule=Superiority(
                "auroc",
                arm="the other domain, SCRN",
                over="the other domain, plain",
                direction="higher",
            ),
            in_paper_regime=False,
            regime=_REGIME,
        ),
    )
