from dataclasses import replace

import pytest

from lightning_plugins.claims import (
    PAPERS,
    Column,
    Experiment,
    Scale,
    Superiority,
    load_paper,
    read_paper,
)
from lightning_plugins.claims.fingerprints import canonical_json


def run(config, seed):
    return {"metrics": {}}


def experiment(**scale):
    arms = {"sgd": {"recipe": "a", "overrides": {"epochs": 3, "lr": 0.1}}, "sam": {"recipe": "a"}}
    return Experiment("e", arms, {"cpu": Scale(seeds=(0,), **scale)}, run)


def test_scale_overrides_extend_arm_overrides_and_per_arm_changes_take_precedence():
    built = experiment(
        overrides={"batch": 8, "epochs": 5},
        arms={"sgd": {"recipe": "b", "overrides": {"epochs": 7}}},
    )
    assert built.config("sgd", "cpu") == {
        "recipe": "b",
        "overrides": {"epochs": 7, "lr": 0.1, "batch": 8},
    }
    assert built.config("sam", "cpu") == {"recipe": "a", "overrides": {"epochs": 5, "batch": 8}}
    assert built.arms["sgd"]["overrides"] == {"epochs": 3, "lr": 0.1}


def test_contradicting_overrides_of_arm_and_scale_are_refused():
    with pytest.raises(ValueError, match="arm 'sgd' sets 'epochs' to 3 and scale 'cpu' to 5"):
        experiment(overrides={"epochs": 5})
    experiment(overrides={"epochs": 3})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"arms": {"sgdd": {}}}, "did you mean 'sgd'"),
        ({"overrides": {"x": float("nan")}}, "plain finite JSON"),
        ({"overrides": {"x": object()}}, "plain finite JSON"),
    ],
)
def test_an_invalid_scale_is_refused_at_construction(change, named):
    with pytest.raises(ValueError, match=named):
        experiment(**change)


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_must_be_distinct_and_not_empty(seeds):
    with pytest.raises(ValueError, match="seeds"):
        Scale(seeds=seeds)


def test_a_claim_must_name_arms_and_an_experiment_that_exist(synthetic):
    paper = synthetic.paper()
    claim = paper.claims[0]
    with pytest.raises(ValueError, match="did you mean 'switch'"):
        replace(paper, claims=(replace(claim, experiment="swich"),))
    with pytest.raises(ValueError, match="did you mean 'tail'"):
        replace(paper, claims=(replace(claim, rule=Superiority("loss", "tial", "sgd", "lower")),))
    with pytest.raises(ValueError, match="distinct"):
        replace(paper, claims=(claim, claim))


def test_a_columns_format_is_checked():
    with pytest.raises(ValueError, match="format"):
        Column("loss", "loss", "two digits")


def test_a_misspelled_paper_name_raises_with_the_most_similar_name():
    with pytest.raises(ValueError, match="did you mean 'late-sam'"):
        load_paper("late_sam")


def test_equal_values_have_equal_canonical_json():
    assert canonical_json({"b": (1, 2), "a": None}) == canonical_json({"a": None, "b": [1, 2]})


def test_a_scale_keeps_only_its_own_experiments_arms_and_claims(synthetic):
    whole = synthetic.paper()
    (experiment,) = whole.experiments
    small = replace(experiment.scales["smoke"], only=("sgd", "sam"))
    scales = {**experiment.scales, "smoke": small}
    later = Experiment("later", {"a": {}}, {"paper": Scale((0,))}, experiment.run)
    paper = replace(whole, experiments=(replace(experiment, scales=scales), later))
    smoke = paper.at("smoke")
    assert [one.name for one in smoke.experiments] == ["switch"]
    assert list(smoke.experiments[0].arms) == ["sgd", "sam"]
    assert [claim.name for claim in smoke.claims] == ["better"]
    assert len(paper.at("paper").experiments) == 2
    with pytest.raises(ValueError, match="has no scale 'cpu'; it has smoke, paper"):
        paper.at("cpu")


def test_a_scale_that_names_an_unknown_arm_is_refused():
    with pytest.raises(ValueError, match="names arm 'smg'"):
        Experiment("one", {"sgd": {}}, {"smoke": Scale((0,), only=("smg",))}, print)


def test_a_seed_that_tuned_an_arm_cannot_judge_it(synthetic):
    (experiment,) = synthetic.paper().experiments
    arms = {**experiment.arms, "sgd": {**experiment.arms["sgd"], "tuning_seed": 7}}
    tuned = replace(experiment, arms=arms)
    assert tuned.with_seeds((8, 9))
    with pytest.raises(ValueError, match="seed 7 of experiment 'switch' tuned arm 'sgd'"):
        tuned.with_seeds((7, 8))


@pytest.mark.parametrize("name", PAPERS)
def test_every_claim_has_a_smallest_effect_and_a_family(name):
    paper = load_paper(name)
    for claim in paper.claims:
        rule = claim.rule
        effects = [getattr(rule, field, 0) for field in ("smallest_effect", "margin", "share")]
        assert max(effects) > 0, claim.name
    assert not all(claim.is_ours for claim in paper.claims)


TABLE = """
name: p
title: A paper
citation: somebody
columns: {loss: [test loss, .2f]}
claims:
  - experiment: e
    regime: tiny
    paper_figure: "1.0"
    source: table 1
    superiority: {metric: loss, direction: lower, smallest_effect: 0.5}
    claims:
      better:
        statement: It is better.
        superiority: {arm: sam, over: sgd, smallest_effect: 0.1}
      CHANGE
"""


def test_values_of_a_claim_take_precedence_over_those_of_its_group(tmp_path):
    (tmp_path / "p.yaml").write_text(TABLE.replace("CHANGE", ""))
    paper = read_paper(str(tmp_path / "p.py"), experiment())
    (claim,) = paper.claims
    assert claim.rule == Superiority("loss", "sam", "sgd", "lower", smallest_effect=0.1)
    assert (claim.name, claim.regime, claim.is_ours) == ("better", "tiny", False)
    assert paper.column("loss").show(0.125) == "0.12"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("  is_our: true", "is_our"),
        ("  recovers: {}", "too many values"),
        ("worse: {statement: It is worse., superiority: {arm: sam}}", "'over'"),
        ("same: {statement: It is the same.}", "not enough values"),
    ],
)
def test_a_wrong_table_raises_with_the_file_and_the_claim(tmp_path, change, named):
    (tmp_path / "p.yaml").write_text(TABLE.replace("CHANGE", change))
    with pytest.raises(ValueError, match=rf"p.yaml, claim '(better|worse|same)': .*{named}"):
        read_paper(str(tmp_path / "p.py"), experiment())
