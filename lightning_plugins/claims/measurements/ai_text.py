"""What one run of the experiments on detectors of AI text trains and measures."""

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lightning_plugins.claims.cell import Cell
from lightning_plugins.claims.fingerprints import canonical_json

if TYPE_CHECKING:
    from lightning_plugins.attacks.text import AttackResult
    from lightning_plugins.claims.measurements.recipe_run import TrainedRecipe

ATTACKS = ("deep_word_bug", "text_bugger")
_FRESH_DRAWS = 5
_FALSE_POSITIVES = 0.05


def run_robustness(config: dict[str, Any], seed: int) -> Cell:
    """Train a detector, attack its AI texts, and score the found texts again with fresh noise.

    Arms of the same method share one trained detector. ``noise`` sets how the detector scores:

    * ``off``: without noise;
    * ``on``: with a fresh draw per score;
    * ``sampled``: with a fresh mean of ``draws`` draws per score;
    * ``expectation``: the detector scores with one draw, the search uses the mean of ``draws``
      scores, and a text counts as misclassified by draws that the search did not see. This search
      continues until the mean is half of the threshold: at a mean just below the threshold, a
      fresh draw is still correct about half of the time.

    A text counts as AI above the threshold at which the detector, in the same mode, has a
    false-positive rate of 5 % on the validation set. At a fixed threshold, a detector that
    predicts "AI" more often would seem more robust.
    """
    import torch

    trained = _trained(config["recipe"], canonical_json(config["overrides"]), seed)
    model: Any = trained.model
    if model.method.masked_share:  # a vote of three has too few values to set a threshold
        model.method = replace(model.method, ensemble="mean")
    noise, draws = config["noise"], config["draws"]
    num_draws = {"off": 0, "on": 1, "sampled": draws, "expectation": 1}[noise]
    metrics: dict[str, float] = {}
    # The precision of training; the searches score many texts at once.
    with torch.autocast("cpu", torch.bfloat16):
        model.inference_noise = num_draws
        threshold = _threshold(trained, seed)
        metrics |= _clean(trained, threshold, seed)
        for attack in ATTACKS:
            goal, samples = threshold, 1
            if noise == "expectation":
                goal = threshold / 2
                # SCRN averages its probabilities over draws in one pass of the encoder.
                if model.method.masked_share:
                    samples = draws
                else:
                    model.inference_noise = draws
            results = _attacked(trained, attack, goal, samples, config["texts"], seed)
            model.inference_noise = num_draws
            fresh = _share_correct(trained, results, threshold, num_draws)
            failed = sum(one.status == "failed" for one in results) / len(results)
            metrics |= {
                f"aua_{attack}": 100 * (fresh if noise == "expectation" else failed),
                f"fresh_{attack}": 100 * fresh,
                f"queries_{attack}": sum(one.queries for one in results) / len(results),
            }
    for name in ("aua", "fresh", "queries"):
        metrics[name] = sum(metrics[f"{name}_{attack}"] for attack in ATTACKS) / len(ATTACKS)
    model.inference_noise = 0
    return {"metrics": metrics}


def run_setting(config: dict[str, Any], seed: int) -> Cell:
    """Train a detector; measure its scores of clean test texts, without noise."""
    found = _trained(config["recipe"], canonical_json(config["overrides"]), seed).test_metrics
    return {
        "metrics": {
            "clean_accuracy": 100 * found["test/accuracy"],
            "auroc": found["test/auroc"],
            "tpr": 100 * found["test/tpr_at_5_percent_fpr"],
            "calibration_error": 100 * found["test/calibration_error"],
        }
    }


@lru_cache(maxsize=2)
def _trained(recipe: str, overrides: str, seed: int) -> "TrainedRecipe":
    """Train a detector once for all arms that differ only in how it scores."""
    import json

    from lightning_plugins.claims.measurements.recipe_run import train_recipe

    changes = {**json.loads(overrides), "data.init_args.split_seed": seed}
    return train_recipe({"recipe": recipe, "overrides": changes}, seed)


def _attacked(
    trained: "TrainedRecipe", attack: str, goal: float, samples: int, texts: int, seed: int
) -> "list[AttackResult]":
    """Attack scores with fresh noise; each greedy search changes at most a quarter of the words."""
    from lightning_plugins.attacks.text import DeepWordBug, FreshNoise, TextBugger, attack_texts

    attacks: dict[str, Any] = {"deep_word_bug": DeepWordBug, "text_bugger": TextBugger}
    model: Any = trained.model
    found = _texts(trained, "test", 1)[:texts]
    return attack_texts(
        attacks[attack](max_word_share=0.25),
        FreshNoise(model.probabilities, samples, seed=1000 * seed),
        found,
        [1] * len(found),
        threshold=goal,
        seed=seed,
        at_once=64,
    )


def _share_correct(
    trained: "TrainedRecipe", results: "list[AttackResult]", threshold: float, draws: int
) -> float:
    """Mean share of fresh scores that are correct on the attacked texts."""
    from lightning_plugins.attacks.text import still_misled

    model: Any = trained.model
    count = _FRESH_DRAWS if draws else 1
    misled = still_misled(results, model.probabilities, count, threshold=threshold)
    return 1 - sum(misled) / len(misled)


def _threshold(trained: "TrainedRecipe", seed: int) -> float:
    """The threshold of the current mode with 5 % false positives on the validation set."""
    from lightning_plugins.metrics import threshold_at_fpr

    model: Any = trained.model
    human = _texts(trained, "val", 0)
    return float(threshold_at_fpr(model.probabilities(human, seed), _FALSE_POSITIVES))


def _clean(trained: "TrainedRecipe", threshold: float, seed: int) -> dict[str, float]:
    """Metrics of the scores of unchanged test texts."""
    import torch
    from torchmetrics.functional.classification import (
        binary_accuracy,
        binary_auroc,
        binary_calibration_error,
    )

    model: Any = trained.model
    human, machine = _texts(trained, "test", 0), _texts(trained, "test", 1)
    scores = model.probabilities([*human, *machine], seed)
    labels = torch.tensor([0] * len(human) + [1] * len(machine))
    return {
        "clean_accuracy": 100 * float(binary_accuracy(scores, labels)),
        "auroc": float(binary_auroc(scores, labels)),
        "tpr": 100 * float((scores[labels == 1] > threshold).float().mean()),
        "fpr": 100 * float((scores[labels == 0] > threshold).float().mean()),
        "calibration_error": 100 * float(binary_calibration_error(scores, labels)),
    }


def _texts(trained: "TrainedRecipe", part: str, label: int) -> list[str]:
    data: Any = trained.datamodule
    return [sample.text for sample in data.samples(part) if sample.label == label]
