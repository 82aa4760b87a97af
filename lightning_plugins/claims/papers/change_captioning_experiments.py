"""The experiment behind the claims on CCExpert: its arms, its scales, and what one run measures."""

from typing import Any

from lightning_plugins.claims.claim import Cell, Experiment, Scale

RECIPE = "change_captioning/tiny"
MODULE, CONTROL, PLAIN = "difference module", "each image alone", "no module"
DIRECT = "module, direct fine-tuning"
_SEEDS = (0, 1, 2)
_MODULE_AND_PROJECTOR = {"difference|multi_modal_projector": 1.5e-3}
_EVERYTHING = {"vision_tower": 3e-4, ".*": 1.5e-3}
_CAPTIONS_PER_PAIR = 5
_LAST_EPOCHS = 10


def tiles() -> Experiment:
    """The module, a control with its parameters, and neither; and training without stages.

    All arms begin with the same weights of stage 0, see the same tiles, and take equally many
    optimizer steps of equally many pairs. Two arms that train nothing say one sentence each.
    """
    staged = [
        _stage(1, _MODULE_AND_PROJECTOR, "flatten"),
        _stage(1, _EVERYTHING, "flatten"),
        _stage(_LAST_EPOCHS, _EVERYTHING, "random"),
    ]
    # A flattened epoch has a step for each caption, five times as many as one with a random one.
    at_once = [_stage(2 * _CAPTIONS_PER_PAIR + _LAST_EPOCHS, _EVERYTHING, "random")]
    arms = {
        MODULE: _arm(staged, "integrate"),
        CONTROL: _arm(staged, "alone"),
        PLAIN: _arm(staged, "none"),
        DIRECT: _arm(at_once, "integrate"),
        "says that nothing changed": _constant("the scene is the same as before"),
        "says that a house was built": _constant(
            "there is one new house at the top left of the image"
        ),
    }
    data = "data.init_args."
    paper = {
        MODULE: {"recipe": "ccexpert/levir_cc_05b", "overrides": {}},
        PLAIN: {"recipe": "ccexpert/levir_cc_05b_baseline", "overrides": {}},
    }
    return Experiment(
        name="tiles",
        arms=arms,
        scales={
            "smoke": Scale(
                seeds=(0, 1),
                only=(MODULE, CONTROL, PLAIN),
                overrides={
                    f"{data}num_train": 32,
                    f"{data}num_val": 1,
                    f"{data}num_test": 24,
                    "model.init_args.pretrained": None,
                },
            ),
            "cpu": Scale(seeds=_SEEDS, overrides={f"{data}num_train": 960, f"{data}num_val": 1}),
            "paper": Scale(
                seeds=_SEEDS,
                only=(MODULE, PLAIN),
                arms={arm: {**change} for arm, change in paper.items()},
            ),
        },
        run=run_captioner,
    )


def run_captioner(config: dict[str, Any], seed: int) -> Cell:
    """Train one arm; the scores of its captions of the test part, in points (times 100)."""
    if "sentence" in config:
        return {"metrics": _of_one_sentence(config["sentence"], config["overrides"], seed)}
    from lightning_plugins.claims.measurements.recipe_run import train_recipe

    trained = train_recipe(config, seed)
    found = trained.test_metrics
    return {
        "metrics": {
            **_points({name.removeprefix("test/"): value for name, value in found.items()}),
            "parameters": float(sum(p.numel() for p in trained.model.parameters())),
            "steps": float(trained.trainer.global_step),
            "seconds": trained.fit_seconds,
        }
    }


def _of_one_sentence(sentence: str, overrides: dict[str, Any], seed: int) -> dict[str, float]:
    """Scores of a captioner that always says it, on the test part that the other arms have."""
    from lightning_plugins.datamodules import ChangeCaptionDataModule
    from lightning_plugins.metrics import ChangeCaptionScores

    sizes = {
        key.rpartition(".")[2]: value
        for key, value in overrides.items()
        if key.startswith("data.init_args.num_")
    }
    records = ChangeCaptionDataModule(**sizes, seed=seed).records("test")
    scores = ChangeCaptionScores()
    scores.update(
        [sentence] * len(records),
        [record.captions for record in records],
        [record.id for record in records],
        [bool(record.changed) for record in records],
    )
    return _points(scores.compute())


def _points(scores: dict[str, Any]) -> dict[str, float]:
    names = ("s_m", "changed_s_m", "bleu_4", "rouge_l", "cider_d", "change_accuracy")
    return {name: 100 * float(scores[name]) for name in names}


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
    return {"recipe": RECIPE, "overrides": overrides}


def _constant(sentence: str) -> dict[str, Any]:
    return {"sentence": sentence, "overrides": {}}
