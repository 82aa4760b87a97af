"""SharpnessMonitor on two gloo processes."""

import json

import program_ddp_sharpness as program
import pytest
from forked_ranks import launch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    launch(program.__file__, folder, limit=200)
    return folder


@pytest.fixture
def ranks(folder):
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.scale(plugin="SharpnessMonitor", strategy="ddp")
def test_every_rank_knows_what_the_first_one_measured(ranks):
    first, second = ranks
    assert first == second
    assert first["steps"] == [4, 8]
    assert first["monitored"] == pytest.approx(first["values"]["lambda_max"][-1])


@pytest.mark.scale(plugin="SharpnessMonitor", strategy="ddp")
def test_the_run_equals_the_run_without_it_bit_for_bit(ranks):
    assert all(rank["same_weights"] for rank in ranks)


def test_metrics_checkpoint_and_picture_are_written_once(folder):
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3
    assert "sharpness/lambda_max" in rows[0]
    assert (folder / "flattest.ckpt").exists()
    assert (folder / "sharpness.png").exists()


def test_batch_statistics_that_processes_share_are_refused_on_all(ranks):
    assert all("SyncBatchNorm" in rank["refused"] for rank in ranks)
