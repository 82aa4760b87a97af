"""What one run of the experiments on detectors of AI text does and measures."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lightning_plugins.claims.canonical import canonical_json
from lightning_plugins.claims.claim import Cell

if TYPE_CHECKING:
    from lightning_plugins.attacks.text import AttackResult
    from lightning_plugins.claims.recipe_run import TrainedRecipe

ATTACKS = ("deep_word_bug", "text_bugger")
_FRESH_DRAWS = 5


def run_robustness(config: dict[str, Any], seed: int) -> Cell:
    """Train a detector, or take the one of the arm before; attack its AI texts and ask again.

    ``noise`` is ``off``, ``on`` (a fresh draw an answer), ``sampled`` (a fresh mean of ``draws``)
    or ``expectation``: the detector answers with one draw, the attack with the mean of ``draws``,
    and what counts is whether the detector is right on what was found, by draws that no search saw.
    """
    import torch

    trained = _trained(config["recipe"], canonical_json(config["overrides"]), seed)
    model: Any = trained.model
    noise, draws = config["noise"], config["draws"]
    answers = {"off": 0, "on": 1, "sampled": draws, "expectation": 1}[noise]
    asked = draws if noise == "expectation" else answers
    metrics: dict[str, float] = {}
    # As in training; the searches ask many texts at once.
    with torch.autocast("cpu", torch.bfloat16):
        metrics |= _clean(trained, answers, seed)
        for attack in ATTACKS:
            results = _attacked(
                config["recipe"],
                canonical_json(config["overrides"]),
                seed,
                attack,
                asked,
                config["texts"],
            )
            original = sum(one.status != "skipped" for one in results) / len(results)
            failed = sum(one.status == "failed" for one in results) / len(results)
            fresh = _right_on(trained, results, answers)
            metrics |= {
                f"aua_{attack}": 100 * (fresh if noise == "expectation" else failed),
                f"fresh_{attack}": 100 * fresh,
                f"original_{attack}": 100 * original,
                f"queries_{attack}": sum(one.queries for one in results) / len(results),
            }
    for name in ("aua", "fresh", "original", "queries"):
        metrics[name] = sum(metrics[f"{name}_{attack}"] for attack in ATTACKS) / len(ATTACKS)
    model.inference_noise = 0
    return {"metrics": metrics}


def run_setting(config: dict[str, Any], seed: int) -> Cell:
    """Train a detector on some texts; what it is worth on others, without noise."""
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
    """The arms of one method differ in how its detector is asked; it is trained once."""
    import json

    from lightning_plugins.claims.recipe_run import train_recipe

    changes = {**json.loads(overrides), "data.init_args.split_seed": seed}
    return train_recipe({"recipe": recipe, "overrides": changes}, seed)


@lru_cache(maxsize=2 * len(ATTACKS))
def _attacked(
    recipe: str, overrides: str, seed: int, attack: str, draws: int, texts: int
) -> "list[AttackResult]":
    """Greedy searches against answers with fresh noise; one changes at most a quarter of words."""
    from lightning_plugins.attacks.text import DeepWordBug, FreshNoise, TextBugger, attack_texts

    attacks: dict[str, Any] = {"deep_word_bug": DeepWordBug, "text_bugger": TextBugger}
    trained = _trained(recipe, overrides, seed)
    model: Any = trained.model
    model.inference_noise = draws
    found = _texts(trained, 1)[:texts]
    return attack_texts(
        attacks[attack](max_word_share=0.25),
        FreshNoise(model.probabilities, seed=1000 * seed),
        found,
        [1] * len(found),
        seed=seed,
        at_once=64,
    )


def _right_on(trained: "TrainedRecipe", results: "list[AttackResult]", draws: int) -> float:
    """Mean share of fresh answers that are right on what an attack left behind."""
    from lightning_plugins.attacks.text import still_misled

    model: Any = trained.model
    model.inference_noise = draws
    misled = still_misled(results, model.probabilities, _FRESH_DRAWS if draws else 1)
    return 1 - sum(misled) / len(misled)


def _clean(trained: "TrainedRecipe", draws: int, seed: int) -> dict[str, float]:
    import torch
    from torchmetrics.functional.classification import (
        binary_accuracy,
        binary_auroc,
        binary_calibration_error,
    )

    from lightning_plugins.metrics import TPRAtFPR

    model: Any = trained.model
    model.inference_noise = draws
    human, machine = _texts(trained, 0), _texts(trained, 1)
    scores = model.probabilities([*human, *machine], seed)
    labels = torch.tensor([0] * len(human) + [1] * len(machine))
    rate = TPRAtFPR(0.05)
    rate.update(scores, labels)
    return {
        "clean_accuracy": 100 * float(binary_accuracy(scores, labels)),
        "auroc": float(binary_auroc(scores, labels)),
        "tpr": 100 * float(rate.compute()[0]),
        "calibration_error": 100 * float(binary_calibration_error(scores, labels)),
    }


def _texts(trained: "TrainedRecipe", label: int) -> list[str]:
    data: Any = trained.datamodule
    return [sample.text for sample in data.samples("test") if sample.label == label]
