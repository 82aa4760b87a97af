"""InfluencePathPlanner in trainer.predict: paths, measures, table and errors."""

import csv
import json
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from lightning_plugins.datamodules import InteractionDataModule
from lightning_plugins.litmodels import SequentialRecommender
from lightning_plugins.litmodels.recommendation import InfluencePathPlanner, InfluencePathReport
from lightning_plugins.litmodels.recommendation.language.chat_model import Reply
from lightning_plugins.litmodels.recommendation.language.judge import PathJudge
from lightning_plugins.litmodels.recommendation.path_table import PathTable
from lightning_plugins.litmodels.recommendation.planners import NextItem, RandomItems, Rec2Inf
from lightning_plugins.litmodels.recommendation.user_models import TakesTheLikely


@pytest.fixture(scope="module")
def checkpoints(quiet_trainer, tmp_path_factory):
    """Checkpoints of an untrained backbone, a SASRec evaluator and a GRU4Rec evaluator."""
    paths = []
    for seed, network in enumerate(["sasrec", "sasrec", "gru4rec"]):
        torch.manual_seed(seed)
        module = SequentialRecommender(24, network, dim=8, layers=1, max_length=8)
        module.configure_model()
        torch.nn.init.normal_(module.network.item_embedding.weight.data[1:])  # so items differ
        paths.append(str(tmp_path_factory.mktemp("checkpoints") / f"{seed}.ckpt"))
        trainer = quiet_trainer()
        trainer.strategy.connect(module)
        trainer.save_checkpoint(paths[-1])
    return paths


@pytest.fixture
def make(checkpoints):
    def planner(**changes):
        backbone, sasrec, gru = checkpoints
        planners = {"random": RandomItems(), "next item": NextItem(), "rec2inf": Rec2Inf(5)}
        settings = {"evaluators": {"sasrec": sasrec, "gru": gru}, "planners": planners}
        return InfluencePathPlanner(backbone, **(settings | {"path_length": 3} | changes))

    return planner


def predicted(trainer, module, data):
    return [path for batch in trainer.predict(module, datamodule=data) for path in batch]


def test_every_planner_plans_for_every_user_and_is_measured(
    make, walking_data, quiet_trainer, capsys
):
    data, module = walking_data(evaluation_batch_size=5), make()
    paths = predicted(quiet_trainer(), module, data)
    questions = {data.user_ids[question.user]: question for question in data.path_questions()}
    assert len(paths) == 3 * len(questions) == 3 * 12
    for path in paths:
        question, id_of = questions[path.user], data.catalogue.id_of
        assert path.target == id_of(question.target)
        assert len(set(path.items)) == 3
        assert set(path.items) <= set(data.catalogue.ids)
        assert not {*path.items} & {path.target, *map(id_of, question.history.tolist())}
        assert path.is_accepted == (True, True, True)
    shown = capsys.readouterr().out
    measures = {f"{m} {e}" for e in ("sasrec", "gru") for m in ("IoI", "IoR", "logP", "ppl")}
    measures |= {"genres", "text", "together", "variety", "new genres", "taken", "reached"}
    assert set(module.table.rows) == {"random", "next item", "rec2inf"}
    for label, row in module.table.rows.items():
        assert set(row) == measures
        assert all(len(numbers) == 12 for numbers in row.values())
        assert label in shown
    assert shown.count("±") == 3 * len(measures)


IDS = {
    "integers": lambda number: 900 + number,
    "strings": lambda number: f"B{number:02d}/é",
    "uuids": lambda number: str(uuid.UUID(int=number * 2**99 + 7)),
}


@pytest.mark.parametrize("kind", IDS)
def test_identifiers_come_out_as_they_went_in(kind, make, quiet_trainer, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    name = IDS[kind]
    generator = np.random.default_rng(0)
    rows = [
        (name(100 + user), name(int(item)), time, f"Film {item}")
        for user in range(40)
        for time, item in enumerate(generator.permutation(24)[:14])
    ]
    header = ("user", "item", "timestamp", "title")
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    data = InteractionDataModule(
        str(tmp_path / "x.parquet"), max_length=8, predict_users=None, min_target_count=1
    )
    trainer = quiet_trainer(callbacks=[InfluencePathReport()], default_root_dir=tmp_path)
    paths = predicted(trainer, make(planners={"next item": NextItem()}), data)
    taken = {user: {item for u, item, *_ in rows if u == user} for user, *_ in rows}
    assert {path.user for path in paths} == set(taken)
    for path in paths:
        assert type(path.user) is type(path.target) is type(path.items[0]) is type(name(0))
        assert not taken[path.user] & {path.target, *path.items}
        films = [f"Film {number}" for number in range(24) if name(number) in path.items]
        assert sorted(path.titles) == sorted(films)
    lines = (tmp_path / "paths.jsonl").read_text("utf-8").splitlines()
    stored = [json.loads(line) for line in lines]
    assert [(row["user"], tuple(row["items"])) for row in stored] == [
        (p.user, p.items) for p in paths
    ]
    with (tmp_path / "paths.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["user"], row["item"]) for row in table] == [
        (str(path.user), str(item)) for path in paths for item in path.items
    ]
    page = (tmp_path / "paths.html").read_text("utf-8")
    assert f"user {paths[0].user} to {paths[0].target_title}" in page
    assert f"<td>{paths[0].items[0]}</td>" in page


def test_a_plan_without_a_trainer_equals_the_prediction(make, walking_data, quiet_trainer):
    data, module = walking_data(), make()
    expected = predicted(quiet_trainer(), module, data)
    module = make().load(walking_data())
    questions = data.path_questions()
    name = data.catalogue.id_of
    histories = [[*map(name, question.history.tolist())] for question in questions]
    targets = [name(question.target) for question in questions]
    users = [data.user_ids[question.user] for question in questions]
    found = module.plan(histories, targets, users=users)
    assert sorted(found, key=lambda p: p.planner) == sorted(expected, key=lambda p: p.planner)
    assert [path.user for path in found[:3]] == [users[0]] * 3
    one = module.plan(histories[0], targets[0])
    assert [path.items for path in one[1:]] == [path.items for path in found[1:3]]


def test_a_plan_contains_only_candidates_and_states_if_fewer_are_left(make, walking_data):
    module = make(planners={"next item": NextItem()}).load(walking_data())
    with pytest.warns(UserWarning, match="1 of 1 paths have fewer than path_length=3 items"):
        (path,) = module.plan(["00", "01"], "09", candidates=["01", "09", "05", "06"])
    assert sorted(path.items) == ["05", "06"]
    assert path.problem == "only 2 of 3 items are left"
    with pytest.warns(UserWarning, match="history: 1 items are not in the catalogue .* 'x'"):
        first, second = module.plan(
            [["x"], []], ["09", "10"], candidates=[["01", "02", "03"], ["04", "05", "06"]]
        )
    assert sorted(first.items) == ["01", "02", "03"]
    assert sorted(second.items) == ["04", "05", "06"]
    assert (first.user, second.user) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["00"], "99"), "target='99' is not in the catalogue of 24 items"),
        ((["00"], ["01"]), "history: expected one list of items per user"),
        (([["00"]], ["01", "02"]), "history has 1 users, but target has 2"),
        ((["00"], "01", ["99"]), "none of a user's candidates is in the catalogue"),
        ((["00"], "01", [["02"], ["03"]]), "candidates has 2 users, but target has 1"),
        ((["00"], "01", None, ["a", "b"]), "users has 2 users, but target has 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:candidates")
def test_requests_that_cannot_be_planned_are_refused(arguments, message, make, walking_data):
    module = make(planners={"next item": NextItem()})
    with pytest.raises(RuntimeError, match="call load"):
        module.plan(*arguments)
    with pytest.raises(ValueError, match=message):
        module.load(walking_data()).plan(*arguments)


def test_the_evaluator_computes_the_measures_of_a_path(make, walking_data, quiet_trainer):
    data, module = walking_data(), make(planners={"next item": NextItem()})
    paths = predicted(quiet_trainer(), module, data)
    network = module._evaluators["gru"]

    def log_prob(items, target):
        return float(network(torch.tensor([items[-8:]]))[0].log_softmax(0)[target])

    gains = []
    for path, question in zip(paths, data.path_questions(), strict=True):
        history = question.history.tolist()
        items = [data.catalogue.number_of(item) for item in path.items]
        after = log_prob([*history, *items], question.target)
        gains.append(after - log_prob(history, question.target))
    assert module.table.rows["next item"]["IoI gru"] == pytest.approx(gains, abs=1e-5)


def test_in_the_closed_loop_only_accepted_items_count(make, walking_data, quiet_trainer):
    module = make(user_model=TakesTheLikely(4))
    paths = predicted(quiet_trainer(), module, walking_data())
    accepted = [value for path in paths for value in path.is_accepted]
    assert 0 < sum(accepted) < len(accepted)
    taken = [value for row in module.table.rows.values() for value in row["taken"]]
    assert sum(taken) / len(taken) == pytest.approx(sum(accepted) / len(accepted), abs=1e-6)
    assert set(module.table.rows["random"]["target"]) <= {0.0, 1.0}
    none_taken = make(user_model=TakesTheLikely(1), planners={"random": RandomItems()})
    for path in predicted(quiet_trainer(), none_taken, walking_data()):
        assert len(path.items) == len(path.is_accepted) == 3


def test_plans_depend_only_on_the_seed(make, walking_data, quiet_trainer):
    first, again, other = (
        predicted(quiet_trainer(), make(seed=seed), walking_data()) for seed in (0, 0, 1)
    )
    assert first == again
    assert [p for p in first if p.planner != "random"] == [
        p for p in other if p.planner != "random"
    ]
    assert first != other


def test_a_judge_adds_its_measures_of_the_paths(make, walking_data, quiet_trainer, capsys):
    class Critic:
        def complete(self, conversations, seed=0, schema=None):
            is_related = ["critic" in talk[0]["content"] for talk in conversations]
            return [Reply("0.25" if related else "?") for related in is_related]

    module = make(judge=PathJudge(Critic()))
    quiet_trainer().predict(module, datamodule=walking_data())
    for row in module.table.rows.values():
        assert row["related by LM"] == [0.25] * 12
        assert row["accepted by LM"] == []
    assert "36 paths left out" in capsys.readouterr().out


def test_the_curves_begin_and_end_with_the_interest(make, walking_data, quiet_trainer):
    module = make()
    quiet_trainer().predict(module, datamodule=walking_data(evaluation_batch_size=5))
    for label, curves in module.curves.items():
        gains = [curve[-1] - curve[0] for curve in curves]
        assert gains == pytest.approx(module.table.rows[label]["IoI sasrec"], abs=1e-5)
        assert [len(curve) for curve in curves] == [4] * 12
        row = module.table.rows[label]
        assert row["ppl gru"] == pytest.approx(np.exp(-np.array(row["logP gru"])), rel=1e-5)


def test_an_evaluator_with_the_weights_of_the_backbone_is_refused(
    make, checkpoints, walking_data, quiet_trainer, tmp_path
):
    copied = tmp_path / "copy.ckpt"
    copied.write_bytes(Path(checkpoints[0]).read_bytes())
    module = make(evaluators={"copy": str(copied)})
    with pytest.raises(ValueError, match=r"evaluator 'copy' .* has the weights of the backbone"):
        quiet_trainer().predict(module, datamodule=walking_data())


def test_an_evaluator_trained_with_sampled_items_is_refused(
    make, walking_data, quiet_trainer, tmp_path
):
    module = SequentialRecommender(24, "gru4rec", dim=8, layers=1, max_length=8, negatives=5)
    module.configure_model()
    trainer = quiet_trainer()
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "sampled.ckpt")
    with pytest.raises(ValueError, match=r"evaluator 'e' .* was trained with negatives=5"):
        quiet_trainer().predict(
            make(evaluators={"e": str(tmp_path / "sampled.ckpt")}), datamodule=walking_data()
        )


def test_every_part_can_be_configured_in_yaml():
    package = "lightning_plugins.litmodels.recommendation"
    server = {
        "class_path": f"{package}.language.chat_server.ChatServer",
        "init_args": {"base_url": "http://localhost:1/v1", "model": "m"},
    }
    local = {
        "class_path": f"{package}.language.local_model.LocalModel",
        "init_args": {"path": "smollm2"},
    }
    planners = {
        f"{name} {place}": {"class_path": f"{package}.planners.{name}", "init_args": {"model": m}}
        for name, models in {
            "LanguageModel": (server, local),
            "LanguageModelChoice": (server, local),
            "LanguageModelTrie": (local,),
            "LanguageModelScore": (local,),
        }.items()
        for place, m in enumerate(models)
    }
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(InfluencePathPlanner, "model")
    judge = {"class_path": f"{package}.language.judge.PathJudge", "init_args": {"model": server}}
    for user_model in ("TakesEverything", "TakesTheLikely", "ClicksWhatItLikes"):
        made = parser.instantiate(
            parser.parse_object(
                {
                    "model": {
                        "planners": planners,
                        "user_model": {"class_path": f"{package}.user_models.{user_model}"},
                        "judge": judge,
                    }
                }
            )
        ).model
        assert type(made.user_model).__name__ == user_model
        assert made.judge.model.model == "m"
        assert list(made.planners) == list(planners)


def test_its_checkpoint_contains_no_weights(make, walking_data, quiet_trainer, tmp_path):
    module, trainer = make(), quiet_trainer()
    trainer.predict(module, datamodule=walking_data())
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "planner.ckpt")
    assert module.state_dict() == {}
    files = {name: module.hparams[name] for name in ("backbone", "evaluators")}
    loaded = InfluencePathPlanner.load_from_checkpoint(tmp_path / "planner.ckpt", **files)
    assert dict(loaded.hparams) == dict(module.hparams)


def test_nan_values_are_excluded_from_the_mean_but_not_from_the_count():
    table = PathTable()
    table.add("a", {"x": torch.tensor([1.0, torch.nan, 3.0]), "y": torch.tensor([1.0, 1.0, 1.0])})
    assert table.means() == {"a/x": 2.0, "a/y": 1.0}
    assert table.rows["a"] == {"x": [1.0, 3.0], "y": [1.0, 1.0, 1.0]}
    header, row = str(table).splitlines()
    assert header.split() == ["planner", "paths", "x", "y"]
    assert row.split() == ["a", "3", "+2.000±1.000", "+1.000±0.000"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path_length": 0}, "path_length=0: expected at least 1"),
        ({"evaluators": {}}, "evaluators={}: expected at least one"),
        ({"evaluators": {"same": "a.ckpt"}}, "evaluator 'same' is the backbone a.ckpt"),
        ({"seed": -1}, "seed=-1: expected at least 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        InfluencePathPlanner("a.ckpt", **({"evaluators": {"e": "b.ckpt"}} | arguments))


def test_networks_of_other_data_and_missing_datamodules_are_refused(
    make, walks, walking_data, quiet_trainer, tmp_path
):
    header, *rows = walks.read_text().splitlines()
    fewer = [row for row in rows if int(row.split(",")[1]) < 20]
    (tmp_path / "fewer.csv").write_text("\n".join([header, *fewer]))
    other = InteractionDataModule(str(tmp_path / "fewer.csv"), max_length=8)
    with pytest.raises(ValueError, match=r"trained on 24 items, but the data has 20: use the"):
        quiet_trainer().predict(make(), datamodule=other)
    data = walking_data()
    data.setup()
    with pytest.raises(ValueError, match=r"datamodule=None: planners require the item catalogue"):
        quiet_trainer().predict(make(), data.predict_dataloader())
