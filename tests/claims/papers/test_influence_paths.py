"""The arms of the claims on influence paths measure what their names say."""

import math

import pytest

from lightning_plugins.assets import asset_path
from lightning_plugins.claims import load_paper
from lightning_plugins.claims.measurements.influence_paths import _planner, _user_model
from lightning_plugins.litmodels.recommendation.planners import LanguageModelTrie, default_planners

PAPER = load_paper("influence-paths")


def test_every_arm_uses_the_planner_of_its_name():
    kinds = {name: type(planner) for name, planner in default_planners().items()}
    kinds["SmolLM2, trie"] = LanguageModelTrie
    for experiment in PAPER.at("cpu").experiments:
        for arm in experiment.arms:
            planner = _planner(experiment.config(arm, "cpu"))
            assert type(planner) is kinds[arm]
    shortlists = [
        getattr(_planner(PAPER.experiment("followed").config(arm, "cpu")), "shortlist", None)
        for arm in ("text", "text of 200")
    ]
    assert shortlists == [None, 200]


def test_users_refuse_items_only_in_the_experiment_chosen():
    ranks = {
        experiment.name: {
            getattr(_user_model(experiment.config(arm, "cpu")), "rank", None)
            for arm in experiment.arms
        }
        for experiment in PAPER.at("cpu").experiments
    }
    assert ranks == {"followed": {None}, "chosen": {20}, "language model": {None}}


def test_no_claim_is_evaluated_by_the_network_that_decides_for_users():
    for claim in PAPER.claims:
        if claim.experiment == "chosen":
            assert claim.rule.metric in ("taken", "IoI sasrec")  # GRU4Rec decides there


@pytest.mark.slow
def test_the_smoke_scale_runs(tmp_path, monkeypatch):
    try:
        found = asset_path("recbole").parent
    except FileNotFoundError as error:
        pytest.skip(str(error))
    (tmp_path / "assets").symlink_to(found)
    monkeypatch.setenv("LIGHTNING_PLUGINS_ASSETS", str(tmp_path / "assets"))
    smoke = PAPER.at("smoke")
    for experiment in smoke.experiments:
        cells = [experiment.run(experiment.config(arm, "smoke"), 0) for arm in experiment.arms]
        for cell in cells:
            assert all(math.isfinite(value) for value in cell["metrics"].values())
        assert len({cell["metrics"]["IoI gru4rec"] for cell in cells}) == len(cells)
    assert {path.suffix for path in (tmp_path / "recommenders").rglob("*.ckpt")} == {".ckpt"}
