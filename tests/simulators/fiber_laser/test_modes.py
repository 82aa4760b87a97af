"""LP modes: overlaps and effective areas against Bessel integrals by quadrature, bend loss."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import jv, kv

from lightning_plugins.simulators.fiber_laser import Amplifier, Fiber, Pump, Signal
from lightning_plugins.simulators.fiber_laser.modes import mode_at


def integrals(mode, place):
    """∫ ψ^p r dr between radii, by adaptive quadrature over ln r."""
    order, u, w = mode.order, mode.u[place], mode.w[place]

    def field(r):
        return jv(order, u * r) / jv(order, u) if r < 1 else kv(order, w * r) / kv(order, w)

    def integral(power, low, high):
        if low < 1 < high:
            return integral(power, low, 1) + integral(power, 1, high)
        start = np.log(low) if low else -30.0
        found = quad(
            lambda s: field(np.exp(s)) ** power * np.exp(2 * s),
            start, np.log(high), limit=400, epsabs=0, epsrel=1e-10,
        )  # fmt: skip
        return found[0]

    return integral, 1 + 60 / w


@pytest.mark.parametrize(
    ("name", "v"),
    [("LP01", (0.8, 1.2, 2.4, 5.0, 20.0)), ("LP11", (2.6, 5.0, 12.0)), ("LP02", (4.2, 9.0))],
)
def test_overlaps_and_areas_equal_bessel_integrals(name, v):
    mode = mode_at(name, np.array(v))
    assert np.hypot(mode.u, mode.w) == pytest.approx(np.array(v), rel=1e-14)
    areas, angular = mode.effective_area(), 2 * np.pi if mode.order == 0 else 4 * np.pi / 3
    for place in range(len(v)):
        integral, far = integrals(mode, place)
        total = integral(2, 0, far)
        for radius in (0.3, 1.0, 1.7):
            expected = integral(2, 0, radius) / total
            assert mode.power_within(radius)[place] == pytest.approx(expected, rel=1e-7)
        area = angular * total**2 / integral(4, 0, far)
        assert areas[place] == pytest.approx(area, rel=1e-7)


def test_a_large_v_has_the_area_of_the_mode_that_vanishes_at_the_interface():
    # J_0(j_01 r): A = 2π (∫ J² r dr)² / ∫ J⁴ r dr.
    first_zero = 2.404825557695773
    second = quad(lambda r: jv(0, first_zero * r) ** 2 * r, 0, 1)[0]
    fourth = quad(lambda r: jv(0, first_zero * r) ** 4 * r, 0, 1)[0]
    expected = 2 * np.pi * second**2 / fourth
    assert mode_at("LP01", np.array([4000.0])).effective_area()[0] == pytest.approx(
        expected, rel=2e-3
    )


def test_the_gaussian_option_is_marcuses_and_differs_by_the_known_share():
    exact = Fiber(1.0, 25, 0.065, 8e25, 250)
    gaussian = Fiber(1.0, 25, 0.065, 8e25, 250, mode_model="gaussian")
    radius = float(gaussian.mode_field_radius_um(1018.0))
    assert float(gaussian.effective_area_m2(1018.0)) == pytest.approx(np.pi * radius**2 * 1e-12)
    assert float(gaussian.core_overlap(1018.0)) == pytest.approx(
        1 - np.exp(-2 * (12.5 / radius) ** 2)
    )
    ratio = float(gaussian.effective_area_m2(1018.0) / exact.effective_area_m2(1018.0))
    assert ratio == pytest.approx(0.89, abs=0.01)


def test_confined_and_ring_doping_divide_the_overlap_of_the_core():
    whole = Fiber(1.0, 20, 0.08, 8e25, 130)
    disc = Fiber(1.0, 20, 0.08, 8e25, 130, doped_diameter_um=12)
    ring = Fiber(1.0, 20, 0.08, 8e25, 130, doped_inner_diameter_um=12)
    for mode in ("LP01", "LP11"):
        parts = float(disc.core_overlap(1018.0, mode) + ring.core_overlap(1018.0, mode))
        assert parts == pytest.approx(float(whole.core_overlap(1018.0, mode)), rel=1e-12)
    assert disc.doped_area_m2 + ring.doped_area_m2 == pytest.approx(whole.core_area_m2)
    assert disc.cladding_overlap() == pytest.approx((12 / 130) ** 2)
    # Confined doping favours the fundamental mode.
    favour = [
        float(fiber.core_overlap(1018.0) / fiber.core_overlap(1018.0, "LP11"))
        for fiber in (ring, whole, disc)
    ]
    assert favour[0] < 1 < favour[1] < favour[2]


@pytest.mark.filterwarnings("ignore::lightning_plugins.simulators.fiber_laser.PhysicalWarning")
def test_a_higher_mode_gains_less_from_confined_doping():
    def share(**doping):
        fiber = Fiber(1.5, 25, 0.065, 8e25, 250, **doping)
        signals = (Signal(1030, 0.9), Signal(1030, 0.1, mode="LP11"))
        out = Amplifier(fiber, (Pump(976, 60),), signals, None).solve().signals_out_w
        return out[1] / out.sum()

    assert share(doped_diameter_um=12) < share() < 0.1


def test_bend_loss_is_marcuses_formula_and_grows_for_higher_modes_and_tighter_bends():
    fiber = Fiber(1.0, 25, 0.065, 8e25, 250, bend_radius_m=0.05)
    mode = fiber.mode(1018.0)
    u, w, a = float(mode.u[0]), float(mode.w[0]), 12.5e-6
    radius, beta2 = 1.28 * 0.05, (2 * np.pi * 1.45 / 1018e-9) ** 2 - (u / a) ** 2
    expected = np.sqrt(np.pi) * (u / a) ** 2 * np.exp(-2 / 3 * (w / a) ** 3 * radius / beta2)
    expected /= 2 * (w / a) ** 1.5 * (u**2 + w**2) * np.sqrt(radius) * kv(1, w) ** 2
    assert float(fiber.bend_loss_per_m(1018.0)) == pytest.approx(expected, rel=1e-10)
    assert fiber.bend_loss_per_m(1018.0, "LP11") > 100 * fiber.bend_loss_per_m(1018.0)
    tighter = Fiber(1.0, 25, 0.065, 8e25, 250, bend_radius_m=0.03)
    assert tighter.bend_loss_per_m(1018.0) > 10 * fiber.bend_loss_per_m(1018.0)
    lines = Amplifier(tighter, (Pump(976, 1),), (Signal(1018, 1),)).lines()
    assert lines.loss_per_m[0] == pytest.approx(0.005 + float(tighter.bend_loss_per_m(1018.0)))
    assert lines.loss_per_m[1] == 0.005, "the pump in the cladding has no bend loss"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fiber(1, 20, 0.08, 8e25, doped_diameter_um=25), "doped_diameter_um = 25 µm"),
        (
            lambda: Fiber(1, 20, 0.08, 8e25, doped_inner_diameter_um=20),
            "doped_inner_diameter_um = 20 µm: allowed is less than 20 µm",
        ),
        (lambda: Fiber(1, 20, 0.08, 8e25, mode_model="flat"), "mode_model = 'flat'"),
        (lambda: Fiber(1, 6, 0.1, 1e25).core_overlap(1018.0, "LP11"), "guides it from V = 2.405"),
    ],
)
def test_invalid_geometry_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()
