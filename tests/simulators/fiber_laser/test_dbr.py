"""The DBR seed: gratings, modes, threshold, power, linewidth, tuning."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import (
    Cavity,
    DbrLaser,
    FiberMount,
    Grating,
    schawlow_townes_hz,
    tuning_curve,
    ytterbium,
)
from lightning_plugins.simulators.fiber_laser.temperature_tuning import largest_mismatch_per_k

BACK, FRONT = Grating(1018, 10, 0.995), Grating(1018, 10, 0.8)
CAVITY = Cavity(BACK, FRONT, 8.0, loss_per_m=0.05)
LASER = DbrLaser(CAVITY, 6, 0.12, 2e26, pump_power_w=0.3, spectroscopy=ytterbium("liekki"))
WIDE = np.linspace(1, 95, 48)


def coupled_mode_reflectivity(grating, wavelength_nm):
    """Power reflected, by integrating the coupled-mode equations from the far end."""
    from scipy.integrate import solve_ivp

    kappa, length = grating.coupling_per_m, grating.length_mm * 1e-3
    mismatch = 1e9 * (1 / wavelength_nm - 1 / grating.bragg_wavelength_nm)
    detuning = 2 * np.pi * grating.refractive_index * mismatch

    def slopes(_, fields):
        forward, backward = fields
        return [
            1j * (detuning * forward + kappa * backward),
            -1j * (detuning * backward + kappa * forward),
        ]

    solution = solve_ivp(slopes, (length, 0), [1 + 0j, 0j], rtol=1e-10, atol=1e-12)
    forward, backward = solution.y[:, -1]
    return abs(backward / forward) ** 2


@pytest.mark.parametrize("offset_pm", [0.0, 20.0, 60.0, 150.0])
def test_reflectivity_solves_the_coupled_mode_equations(offset_pm):
    wavelength = 1018 + offset_pm * 1e-3
    expected = coupled_mode_reflectivity(FRONT, wavelength)
    assert float(FRONT.reflectivity(wavelength)) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_peak_and_first_zeros_match_their_formulas():
    assert float(FRONT.reflectivity(1018.0)) == pytest.approx(0.8, rel=1e-12)
    assert float(FRONT.reflectivity(1018.0 + FRONT.bandwidth_pm * 5e-4)) < 1e-5


def test_modes_near_the_centre_are_a_free_spectral_range_apart():
    # Weak gratings far narrower in the cavity's terms: their phase is nearly linear at the centre.
    cavity = Cavity(Grating(1018, 2, 0.6), Grating(1018, 2, 0.6), 30.0)
    modes = sorted(cavity.modes(within_pm=40), key=lambda mode: mode.wavelength_nm)
    distances = 1e3 * np.diff([mode.wavelength_nm for mode in modes])
    assert distances == pytest.approx(
        np.full(len(distances), cavity.free_spectral_range_pm), rel=5e-3
    )
    assert np.diff([mode.order for mode in modes]) == pytest.approx(-np.ones(len(distances)))


def test_a_mode_repeats_its_phase_after_a_round_trip():
    mode = CAVITY.modes()[0]
    half = 1e-3 * CAVITY.back.bandwidth_pm
    grid = np.sort(np.append(np.linspace(1018 - half, 1018 + half, 4001), mode.wavelength_nm))
    phase = CAVITY.round_trip_phase(grid)[np.searchsorted(grid, mode.wavelength_nm)]
    assert phase / (2 * np.pi) == pytest.approx(mode.order, abs=1e-3)


def test_a_wider_output_coupler_reduces_the_threshold_gap():
    wide = replace(CAVITY, front=Grating(1018, 3, 0.8))
    assert CAVITY.threshold_gap() > 2 * wide.threshold_gap()


def test_at_threshold_the_single_pass_gain_equals_the_loss():
    threshold = LASER.threshold_pump_w()
    at = replace(LASER, pump_power_w=threshold).solve()
    assert at.mean_excitation == pytest.approx(LASER.threshold_excitation(), rel=1e-4)
    assert at.output_w < 1e-6
    assert replace(LASER, pump_power_w=0.9 * threshold).solve().output_w == 0
    assert replace(LASER, pump_power_w=1.1 * threshold).solve().output_w > 1e-5


def test_above_threshold_the_excitation_is_clamped_and_the_power_rises_linearly():
    pumps = np.array([0.05, 0.1, 0.2, 0.4])
    results = [replace(LASER, pump_power_w=float(pump)).solve() for pump in pumps]
    excitations = [result.mean_excitation for result in results]
    assert excitations == pytest.approx([LASER.threshold_excitation()] * 4, rel=1e-6)
    powers = [result.output_w for result in results]
    # The share of the pump that is absorbed falls a little as it bleaches the end it enters.
    assert np.corrcoef(pumps, powers)[0, 1] > 0.999
    for pump, result in zip(pumps, results, strict=True):
        assert result.output_w + result.back_w < result.pump_absorbed_w * 976 / 1018
        assert result.pump_absorbed_w < pump


def test_photons_are_conserved_in_the_cavity():
    # All absorbed pump photons leave as light, are lost in the fiber, or decay.
    result, fiber, glass = LASER.solve(), LASER.fiber, LASER.spectroscopy
    rate = result.pump_absorbed_w * 976e-9 - (result.output_w + result.back_w) * 1018e-9
    decayed = result.mean_excitation * fiber.length_m * fiber.core_area_m2 * 2e26 / glass.lifetime_s
    from scipy.constants import Planck, speed_of_light

    lost = rate / (Planck * speed_of_light) - decayed
    assert 0 < lost < 0.05 * 0.3 * 976e-9 / (Planck * speed_of_light)


def test_too_little_doping_has_an_infinite_threshold():
    weak = replace(LASER, ytterbium_per_m3=2e25)
    assert weak.threshold_excitation() > 1
    assert weak.threshold_pump_w() == float("inf")
    assert weak.solve().output_w == 0
    assert weak.solve().quantum_linewidth_hz == float("inf")


@pytest.mark.parametrize(
    ("reflectivity", "hertz"), [(0.5, 73), (0.6, 40), (0.7, 20), (0.8, 8), (0.9, 2)]
)
def test_quantum_linewidths_of_a_12_mm_cavity_at_10_mw(reflectivity, hertz):
    loss = -np.log(reflectivity)
    spacing = 299792458 / (2 * 1.45 * 12e-3)
    found = schawlow_townes_hz(1018, 0.010, spacing, loss, loss, inversion_factor=1.3)
    assert found == pytest.approx(hertz, abs=0.07 * hertz + 0.5)
    tripled = schawlow_townes_hz(1018, 0.030, spacing, loss, loss, inversion_factor=1.3)
    assert tripled == pytest.approx(found / 3)


def test_the_quantum_limit_is_far_below_the_reported_linewidth():
    assert LASER.solve().quantum_linewidth_hz < 3250 / 40


@pytest.mark.parametrize(("thermo_optic", "nanometres"), [(6.1e-6, 0.64), (8.6e-6, 0.88)])
def test_bare_silica_tunes_by_no_more_than_its_constants_allow(thermo_optic, nanometres):
    curve = tuning_curve(CAVITY, WIDE, FiberMount(thermo_optic_per_k=thermo_optic))
    assert curve.range_nm == pytest.approx(nanometres, abs=0.01)
    assert curve.hops.size == 0


def test_a_bonded_fiber_tunes_linearly_by_a_nanometre_and_a_half():
    curve = tuning_curve(CAVITY, WIDE, FiberMount(mount_expansion_per_k=12e-6, strain_transfer=1))
    assert curve.range_nm == pytest.approx(1.49, abs=0.02)
    assert curve.r_squared > 0.999999
    assert curve.hops.size == 0


@pytest.mark.parametrize("share", [2e-4, 4e-4, 8e-4])
def test_quadratic_tuning_reduces_r_squared_as_the_closed_form(share):
    # λ = a T + b T² over a span s: 1 - R² = (b s / a)² / 15.
    linear = FiberMount()
    bent = FiberMount(quadratic_per_k2=share * linear.per_k / 2)
    curve = tuning_curve(CAVITY, np.linspace(-22, 72, 200), bent)
    assert 1 - curve.r_squared == pytest.approx((share / 2 * 94) ** 2 / 15, rel=0.1)


@pytest.mark.parametrize(("times", "hops"), [(0.85, 0), (1.15, 1)])
def test_the_mode_hops_when_the_mismatch_exceeds_half_a_spacing(times, hops):
    # Centred at the coldest temperature; the length factor that puts a mode there exactly.
    grid = np.linspace(1018 - 0.03, 1018 + 0.03, 4001)
    phase = CAVITY.round_trip_phase(grid)[2000] / (2 * np.pi)
    path = 2 * 1.45 * 8.0e6 / 1018
    centred = replace(CAVITY, optical_length_factor=1 + (round(phase) - phase) / path)
    assert centred.modes()[0].wavelength_nm == pytest.approx(1018, abs=1e-4)
    mount = FiberMount()
    mismatch = times * largest_mismatch_per_k(centred, 94)
    other = FiberMount(thermo_optic_per_k=mount.thermo_optic_per_k + mismatch)
    curve = tuning_curve(centred, np.linspace(25, 119, 95), mount, other)
    assert curve.hops.size == hops


def test_half_a_spacing_over_94_k_is_a_quarter_of_a_picometre_per_k_for_8_mm():
    # 0.238 pm/K for mirrors of no depth.
    thin = replace(CAVITY, back=Grating(1018, 0.01, 0.995), front=Grating(1018, 0.01, 0.8))
    assert largest_mismatch_per_k(thin, 94) * 1018e3 == pytest.approx(0.238, rel=0.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Grating(1018, 10, 1.0), "peak_reflectivity = 1: allowed is more than 0"),
        (lambda: Grating(1018, 0, 0.5), "length_mm = 0 mm"),
        (lambda: replace(LASER, pump_power_w=0), "pump_power_w = 0 W"),
        (lambda: replace(LASER, ytterbium_per_m3=-1), "ytterbium_per_m3 = -1 1/m³"),
        (lambda: FiberMount(strain_transfer=2), "strain_transfer = 2"),
        (lambda: tuning_curve(CAVITY, [1, 2], FiberMount()), "at least three increasing"),
    ],
)
def test_invalid_lasers_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()
