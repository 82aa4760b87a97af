"""The arms of the claims on change captioning measure what their names say."""

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("PIL")

from lightning_plugins.claims import load_paper
from lightning_plugins.claims.measurements.change_captioning import run_captioner
from lightning_plugins.claims.papers.change_captioning import CONTROL, DIRECT, MODULE, PLAIN
from lightning_plugins.claims.published_runs import published_lines
from lightning_plugins.litmodels.change_captioning.network import build_network
from lightning_plugins.recipes import load_recipe

TRAINED = (MODULE, CONTROL, PLAIN, DIRECT)


def config(arm, scale="cpu"):
    return load_paper("change-captioning").experiment("tiles").config(arm, scale)


def stages(arm):
    (callback,) = config(arm)["overrides"]["trainer.callbacks"]
    return callback["init_args"]["stages"]


def test_all_trained_arms_take_the_same_number_of_steps():
    captions = {"flatten": 5, "random": 1}
    visits = {
        arm: sum(stage["epochs"] * captions[stage["data"]["caption_mode"]] for stage in stages(arm))
        for arm in TRAINED
    }
    assert set(visits.values()) == {20}
    for arm in TRAINED:
        epochs = sum(stage["epochs"] for stage in stages(arm))
        assert config(arm)["overrides"]["trainer.max_epochs"] == epochs


def test_arms_differ_only_as_their_names_say():
    assert stages(MODULE) == stages(CONTROL) == stages(PLAIN)
    assert len(stages(DIRECT)) == 1
    difference = "model.init_args.difference"
    found = {arm: config(arm)["overrides"][difference] for arm in TRAINED}
    assert found == {MODULE: "integrate", CONTROL: "alone", PLAIN: "none", DIRECT: "integrate"}


def test_the_control_has_as_many_parameters_as_the_module():
    with torch.device("meta"):
        counts = {
            difference: sum(
                p.numel() for p in build_network("tiny", difference, False).parameters()
            )
            for difference in ("integrate", "alone", "none")
        }
    assert counts["integrate"] == counts["alone"] > counts["none"]


def test_the_paper_scale_uses_the_recipes_of_levir_cc():
    lines = published_lines(load_paper("change-captioning"))
    assert any("ccexpert/levir_cc_05b_baseline" in line for line in lines)
    for name in ("ccexpert/levir_cc_05b", "ccexpert/levir_cc_05b_baseline"):
        load_recipe(name)


def test_a_run_and_a_constant_sentence_are_scored_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_PLUGINS_ASSETS", str(tmp_path / "assets"))
    arm = config(MODULE, "smoke")
    sizes = {"data.init_args.num_train": 8, "data.init_args.num_test": 20}
    arm["overrides"] |= {**sizes, "trainer.limit_train_batches": 1}
    measured = run_captioner(arm, seed=1)["metrics"]
    assert measured["steps"] == 12
    assert 0 <= measured["change_accuracy"] <= 100
    sentence = config("says that nothing changed")["sentence"]
    overrides = {**sizes, "data.init_args.num_val": 1}
    constant = run_captioner({"sentence": sentence, "overrides": overrides}, seed=1)["metrics"]
    assert constant["changed_s_m"] < constant["s_m"]
    assert constant.keys() < measured.keys()
