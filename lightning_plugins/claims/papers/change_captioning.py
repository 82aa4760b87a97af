"""The claims on CCExpert, change captioning (Wang et al., arXiv 2411.11360)."""

from typing import Any

from lightning_plugins.claims.claim import Experiment, Paper, Scale
from lightning_plugins.claims.claim_tables import read_paper
from lightning_plugins.claims.measurements.change_captioning import run_captioner

MODULE, CONTROL, PLAIN = "difference module", "each image alone", "no module"
DIRECT = "module, direct fine-tuning"
_SEEDS = (0, 1, 2)
_MODULE_AND_PROJECTOR = {"difference|multi_modal_projector": 1.5e-3}
_EVERYTHING = {"vision_tower": 3e-4, ".*": 1.5e-3}
_CAPTIONS_PER_PAIR = 5
_LAST_EPOCHS = 10


def paper() -> Paper:
    """Return the claims on the paper's module and stages, measured on synthetic tiles."""
    return read_paper(__file__, _tiles())


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
