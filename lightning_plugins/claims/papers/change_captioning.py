"""The claims on CCExpert, change captioning (Wang et al., arXiv 2411.11360)."""

from typing import Any

from lightning_plugins.claims.claim import Claim, Column, Experiment, Paper, Scale, claims_on
from lightning_plugins.claims.measurements.change_captioning import run_captioner
from lightning_plugins.claims.rules import Superiority

MODULE, CONTROL, PLAIN = "difference module", "each image alone", "no module"
DIRECT = "module, direct fine-tuning"
_SEEDS = (0, 1, 2)
_REGIME = (
    "0.4M parameters pre-trained on synthetic tiles for a minute, 600 steps of 32 pairs (20 from "
    "random weights at smoke scale), 200 test pairs"
)
_MODULE_AND_PROJECTOR = {"difference|multi_modal_projector": 1.5e-3}
_EVERYTHING = {"vision_tower": 3e-4, ".*": 1.5e-3}
_CAPTIONS_PER_PAIR = 5
_LAST_EPOCHS = 10


def paper() -> Paper:
    """Return the claims on the paper's module and stages, measured on synthetic tiles."""
    return Paper(
        name="change-captioning",
        title="CCExpert: a difference-aware module in a multimodal language model",
        citation="Wang et al.; arXiv 2411.11360",
        experiments=(_tiles(),),
        claims=_claims(),
        columns=(
            Column("s_m", "S*_m (stem METEOR)", ".1f"),
            Column("changed_s_m", "S*_m of changed pairs (stem METEOR)", ".1f"),
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


def _tiles() -> Experiment:
    """The module, a control with as many parameters, no module; and training without stages.

    All arms start from the same weights of stage 0, train on the same tiles, and take equally many
    optimizer steps of equally many pairs. Two arms train nothing and output one sentence each.
    """
    staged = [
        _stage(1, _MODULE_AND_PROJECTOR, "flatten"),
        _stage(1, _EVERYTHING, "flatten"),
        _stage(_LAST_EPOCHS, _EVERYTHING, "random"),
    ]
    # A flattened epoch has a step for each caption: five times as many as a random one.
    at_once = [_stage(2 * _CAPTIONS_PER_PAIR + _LAST_EPOCHS, _EVERYTHING, "random")]
    house = "there is one new house at the top left of the image"
    arms = {
        MODULE: _arm(staged, "integrate"),
        CONTROL: _arm(staged, "alone"),
        PLAIN: _arm(staged, "none"),
        DIRECT: _arm(at_once, "integrate"),
        "says that nothing changed": _constant("the scene is the same as before"),
        "says that a house was built": _constant(house),
    }
    data = "data.init_args."
    smoke = {
        f"{data}num_train": 32,
        f"{data}num_val": 1,
        f"{data}num_test": 24,
        "model.init_args.pretrained": None,
    }
    published = {
        MODULE: {"recipe": "ccexpert/levir_cc_05b", "overrides": {}},
        PLAIN: {"recipe": "ccexpert/levir_cc_05b_baseline", "overrides": {}},
    }
    scales = {
        "smoke": Scale(seeds=(0, 1), only=(MODULE, CONTROL, PLAIN), overrides=smoke),
        "cpu": Scale(_SEEDS, overrides={f"{data}num_train": 960, f"{data}num_val": 1}),
        "paper": Scale(_SEEDS, only=(MODULE, PLAIN), arms=published),
    }
    return Experiment("tiles", arms, scales, run_captioner)


def _stage(epochs: int, rates: dict[str, float], caption_mode: str) -> dict[str, Any]:
    return {"epochs": epochs, "learning_rates": rates, "data": {"caption_mode": caption_mode}}


def _arm(stages: list[dict[str, Any]], difference: str) -> dict[str, Any]:
    staged_training = {
        "class_path": "lightning_plugins.callbacks.StagedTraining",
        "init_args": {"warmup": 0.05, "stages": stages},
    }
    overrides = {
        "trainer.max_epochs": sum(stage["epochs"] for stage in stages),
        "trainer.limit_val_batches": 0,
        "trainer.callbacks": [staged_training],
        "model.init_args.difference": difference,
    }
    return {"recipe": "change_captioning/tiny", "overrides": overrides}


def _constant(sentence: str) -> dict[str, Any]:
    return {"sentence": sentence, "overrides": {}}


_POINTS = 2.0  # near the 1.75 of S*_m on LEVIR-CC between CCExpert-0.5B and the best model before


def _claims() -> tuple[Claim, ...]:
    module = tuple(
        (
            name,
            f"With the difference module, {result} than without it, and than with the same module "
            "that receives each image alone.",
            Superiority(metric, MODULE, PLAIN, "higher", (CONTROL,), _POINTS),
            "LEVIR-CC: S*_m 80.99 with it; we did not have its ablation",
            "released code's table; the control is ours",
        )
        for name, metric, result in (
            ("the module describes changes better", "s_m", "S*_m is higher"),
            (
                "where something did change, too",
                "changed_s_m",
                "S*_m over changed pairs only is higher",
            ),
            (
                "and tells whether anything changed",
                "change_accuracy",
                "changed pairs are separated better from unchanged ones",
            ),
        )
    )
    stages = (
        "three stages beat direct fine-tuning",
        "Three stages (first the module and the projector, then all weights on every caption, then "
        "all weights on a random one) reach a higher S*_m than all weights from the first step.",
        Superiority("s_m", MODULE, DIRECT, "higher", (), _POINTS),
        "three stages are proposed, the first two on 200,000 other pairs",
        "abstract and released scripts; one data set for all stages is our choice",
    )
    return claims_on("tiles", _REGIME, *module, stages)
