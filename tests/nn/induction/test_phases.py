import math

import pytest

from lightning_plugins.nn.induction import find_phases


def test_phases_end_where_the_curves_cross_the_levels():
    times = list(range(0, 110, 10))
    lazy = [1.0, 0.5, 0.05, *[0.01] * 8]
    progress = [0, 0, 0, 0, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    phases = find_phases(times, lazy, progress)
    assert phases.partial_learning_end == pytest.approx(10 + 10 * 0.4 / 0.45)
    assert phases.plateau_end == pytest.approx(45)
    assert phases.emergence == pytest.approx(65)
    assert phases.convergence == pytest.approx(85)
    assert phases.plateau_length == pytest.approx(45 - phases.partial_learning_end)


def test_events_that_did_not_occur_are_nan():
    phases = find_phases([0, 1], [1.0, 1.0], [0.0, 0.3])
    assert math.isnan(phases.partial_learning_end)
    assert math.isnan(phases.emergence)
    assert not math.isnan(phases.plateau_end)


def test_curves_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="the same number of points"):
        find_phases([0, 1], [1.0], [0.0, 0.3])
