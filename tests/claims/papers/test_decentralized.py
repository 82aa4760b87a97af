"""The arms of the claims on decentralized training run as their names say."""

import math
import re

import pytest

from lightning_plugins.claims import load_paper
from lightning_plugins.claims.measurements.decentralized import run_schedules
from lightning_plugins.claims.published_runs import published_lines
from lightning_plugins.recipes import load_recipe

SHORT = {"agents": 4, "rounds": 20}


def cell(arm, seed=1):
    config = load_paper("decentralized").experiment("schedules").config(arm, "cpu")
    return run_schedules({**config, "overrides": SHORT}, seed)["metrics"]


@pytest.fixture(scope="module")
def cells():
    return {arm: cell(arm) for arm in load_paper("decentralized").experiment("schedules").arms}


def test_the_bytes_of_each_arm_match_its_name(cells):
    parameters = 26122 * 4 / 1e6
    average = 2 * 3 / 4 * parameters
    megabytes = {arm: metrics["megabytes"] for arm, metrics in cells.items()}
    assert megabytes["no communication"] == 0
    assert megabytes["gossip, merged"] == pytest.approx(megabytes["gossip"] + average)
    assert megabytes["local SGD"] == pytest.approx(20 * average)
    assert megabytes["server"] == pytest.approx(400 * average)
    assert megabytes["early window"] == pytest.approx(megabytes["middle window"], rel=0.5)
    assert megabytes["local SGD, equal bytes"] == pytest.approx(4 * average)


def test_agents_hold_the_mean_only_after_a_merge(cells):
    for arm, metrics in cells.items():
        held = "merged_accuracy" if arm == "gossip, merged" else "local_accuracy"
        assert metrics["held_accuracy"] == metrics[held]
    # The merge changes only the final models.
    merged, gossip = cells["gossip, merged"], cells["gossip"]
    assert merged["merged_accuracy"] == gossip["merged_accuracy"]
    assert merged["consensus_distance"] == gossip["consensus_distance"] > 0


def test_a_server_learns_and_agents_without_communication_drift_apart(cells):
    assert cells["server"]["held_accuracy"] > 60
    assert cells["server"]["consensus_distance"] == pytest.approx(0, abs=1e-6)
    assert math.isinf(cells["no communication"]["times_less_than_ddp"])
    distance = {arm: metrics["consensus_distance"] for arm, metrics in cells.items()}
    assert distance["no communication"] > distance["gossip"] > distance["local SGD"]


def test_a_cell_depends_only_on_its_seed(cells):
    first, again, other = (
        {name: value for name, value in one.items() if name != "seconds"}
        for one in (cells["gossip"], cell("gossip"), cell("gossip", seed=2))
    )
    assert first == again != other


def test_the_commands_of_the_paper_scale_use_existing_recipes():
    lines = published_lines(load_paper("decentralized"))
    commands = [line for line in lines if not line.startswith("#")]
    assert len(commands) == 10
    for command in commands:
        load_recipe(re.search(r"--config (\S+)", command)[1])
