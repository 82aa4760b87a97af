"""What one run of the experiment on change captioning trains and measures."""

from typing import Any

from lightning_plugins.claims.cell import Cell


def run_captioner(config: dict[str, Any], seed: int) -> Cell:
    """Train one arm; measure the scores of its test captions in points (times 100)."""
    if "sentence" in config:
        return {"metrics": _constant_captions(config["sentence"], config["overrides"], seed)}
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


def _constant_captions(sentence: str, overrides: dict[str, Any], seed: int) -> dict[str, float]:
    """Scores of a captioner that always outputs ``sentence``, on the test set of the other arms."""
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
