"""The arms of the claims on AI-text detectors measure what their names say."""

import json
from types import SimpleNamespace

import pytest
import torch
from marker_corpus import marker_corpus, tiny_detector

from lightning_plugins.claims import load_paper
from lightning_plugins.claims.measurements import ai_text as ai_text_measurement
from lightning_plugins.claims.published_runs import published_lines
from lightning_plugins.claims.reporting import paper_evidence
from lightning_plugins.claims.result_store import CellIdentity, CellRecord
from lightning_plugins.claims.results import Results


def paper():
    return load_paper("ai-text")


@pytest.fixture
def trained(monkeypatch):
    """Replaces the detector that a recipe trains with an untrained one."""
    torch.manual_seed(0)
    model = tiny_detector("scrn")
    texts = [SimpleNamespace(**sample) for sample in marker_corpus(20)]
    found = SimpleNamespace(model=model, datamodule=SimpleNamespace(samples=lambda part: texts))
    monkeypatch.setattr(ai_text_measurement, "_trained", lambda *_: found)
    return found


def cell(noise, texts=6):
    config = {"recipe": "-", "overrides": {}, "noise": noise, "draws": 3, "texts": texts}
    return ai_text_measurement.run_robustness(config, seed=1)["metrics"]


def test_noise_sets_the_draws_of_the_detector_and_of_the_search(trained, monkeypatch):
    asked = []
    plain = trained.model.probabilities
    monkeypatch.setattr(
        trained.model,
        "probabilities",
        lambda *a: asked.append(int(trained.model.inference_noise)) or plain(*a),
    )
    expected = {"off": {0}, "on": {1}, "sampled": {3}, "expectation": {1, 3}}
    for noise, draws in expected.items():
        asked.clear()
        metrics = cell(noise)
        assert set(asked) == draws, noise
        assert metrics["aua"] == (metrics["aua_deep_word_bug"] + metrics["aua_text_bugger"]) / 2
        if noise in ("off", "expectation"):  # without noise, scoring again changes nothing
            assert metrics["aua"] == metrics["fresh"]
        assert 0 <= metrics["aua_deep_word_bug"] <= 100
    assert trained.model.inference_noise == 0


def test_the_threshold_limits_false_positives_and_decides_the_scores(trained, monkeypatch):
    assert cell("off")["fpr"] <= 5  # both sets contain the same texts here
    texts = [sample.text for sample in trained.datamodule.samples("test") if sample.label]
    threshold = ai_text_measurement._threshold(trained, seed=1)
    found = sum(score > threshold for score in trained.model.score(texts)) / len(texts)
    assert cell("off", texts=len(texts))["tpr"] == pytest.approx(100 * found)
    monkeypatch.setattr(ai_text_measurement, "_threshold", lambda *_: 1.0)
    nothing = cell("off")
    assert nothing["aua"] == nothing["tpr"] == nothing["fpr"] == 0
    assert nothing["queries"] == 1
    monkeypatch.setattr(ai_text_measurement, "_threshold", lambda *_: -1.0)
    assert cell("on")["aua"] == 100


def test_in_expectation_masked_copies_are_averaged_over_draws(monkeypatch):
    torch.manual_seed(0)
    model = tiny_detector("ranmask")
    texts = [SimpleNamespace(**sample) for sample in marker_corpus(8)]
    found = SimpleNamespace(model=model, datamodule=SimpleNamespace(samples=lambda part: texts))
    monkeypatch.setattr(ai_text_measurement, "_trained", lambda *_: found)
    samples = []
    attacked = ai_text_measurement._attacked
    monkeypatch.setattr(
        ai_text_measurement, "_attacked", lambda *a: samples.append(a[3]) or attacked(*a)
    )
    cell("expectation", texts=2)
    cell("sampled", texts=2)
    assert samples == [3, 3, 1, 1]


def test_arms_differ_only_in_noise_or_only_in_method():
    experiment = paper().experiment("robustness")
    of_method = {}
    for arm in experiment.arms:
        config = experiment.config(arm, "cpu")
        name = arm.split(",")[0]
        assert of_method.setdefault(name, config["overrides"]) == config["overrides"]
        assert config["texts"] == 100
    assert len({json.dumps(x) for x in of_method.values()}) == 5
    assert {experiment.config(arm, "cpu")["noise"] for arm in experiment.arms} == {
        "off",
        "on",
        "sampled",
        "expectation",
    }


def test_the_papers_settings_are_commands_with_the_users_data_path():
    commands = [line for line in published_lines(paper()) if not line.startswith("#")]
    assert len(commands) == 4 * 5 * 3
    assert all("--data.path data/" in command for command in commands)
    assert any("ranmask" in command and "pubmed" in command for command in commands)


def test_the_overview_has_every_arm_with_its_interval_and_the_verdicts():
    whole = paper().at("cpu")
    values = {"plain": (20.0, 22.0, 24.0), "SCRN, noise on": (40.0, 44.0, 45.0)}
    records = [
        CellRecord(
            CellIdentity("ai-text", "robustness", arm, "cpu", seed, {}, "-", {}),
            metrics={"aua": value},
            series={},
            seconds=1.0,
            finished="-",
            rules={},
        )
        for arm, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]
    found = paper_evidence(Results(whole, "cpu", tuple(records), (), 0, 0.0)).overview
    assert {arm.arm: arm.mean for arm in found.arms} == {"plain": 22.0, "SCRN, noise on": 43.0}
    low, high = found.arms[0].interval
    # 22 ± t(0.975, 2) 2 / sqrt(3)
    assert (low, high) == pytest.approx((22 - 4.9683, 22 + 4.9683), abs=1e-3)
    assert len(found.conclusions) == len(whole.overview.conclusions)
    assert found.conclusions[0].startswith("With fresh noise in every output, SCRN keeps")
    assert "Supported: SCRN, noise on - plain: 21" in found.conclusions[0]
