import math

from lightning_plugins.callbacks.measured_curves import MeasuredCurves


def test_metrics_of_one_step_share_an_entry_and_missing_values_are_nan():
    curves = MeasuredCurves()
    curves._append(2, {"first": 1.0})
    curves._append(2, {"second": 5.0})
    curves._append(4, {"second": 6.0})
    assert curves.steps == [2, 4]
    assert curves.values["second"] == [5.0, 6.0]
    assert curves.values["first"][0] == 1.0
    assert math.isnan(curves.values["first"][1])
