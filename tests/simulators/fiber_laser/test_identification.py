"""Identification: parameters are recovered, intervals cover the truth, ambiguities are reported."""

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import (
    Amplifier,
    Curve,
    Fiber,
    Pump,
    Signal,
    identify,
)
from lightning_plugins.simulators.fiber_laser.identification import QUANTITIES, with_parameters
from lightning_plugins.simulators.fiber_laser.parameter_paths import with_value

pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning_plugins.simulators.fiber_laser.PhysicalWarning"
)
INITIAL = Amplifier(
    Fiber(1.0, 10, 0.08, 8e25, cladding_diameter_um=125),
    (Pump(976, 10.0),),
    (Signal(1030, 0.3),),
    None,
)
TRUTH = {"fiber.ytterbium_per_m3": 6.3e25, "pump_coupling": 0.87}
BOUNDS = {"fiber.ytterbium_per_m3": (2e25, 2e26), "pump_coupling": (0.5, 1.0)}
PUMPS_W = np.linspace(2.0, 12.0, 6)


def measured(quantity, truth=TRUTH, error=0.0, rng=None):
    values = []
    for pump_w in PUMPS_W:
        amplifier = with_parameters(with_value(INITIAL, "pumps[0].power_w", pump_w), truth)
        values.append(QUANTITIES[quantity](amplifier.solve()))
    values = np.array(values)
    return values if rng is None else values * (1 + error * rng.standard_normal(values.shape))


def curves(values, error=0.01):
    return [
        Curve(quantity, "pumps[0].power_w", PUMPS_W, one, error) for quantity, one in values.items()
    ]


def test_exact_data_recover_the_parameters():
    data = {name: measured(name) for name in ("signal_out_w", "pump_left_w")}
    found = identify(INITIAL, BOUNDS, curves(data))
    assert {one.name: one.value for one in found.estimates} == pytest.approx(TRUTH, rel=1e-4)
    assert found.chi_squared < 1e-4
    assert found.indistinguishable == ()
    assert found.report == ()
    assert found.amplifier.fiber.ytterbium_per_m3 == pytest.approx(6.3e25, rel=1e-4)
    assert found.modelled[0] == pytest.approx(data["signal_out_w"], rel=1e-4)


def test_parameters_that_the_data_cannot_tell_apart_are_reported():
    bounds = {"fiber.ytterbium_per_m3": (2e25, 2e26), "cross_section_scale": (0.5, 2.0)}
    found = identify(INITIAL, bounds, curves({"pump_left_w": measured("pump_left_w")}))
    assert found.indistinguishable == (("fiber.ytterbium_per_m3", "cross_section_scale"),)
    assert "cannot be told apart by these data" in found.report[0]


def test_an_input_without_influence_is_reported_as_undetermined():
    bounds = BOUNDS | {"fiber.cladding_loss_per_m": (0.0, 1e-4)}
    amplifier = with_value(INITIAL, "fiber.cladding_loss_per_m", 5e-5)
    data = {name: measured(name) for name in ("signal_out_w", "pump_left_w")}
    found = identify(amplifier, bounds, curves(data))
    assert "fiber.cladding_loss_per_m is not determined within its bounds" in found.report


def test_residuals_beyond_the_stated_errors_are_reported():
    rng = np.random.default_rng(0)
    data = {name: measured(name, error=0.05, rng=rng) for name in ("signal_out_w", "pump_left_w")}
    found = identify(INITIAL, BOUNDS, curves(data, error=0.002))
    assert any("times the stated errors" in text for text in found.report)


def coverage(seeds):
    data = {name: measured(name) for name in ("signal_out_w", "pump_left_w")}
    covered = total = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        noisy = {
            name: one * (1 + 0.01 * rng.standard_normal(one.shape)) for name, one in data.items()
        }
        for estimate in identify(INITIAL, BOUNDS, curves(noisy)).estimates:
            covered += estimate.low <= TRUTH[estimate.name] <= estimate.high
            total += 1
    return covered / total


def test_intervals_of_five_noisy_data_sets_cover_the_truth():
    assert coverage(range(5)) >= 0.8


@pytest.mark.slow
def test_intervals_of_200_noisy_data_sets_cover_90_to_99_percent():
    assert 0.90 <= coverage(range(1000, 1200)) <= 0.99


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Curve("colour", "pumps[0].power_w", [1], [1]), "quantity = 'colour': allowed is"),
        (lambda: Curve("heat_w", "x", [1, 2], [1]), "expected 2 values, one per input, got 1"),
        (lambda: Curve("heat_w", "x", [1], [-1]), "must be finite and positive"),
        (
            lambda: identify(INITIAL, {"pump_coupling": (1.0, 0.5)}, []),
            r"unknowns\['pump_coupling'\]: 1 must be below 0.5",
        ),
        (
            lambda: identify(INITIAL, BOUNDS, [Curve("heat_w", "pumps[0].power_w", [1.0], [1.0])]),
            "2 unknowns require more than 1 values",
        ),
        (
            lambda: identify(
                INITIAL,
                {"pumps[0].power_w": (1.0, 2.0)},
                [Curve("heat_w", "pumps[0].power_w", [1.0, 2.0], [1.0, 2.0])],
            ),
            "a curve varies this input",
        ),
    ],
)
def test_invalid_measurements_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()
