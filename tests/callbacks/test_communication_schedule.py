"""CommunicationSchedule in two real processes, and the arguments it refuses."""

import decentralized_trainers as harness
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins.callbacks import CommunicationSchedule
from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.topologies import Complete

COMPLETE = {"strategy": {"topology": Complete()}}


def case(*callbacks, **arguments):
    return {"callbacks": callbacks, **arguments}


def stopping():
    return EarlyStopping("val/loss", min_delta=100.0, patience=1)


# Two agents with 12 batches per epoch and 24 steps each.
CASES = {
    "late window": case(CommunicationSchedule("window", 3, start=0.75, width=0.25)),
    "budget": case(CommunicationSchedule(budget=5, final_merge=False)),
    "adaptive": case(CommunicationSchedule("adaptive", threshold=0.01, final_merge=False)),
    "adaptive, never": case(CommunicationSchedule("adaptive", threshold=1e9, final_merge=False)),
    "local SGD": case(CommunicationSchedule(every_n_steps=6), **COMPLETE),
    "DiLoCo as local SGD": case(
        CommunicationSchedule(every_n_steps=6, outer_lr=1.0, outer_momentum=0.0), **COMPLETE
    ),
    "DiLoCo": case(CommunicationSchedule(every_n_steps=6, outer_lr=0.7), **COMPLETE),
    "window of means": case(
        CommunicationSchedule("window", 6, start=0.25, width=0.25, window_topology=Complete()),
        trainer={"max_steps": 18, "max_epochs": -1},
    ),
    "stopped early": case(
        CommunicationSchedule(rate=0.0),
        stopping(),
        trainer={"max_epochs": 50},
        checkpoint={"save_last": True},
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("schedules")


@pytest.fixture(scope="module")
def ran(folder):
    results = harness.run_trainers(2, folder, CASES)
    assert None not in results
    return lambda case: [result[case] for result in results]


def rounds(results):
    ledger = CommLedger.merged(r["ledger"] for r in results)
    return ledger.of(0, "gossip").rounds, ledger.of(0, "merge").rounds


@pytest.mark.scale(plugin="CommunicationSchedule", strategy="decentralized")
def test_agents_gossip_in_the_window_and_merge_at_the_end(ran):
    # Rounds after steps 21 and 24 lie in the last quarter; the last is the merge.
    assert rounds(ran("late window")) == (1, 1)


def test_a_budget_is_spent_exactly(ran):
    assert rounds(ran("budget")) == (5, 0)


def test_adaptive_agents_gossip_when_they_have_drifted(ran):
    assert 0 < rounds(ran("adaptive"))[0] < 24
    assert rounds(ran("adaptive, never")) == (0, 0)
    control = CommLedger.merged(r["ledger"] for r in ran("adaptive, never")).of(0, "control")
    assert control.bytes_sent > 24 * 8  # one number per round


def test_diloco_with_rate_one_and_no_momentum_is_local_sgd(ran):
    local_sgd, diloco = (ran(name)[0]["weights"] for name in ("local SGD", "DiLoCo as local SGD"))
    torch.testing.assert_close(local_sgd, diloco, rtol=0, atol=1e-5)
    assert not torch.allclose(local_sgd, ran("DiLoCo")[0]["weights"], rtol=0, atol=1e-3)


def test_window_topology_applies_within_the_window(ran):
    assert rounds(ran("window of means")) == (1, 1)
    assert ran("window of means")[0]["global_step"] == 18


def test_a_run_that_stops_early_is_merged_and_saved_again(ran, folder):
    results = ran("stopped early")
    assert results[0]["global_step"] < 600
    assert torch.equal(results[0]["weights"], results[1]["weights"])
    before = [result["watched"]["validation"] for result in results]
    assert not torch.equal(before[0], before[1])
    for name in ("last.ckpt", "merged.ckpt"):
        saved = harness.Classifier.load_from_checkpoint(folder / "stopped early" / name)
        assert torch.equal(harness.flat(saved), results[0]["weights"])


def checked(callback, **arguments):
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, callbacks=[callback], **arguments)
    callback.check(trainer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CommunicationSchedule("window", start=0.9, width=0.3), "after its end"),
        (lambda: CommunicationSchedule(outer_lr=0), "outer_lr=0: expected a finite number above 0"),
        (
            lambda: CommunicationSchedule(outer_lr=1, outer_momentum=1),
            r"outer_momentum=1: expected a number in \[0, 1\)",
        ),
        (
            lambda: checked(CommunicationSchedule(outer_lr=1), strategy="decentralized"),
            "outer_lr=1 with RandomMatching",
        ),
        (
            lambda: checked(
                CommunicationSchedule(window_topology=Complete()), strategy="decentralized"
            ),
            "only shape='window' has a window",
        ),
        (
            lambda: checked(
                CommunicationSchedule(budget=11), strategy="decentralized", max_steps=10
            ),
            "budget=11: the schedule allows gossip in 10",
        ),
    ],
)
def test_schedules_that_cannot_be_met_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_two_schedules_are_refused():
    one = CommunicationSchedule()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        strategy="decentralized",
        callbacks=[one, CommunicationSchedule("linear")],
    )
    with pytest.raises(MisconfigurationException, match="two CommunicationSchedule"):
        one.check(trainer)
