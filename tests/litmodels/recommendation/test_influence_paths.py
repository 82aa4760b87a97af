"""InfluencePathPlanner in trainer.predict: paths, measures, table and errors."""

import pytest
import torch
from jsonargparse import ArgumentParser

from lightning_plugins.datamodules import InteractionDataModule
from lightning_plugins.litmodels import SequentialRecommender
from lightning_plugins.litmodels.recommendation.influence_paths import InfluencePathPlanner
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
    questions = {question.user: question for question in data.path_questions()}
    assert len(paths) == 3 * len(questions) == 3 * 12
    for path in paths:
        question = questions[path.user]
        assert path.target == question.target
        assert len(set(path.items)) == 3
        assert not {*path.items} & {*question.history.tolist(), question.target, 0}
        assert path.is_accepted == (True, True, True)
    shown = capsys.readouterr().out
    measures = {f"{m} {e}" for e in ("sasrec", "gru") for m in ("IoI", "IoR", "logP")}
    measures |= {"genres", "text", "together", "variety", "new genres", "taken", "reached"}
    assert set(module.table.rows) == {"random", "next item", "rec2inf"}
    for label, row in module.table.rows.items():
        assert set(row) == measures
        assert all(len(numbers) == 12 for numbers in row.values())
        assert label in shown
    assert shown.count("±") == 3 * len(measures)


def test_the_evaluator_computes_the_measures_of_a_path(make, walking_data, quiet_trainer):
    data, module = walking_data(), make(planners={"next item": NextItem()})
    paths = predicted(quiet_trainer(), module, data)
    network = module._evaluators["gru"]

    def log_prob(items, target):
        return float(network(torch.tensor([items[-8:]]))[0].log_softmax(0)[target])

    gains = []
    for path, question in zip(paths, data.path_questions(), strict=True):
        history = question.history.tolist()
        after = log_prob([*history, *path.items], path.target)
        gains.append(after - log_prob(history, path.target))
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
    loaded = InfluencePathPlanner.load_from_checkpoint(tmp_path / "planner.ckpt", weights_only=True)
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
