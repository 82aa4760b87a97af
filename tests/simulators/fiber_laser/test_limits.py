"""Power limits: each formula against a closed form or an independent computation."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import jv, kv

from lightning_plugins.simulators.fiber_laser import (
    Amplifier,
    Fiber,
    Pump,
    Signal,
    beam_quality,
    brillouin_threshold,
    core_heating_k,
    instability_margin,
    largest_share,
)
from lightning_plugins.simulators.fiber_laser.nonlinear_limits import brillouin_shift_hz

FIBER = Fiber(1.2, 25, 0.065, 8e25, cladding_diameter_um=250)
RESULT = Amplifier(FIBER, (Pump(976, 150),), (Signal(1018, 10),)).solve()


def test_the_effective_length_is_the_integral_of_the_power():
    power = RESULT.forward_w[:, 0]
    steps = np.diff(RESULT.edges_m)
    expected = ((power[1:] + power[:-1]) / 2 * steps).sum() / power[-1]
    assert RESULT.effective_length_m == pytest.approx(expected)
    assert 0.3 * 1.2 < RESULT.effective_length_m < 1.2


def test_brillouin_threshold_is_smiths_formula():
    plain = brillouin_threshold(RESULT)
    area = float(FIBER.effective_area_m2(1018.0))
    assert plain.low_w == pytest.approx(21 * area / (5e-11 * RESULT.effective_length_m))
    assert plain.high_w == pytest.approx(2.5 * plain.low_w)
    longer = brillouin_threshold(RESULT, delivery_m=RESULT.effective_length_m)
    assert longer.low_w == pytest.approx(plain.low_w / 2)
    broader = brillouin_threshold(RESULT, signal_linewidth_hz=50e6, brillouin_bandwidth_hz=50e6)
    assert broader.low_w == pytest.approx(2 * plain.low_w)
    assert brillouin_shift_hz(1018) == pytest.approx(17.0e9, rel=2e-3)


def test_heat_is_the_quantum_defect_and_the_loss():
    # Without background loss: absorbed power times the defect, plus what ions radiate less of.
    clean = replace(RESULT.amplifier, fiber=replace(FIBER, background_loss_per_m=0.0))
    result = clean.solve()
    defect = result.pump_absorbed_w * (1 - 976 / 1018)
    assert result.heat_w == pytest.approx(defect, rel=0.05)
    assert RESULT.heat_w > result.heat_w


def test_core_heating_solves_the_heat_equation():
    # k (1/r)(r T')' = -q inside the core, conduction outside, convection at the surface.
    conductivity, convection, core, outer = 1.38, 200.0, 12.5e-6, 125e-6
    heat = float(RESULT.heat_w_per_m.max())
    radius = np.linspace(0, outer, 200_001)
    flux = np.where(
        radius < core,
        heat * radius / (2 * np.pi * core**2),
        heat / (2 * np.pi * np.maximum(radius, 1e-12)),
    )
    inside = np.trapezoid(flux / conductivity, radius)
    surface = heat / (2 * np.pi * outer * convection)
    found = core_heating_k(RESULT, 250, convection, conductivity).max()
    assert found == pytest.approx(inside + surface, rel=1e-4)


def test_the_instability_margin_compares_the_average_heat():
    margin = instability_margin(RESULT, threshold_w_per_m=30)
    assert margin.average_w_per_m == pytest.approx(RESULT.heat_w / 1.2)
    assert margin.margin == pytest.approx(30 / margin.average_w_per_m)
    assert margin.peak_w_per_m > margin.average_w_per_m


def numerical_beam_quality(content, fiber=FIBER, size=401, half_width=4.0):
    """M² by moments on a grid and finite differences of the fields."""
    axis = np.linspace(-half_width, half_width, size)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    radius, angle = np.hypot(x, y) + 1e-12, np.arctan2(y, x)
    position = momentum = 0.0
    for name, share in content.items():
        mode = fiber.mode(1018.0, name)
        order, u, w = mode.order, mode.u, mode.w
        field = np.where(
            radius < 1,
            jv(order, u * radius) / jv(order, u),
            kv(order, w * np.maximum(radius, 1)) / kv(order, w),
        ) * np.cos(order * angle)
        norm = (field**2).sum()
        slope = np.gradient(field, axis, axis=0)
        position += share * (x**2 * field**2).sum() / norm
        momentum += share * (slope**2).sum() / norm
    return 2 * np.sqrt(position * momentum)


@pytest.mark.parametrize(
    "content",
    [{"LP01": 1.0}, {"LP11": 1.0}, {"LP21": 1.0}, {"LP02": 1.0}, {"LP01": 0.8, "LP11": 0.2}],
    ids=str,
)
def test_beam_quality_agrees_with_moments_of_fields_on_a_grid(content):
    expected = numerical_beam_quality(content)
    assert beam_quality(FIBER, 1018.0, content) == pytest.approx(expected, rel=1e-2)


def test_modes_solve_their_characteristic_equation_and_cut_off():
    for name, order in (("LP01", 0), ("LP11", 1), ("LP21", 2), ("LP02", 0)):
        mode = FIBER.mode(1018.0, name)
        u, w = float(mode.u[0]), float(mode.w[0])
        left = u * jv(order + 1, u) / jv(order, u)
        assert left == pytest.approx(w * kv(order + 1, w) / kv(order, w), rel=1e-6)
        assert np.hypot(u, w) == pytest.approx(float(FIBER.v_number(1018.0)))
    single = Fiber(1.0, 6, 0.1, 1e25)
    with pytest.raises(ValueError, match=r"mode 'LP11': .* guides it from V = 2\.405 on"):
        beam_quality(single, 1018.0, {"LP11": 1.0})


def test_an_m2_of_1_3_allows_an_eighth_in_lp11():
    share = largest_share(FIBER, 1018.0, 1.3)
    assert share == pytest.approx(0.13, abs=0.01)
    content = {"LP01": 1 - share, "LP11": share}
    assert beam_quality(FIBER, 1018.0, content) == pytest.approx(1.3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: beam_quality(FIBER, 1018.0, {"LP01": 0.5}), "add up to 1"),
        (lambda: beam_quality(FIBER, 1018.0, {"TEM0": 1.0}), "expected LP and two digits"),
        (lambda: core_heating_k(RESULT, 10, 100), "outer_diameter_um = 10 µm: allowed is at least"),
        (lambda: brillouin_threshold(RESULT, delivery_m=-1), "delivery_m = -1 m"),
    ],
)
def test_invalid_input_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()
