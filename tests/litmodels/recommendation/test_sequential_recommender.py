"""SequentialRecommender: learning, logging, ranking and errors."""

import csv

import pytest
import torch
from lightning.pytorch import Callback
from torch.optim import AdamW

from lightning_plugins.callbacks import ExactResume
from lightning_plugins.litmodels import SequentialRecommender
from lightning_plugins.litmodels.recommendation import RecommendationTable

SMALL = {"dim": 8, "max_length": 8, "layers": 1, "dropout": 0.1}


def model(**changes):
    torch.manual_seed(0)
    return SequentialRecommender(**(SMALL | changes))


@pytest.mark.parametrize("network", ["sasrec", "gru4rec"])
def test_it_learns_to_predict_the_walks(network, walking_data, quiet_trainer):
    module = model(network=network, dim=16, top_k=(1, 5), optimizer=lambda p: AdamW(p, lr=0.02))
    trainer = quiet_trainer(max_epochs=25)
    trainer.fit(module, datamodule=walking_data())
    tested = trainer.test(module, datamodule=walking_data(), verbose=False)[0]
    assert tested["test/hit_rate@1"] > 0.6  # of 10 unseen items; 9 of 10 steps follow the rule
    assert set(trainer.callback_metrics) == set(tested)
    assert set(tested) == {f"test/{m}@{k}" for m in ("hit_rate", "ndcg", "mrr") for k in (1, 5)}


def test_the_documented_keys_are_logged_and_no_others(walking_data, quiet_trainer):
    trainer = quiet_trainer()
    trainer.fit(model(), datamodule=walking_data())
    validated = {f"val/{name}@10" for name in ("hit_rate", "ndcg", "mrr")}
    assert set(trainer.callback_metrics) == {"train/loss"} | validated


def test_seen_items_are_neither_ranked_nor_recommended(walking_data, quiet_trainer):
    module = model(top_k=(3,))
    trainer = quiet_trainer()
    lists = torch.cat(trainer.predict(module, datamodule=walking_data()))
    batch = next(iter(trainer.datamodule.predict_dataloader()))
    assert lists.shape == (12, 3)
    assert not (lists[:, :, None] == batch["seen"][:, None, :]).any()
    assert (lists > 0).all()
    assert (module.scores_of_unseen(batch).isneginf().sum(1) == 1 + 14).all()


@pytest.mark.parametrize(("seen", "left"), [([1, 2, 3, 4, 5], [6, 7]), ([1, 3, 4, 5, 6, 7, 2], [])])
def test_a_list_never_contains_seen_items_and_a_warning_reports_shorter_lists(seen, left):
    module = model(num_items=7, top_k=(4,)).eval()
    module.configure_model()
    batch = {"history": torch.tensor([seen]), "seen": torch.tensor([seen])}
    with pytest.warns(UserWarning, match="1 of 1 users of a batch have fewer than 4 unseen items"):
        (listed,) = module.predict_step(batch, 0).tolist()
    assert sorted(listed) == [0] * (4 - len(left)) + left


def test_recommendations_are_written_with_the_identifiers_of_the_data(
    walking_data, quiet_trainer, tmp_path
):
    trainer = quiet_trainer(callbacks=[RecommendationTable()], default_root_dir=tmp_path)
    lists = torch.cat(trainer.predict(model(top_k=(11,)), datamodule=walking_data()))
    data = trainer.datamodule
    with (tmp_path / "recommendations.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [
        (data.user_ids[question.user], str(rank), data.catalogue.id_of(item))
        for question, items in zip(data.path_questions(), lists.tolist(), strict=True)
        for rank, item in enumerate(items, 1)
        if item
    ]
    assert [(row["user"], row["rank"], row["item"]) for row in rows] == expected
    assert len(rows) == 12 * 10  # the users have seen all other items
    assert rows[0]["title"] == str(data.catalogue[int(lists[0, 0])])
    with pytest.raises(ValueError, match="RecommendationTable requires an InteractionDataModule"):
        RecommendationTable().on_predict_start(quiet_trainer(), model(num_items=24))


def test_the_number_of_items_is_read_from_the_data_and_saved_in_the_checkpoint(
    walking_data, quiet_trainer, tmp_path
):
    trainer = quiet_trainer()
    module = model()
    trainer.fit(module, datamodule=walking_data())
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    loaded = SequentialRecommender.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    assert loaded.hparams["num_items"] == 24
    history = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(loaded.eval()(history), module.eval()(history))


class Killed(BaseException):
    pass


class KillAt(Callback):
    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise Killed


def test_an_interrupted_run_resumes_to_the_same_weights(walking_data, quiet_trainer, tmp_path):
    whole = model()
    quiet_trainer(max_epochs=2, callbacks=[ExactResume()]).fit(whole, datamodule=walking_data())
    path = tmp_path / "killed.ckpt"
    with pytest.raises(Killed):
        quiet_trainer(max_epochs=2, callbacks=[ExactResume(), KillAt(3, path)]).fit(
            model(), datamodule=walking_data()
        )
    resumed = model()
    quiet_trainer(max_epochs=2, callbacks=[ExactResume()]).fit(
        resumed, datamodule=walking_data(), ckpt_path=path, weights_only=True
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "bert4rec"}, "network='bert4rec': expected one of sasrec, gru4rec, irn"),
        ({"negatives": 0}, "negatives=0: expected at least 1, or None"),
        ({"num_items": 0}, "num_items=0: expected at least 1"),
        ({"top_k": (0,)}, "k=0: expected at least 1"),
        ({"heads": 3}, "dim=8: expected a multiple of heads=3"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        model(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_items": 5}, "num_items=5: InteractionDataModule has 24"),
        ({"max_length": 9}, "max_length=9: InteractionDataModule has 8"),
    ],
)
def test_data_with_other_sizes_is_refused(arguments, message, walking_data, quiet_trainer):
    with pytest.raises(ValueError, match=message):
        quiet_trainer().fit(model(**arguments), datamodule=walking_data())
