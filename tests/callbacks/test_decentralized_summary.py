"""DecentralizedSummary: the printed values of MergedEvaluation and of a server."""

import re

import decentralized_trainers as harness
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins.callbacks import (
    CommunicationSchedule,
    DecentralizedSummary,
    MergedEvaluation,
)
from lightning_plugins.strategies import DecentralizedStrategy, SimulatedDecentralizedStrategy
from lightning_plugins.strategies.topologies import Complete

AGENTS = 4


def fit(folder, strategy, callbacks):
    torch.manual_seed(1)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        strategy=strategy,
        max_epochs=4,
        logger=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    trainer.fit(harness.Classifier(plain=True))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with the summary, the same run without a merge, and the server's run."""
    folder = tmp_path_factory.mktemp("summary")
    summary = DecentralizedSummary(server=True)
    callbacks = [CommunicationSchedule(rate=0.0), MergedEvaluation(), summary]
    merged = fit(folder, SimulatedDecentralizedStrategy(AGENTS), callbacks)
    apart = [CommunicationSchedule(rate=0.0, final_merge=False), MergedEvaluation()]
    local = fit(folder, SimulatedDecentralizedStrategy(AGENTS), apart)
    every_step = [CommunicationSchedule(), MergedEvaluation()]
    server = fit(folder, SimulatedDecentralizedStrategy(AGENTS, Complete()), every_step)
    return summary.lines, merged, local, server


def test_after_the_merge_local_values_are_those_from_just_before_it(runs):
    _, merged, local, _ = runs
    for name in ("val/accuracy_local_mean", "val/accuracy_merged", "val/loss_local_mean"):
        assert merged[name] == pytest.approx(local[name], abs=1e-6)
    assert merged["consensus_distance"] == pytest.approx(local["consensus_distance"], rel=1e-5)
    assert merged["mergeability_gap"] == pytest.approx(local["mergeability_gap"], abs=1e-6)
    assert local["val/accuracy"] == pytest.approx(local["val/accuracy_local_mean"], abs=1e-6)


@pytest.mark.scale(plugin="DecentralizedSummary", strategy="decentralized_simulated")
def test_the_printed_lines_show_the_measured_values(runs):
    lines, merged, _, server = runs
    assert lines[0] == f"{AGENTS} agents, 24 steps each: val/accuracy"
    values = [float(re.search(r"([\d.]+)$", line)[1]) for line in lines[1:4]]
    expected = [merged["val/accuracy_local_mean"], merged["val/accuracy"], server["val/accuracy"]]
    assert values == pytest.approx(expected, abs=6e-4)
    # One all-reduce in the whole run against one per step.
    assert lines[4].endswith(": 24 times less")


def test_it_requires_merged_evaluation_and_refuses_a_server_with_drop():
    alone = DecentralizedSummary()
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, callbacks=[alone])
    with pytest.raises(MisconfigurationException, match=r"add MergedEvaluation\(\)"):
        alone.check(trainer)
    server = DecentralizedSummary(server=True)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        strategy=DecentralizedStrategy(on_peer_failure="drop"),
        callbacks=[MergedEvaluation(), server],
    )
    with pytest.raises(MisconfigurationException, match="set server=False"):
        server.check(trainer)
