"""A counter-pumped fiber on which plain relaxation alternates between two wrong states."""

import os

import numpy as np
import pytest
from scipy.constants import Planck, speed_of_light
from scipy.integrate import solve_ivp

from lightning_plugins.simulators.fiber_laser import (
    Amplifier,
    AseBand,
    Fiber,
    Pump,
    Signal,
    load_spectroscopy,
    ytterbium,
)
from lightning_plugins.simulators.fiber_laser.propagation import Lines, Propagation
from lightning_plugins.simulators.fiber_laser.steady_state import solve

FIBER = Fiber(1.0, 6, 0.12, 1e26, background_loss_per_m=0.005)
LIFETIME_S = 1e-3


def trap(ase, spectroscopy=None):
    return Amplifier(
        FIBER,
        (Pump(976, 0.5, "backward", path="core"),),
        (Signal(1018, 0.010),),
        ase,
        spectroscopy=spectroscopy or ytterbium("germanosilicate", LIFETIME_S),
    )


def passed(flux, gain, source, h):
    """Flux after a cell and its mean in it, by the textbook solution of a linear equation."""
    if abs(gain * h) < 1e-9:
        return flux + source * h, flux + source * h / 2
    settled = -source / gain
    after = settled + (flux - settled) * np.exp(gain * h)
    return after, settled + (flux - settled) * np.expm1(gain * h) / (gain * h)


def rates(x, lines, widths):
    """dx/d(t/τ) of each cell, line by line and cell by cell."""
    change = -x.copy()
    zeta = lines.saturation_per_m_s
    for line in range(lines.count):
        a, e = lines.absorption_per_m[line], lines.emission_per_m[line]
        loss, s = lines.loss_per_m[line], lines.spontaneous_per_m_s[line]
        for inflow, order in (
            (lines.forward_in_per_s[line], range(len(x))),
            (lines.backward_in_per_s[line], range(len(x) - 1, -1, -1)),
        ):
            flux = inflow / zeta
            for cell in order:
                gain = (a + e) * x[cell] - a - loss
                flux, mean = passed(flux, gain, s / zeta * x[cell], widths[cell])
                change[cell] += (a - (a + e) * x[cell]) * mean
    return change


def implicit_in_time(lines, widths, start, lifetimes=200.0):
    """The state that the ions settle in, by an implicit integrator of scipy."""
    state = np.full(len(widths), start)
    for rtol in (1e-6, 1e-10):
        result = solve_ivp(
            lambda _, x: rates(x, lines, widths),
            (0, lifetimes),
            state,
            method="BDF",
            rtol=rtol,
            atol=1e-13,
        )
        assert result.success
        state = result.y[:, -1]
    return state


def relaxed(lines, widths, sweeps=1000):
    """What alternating between light and ions gives, as many codes do."""
    x, found = np.full(len(widths), 1e-3), []
    for _ in range(sweeps):
        light = Propagation(lines, widths, x)
        found.append(light.forward[-1, 0])
        x = light.mean @ lines.absorption_per_m / light.rate()
    return np.array(found[-2:])


def test_plain_relaxation_does_not_converge_here():
    amplifier = trap(None)
    lines = amplifier.lines()
    w_per_flux = lines.saturation_per_m_s * amplifier.photon_energies_j[0]
    ends = relaxed(lines, np.full(100, 0.01)) * w_per_flux
    assert max(ends) / min(ends) > 1.2
    assert max(ends) < 0.7 * amplifier.solve().signal_out_w


@pytest.mark.parametrize("start", [1e-3, 0.5])
def test_the_steady_state_is_that_of_an_implicit_integration_in_time(start):
    agrees_with_an_implicit_integration(trap(AseBand(1000, 1100, 4)), start)


@pytest.fixture
def users_glass():
    """FIBER_LASER_SPECTROSCOPY: the tables of absorption and emission, as a path list.

    Those of germanosilicate (Paschotta et al. 1997) that PyFiberAmp digitised.
    """
    named = os.environ.get("FIBER_LASER_SPECTROSCOPY")
    if not named:
        pytest.skip("FIBER_LASER_SPECTROSCOPY names no table of cross-sections")
    return load_spectroscopy(
        *named.split(os.pathsep), lifetime_s=LIFETIME_S, complete_by_mccumber=True
    )


def test_cross_sections_from_a_table_agree_as_well(users_glass):
    agrees_with_an_implicit_integration(trap(AseBand(1000, 1100, 4), users_glass), 1e-3)


def test_the_published_tables_give_the_known_power(users_glass):
    """0.36796 W: light that overlaps the doped core wholly, no background loss, and noise of two
    polarisations in 20 lines from 1000 to 1100 nm, each 5 nm wide."""
    noise_nm = np.linspace(1000, 1100, 20)
    wavelengths_nm = np.r_[1018, 976, noise_nm]
    absorption = FIBER.ytterbium_per_m3 * users_glass.absorption_m2(wavelengths_nm)
    emission = FIBER.ytterbium_per_m3 * users_glass.emission_m2(wavelengths_nm)
    width_hz = np.r_[0, 0, speed_of_light / (noise_nm * 1e-9) ** 2 * 5e-9]
    photon_j = Planck * speed_of_light / (wavelengths_nm * 1e-9)
    nothing = np.zeros(len(wavelengths_nm))
    forward_w, backward_w = nothing.copy(), nothing.copy()
    forward_w[0], backward_w[1] = 0.010, 0.5
    lines = Lines(
        absorption,
        emission,
        nothing,
        2 * emission * width_hz,
        forward_w / photon_j,
        backward_w / photon_j,
        nothing,
        nothing,
        FIBER.core_area_m2 * FIBER.ytterbium_per_m3 / LIFETIME_S,
    )
    found = solve(lines, np.full(200, FIBER.length_m / 200)).propagation
    power = found.forward[-1, 0] * lines.saturation_per_m_s * photon_j[0]
    assert power == pytest.approx(0.36796, abs=1e-4)


def agrees_with_an_implicit_integration(amplifier, start, cells=32):
    lines, widths = amplifier.lines(), np.full(cells, FIBER.length_m / cells)
    found = solve(lines, widths).propagation
    excitation = implicit_in_time(lines, widths, start)
    assert found.excitation == pytest.approx(excitation, abs=1e-6)
    flux = lines.forward_in_per_s[0] / lines.saturation_per_m_s
    for cell, h in enumerate(widths):
        gain = lines.gain_slope_per_m[0] * excitation[cell]
        gain -= lines.absorption_per_m[0] + lines.loss_per_m[0]
        flux, _ = passed(flux, gain, 0.0, h)
    assert found.forward[-1, 0] == pytest.approx(flux, rel=1e-6)
    power = flux * lines.saturation_per_m_s * amplifier.photon_energies_j[0]
    assert amplifier.solve().signal_out_w == pytest.approx(power, rel=1e-3), "the coarse grid's"
    assert 0.1 < power < 0.5
