"""The arms of the claims on the fiber laser run, and none of them is calibrated."""

import pytest

from lightning_plugins.claims.papers import load_paper


@pytest.mark.filterwarnings("ignore::lightning_plugins.simulators.fiber_laser.PhysicalWarning")
def test_each_arm_has_every_metric_of_the_rules_without_calibration():
    experiment = load_paper("fiber-laser").at("smoke").experiment("chain")
    cells = {arm: experiment.run(experiment.config(arm, "smoke"), 1) for arm in experiment.arms}
    for claim in load_paper("fiber-laser").claims:
        for arm in claim.rule.arms:
            assert cells[arm]["metrics"][claim.rule.metric] > 0
    ours = cells["reference design"]["metrics"]
    # Without a mount and without coupling losses these differ from the published values.
    assert ours["tuning_nm"] < 1.0
    assert ours["slope"] > 0.8
