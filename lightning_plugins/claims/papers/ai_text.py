"""The claims on SCRN (Huang et al., ACL 2024, arXiv 2406.01179): robust detectors of AI text."""

from typing import Any

from lightning_plugins.claims.claim import Experiment, Paper, Scale
from lightning_plugins.claims.claim_tables import read_paper
from lightning_plugins.claims.measurements.ai_text import run_robustness, run_setting

_SEEDS = (0, 1, 2)
_DRAWS = 3
_METHODS: dict[str, dict[str, Any]] = {
    "plain": {"method": "plain", "method_options": None},
    "Flooding": {"method": "flooding", "method_options": None},
    "R-Drop": {"method": "r_drop", "method_options": None},
    "RanMask": {"method": "ranmask", "method_options": None},
    "SCRN": {},
}
_NOISY = ("RanMask", "SCRN")
_NOISES = {"noise off": "off", "noise on": "on", "sampled": "sampled", "EOT": "expectation"}
# One layer, six epochs, half precision. After three epochs SCRN had not learned in one of two
# seeds.
_SHORT = {
    "trainer.max_epochs": 6,
    "trainer.precision": "bf16-mixed",
    "trainer.check_val_every_n_epoch": 6,
    "model.init_args.config.num_hidden_layers": 1,
    "model.init_args.optimizer.init_args.lr": 3e-4,
}
_SETTINGS: dict[str, dict[str, list[str]]] = {
    "one temperature": {"train_on": ["*/*-t0.7"], "test_on": ["*/*-t0.7"]},
    "the other domain": {"train_on": ["manuals/*"], "test_on": ["plays/*"]},
}
# In the layout of Fast-DetectGPT's published pairs.
_PUBLISHED: dict[str, dict[str, list[str]]] = {
    "in-domain": {"train_on": ["xsum/gpt-3.5-turbo"], "test_on": ["xsum/gpt-3.5-turbo"]},
    "cross-domain": {"train_on": ["xsum/gpt-3.5-turbo"], "test_on": ["pubmed/gpt-3.5-turbo"]},
    "cross-genre": {"train_on": ["xsum/gpt-3.5-turbo"], "test_on": ["writing/gpt-3.5-turbo"]},
    "mixed-source": {"train_on": ["xsum/*"], "test_on": ["xsum/*"]},
}


def paper() -> Paper:
    """Return the paper's claim, and claims for detectors whose noise cannot mislead the search."""
    return read_paper(__file__, _robustness(), _settings(), _published_settings())


def _robustness() -> Experiment:
    """Five methods under two attacks; methods with noise are attacked in four modes."""
    arms = {}
    for name, model in _METHODS.items():
        noises = _NOISES if name in _NOISY else {"": "off"}
        for words, noise in noises.items():
            arms[f"{name}, {words}" if words else name] = {
                "recipe": "ai_text/tiny",
                "overrides": _model(model),
                "noise": noise,
                "draws": _DRAWS,
                "texts": 100,
            }
    shown = ("plain", "SCRN, noise off", "SCRN, noise on", "SCRN, EOT")
    smoke = Scale(
        seeds=(0, 1),
        overrides={**_SHORT, "trainer.max_epochs": 1, "trainer.check_val_every_n_epoch": 1},
        arms={arm: {"texts": 20} for arm in shown},
        only=shown,
    )
    scales = {"smoke": smoke, "cpu": Scale(_SEEDS, overrides=_SHORT)}
    return Experiment("robustness", arms, scales, run_robustness)


def _settings() -> Experiment:
    """Clean texts, of the training domain and of another."""
    arms = {
        f"{setting}, {name}": {
            "recipe": "ai_text/tiny",
            "overrides": _model(_METHODS[name]) | _data(patterns),
        }
        for setting, patterns in _SETTINGS.items()
        for name in ("plain", "SCRN")
    }
    return Experiment("settings", arms, {"cpu": Scale(_SEEDS, overrides=_SHORT)}, run_setting)


def _published_settings() -> Experiment:
    """The paper's four settings at its scale; they need texts that the user provides."""
    attack = {
        "class_path": "lightning_plugins.callbacks.AdversarialTextEvaluation",
        "init_args": {"attack": "deep_word_bug", "num_samples": 200},
    }
    arms = {
        f"{setting}, {name}": {
            "recipe": "ai_text/roberta_base",
            "overrides": {
                "data.path": "data/fast-detect-gpt",
                **_model(model),
                **_data(patterns),
                "trainer.callbacks+": [attack],
            },
        }
        for setting, patterns in _PUBLISHED.items()
        for name, model in _METHODS.items()
    }
    return Experiment("the paper's settings", arms, {"paper": Scale(_SEEDS)}, run_setting)


def _model(options: dict[str, Any]) -> dict[str, Any]:
    return {f"model.init_args.{name}": value for name, value in options.items()}


def _data(patterns: dict[str, list[str]]) -> dict[str, Any]:
    return {f"data.init_args.{name}": value for name, value in patterns.items()}
