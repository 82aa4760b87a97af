"""Oscillators: two reflectors around a pumped fiber, against closed forms and the DBR laser."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import (
    YTTERBIUM_GLASSES,
    Amplifier,
    AseBand,
    Cavity,
    ConvergenceError,
    DbrLaser,
    Fiber,
    Grating,
    PhysicalWarning,
    Pump,
    Reflector,
    Signal,
    gradient,
    noise_transfer,
    ytterbium,
)
from lightning_plugins.simulators.fiber_laser.parameter_paths import value_at, with_value

pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning_plugins.simulators.fiber_laser.PhysicalWarning"
)
BAND = AseBand(1040, 1080, 40)


def oscillator(length_m=5.0, pump_w=20.0, output=0.1, back=0.99, band=BAND, **fiber):
    return Amplifier(
        Fiber(length_m, 10, 0.08, 5e25, cladding_diameter_um=125, **fiber),
        (Pump(976, pump_w),),
        (),
        band,
        (Reflector("start", back, 1063.4, 1064.6), Reflector("end", output, 1063.4, 1064.6)),
    )


@pytest.mark.parametrize("length_m", [2, 5, 10])
@pytest.mark.parametrize("output", [0.04, 0.1, 0.3])
def test_cladding_pumped_oscillators_converge_and_lase(length_m, output):
    for pump_w in (1, 10, 50, 100):
        result = oscillator(length_m, pump_w, output).solve()
        limit_w = result.pump_absorbed_w * 976 / 1064
        laser_w = result.laser_out_w("forward") + result.laser_out_w("backward")
        assert 0.7 < laser_w / limit_w < 0.99
        assert 1063.4 < result.laser_wavelength_nm < 1064.6
        assert result.photon_balance < 1e-12
        assert result.round_trip_gain == pytest.approx(1, abs=1e-4)


def lossless(pump_w):
    # A bin of 1e-6 nm: spontaneous emission is negligible.
    band = AseBand(1063.9999995, 1064.0000005, 1)
    return oscillator(5.0, pump_w, 0.1, band=band, background_loss_per_m=0.0)


@pytest.mark.parametrize("pump_w", [2.0, 20.0, 200.0])
def test_output_is_the_closed_form_of_photon_conservation_without_loss(pump_w):
    """With no loss and no ASE, X = ∫x dz follows from the round trip, then all powers follow.

    ln(R1 R2)/2 + (a + e) X - a L = 0 for the laser and the same gain formula for the pump (Saleh et
    al., IEEE Photon. Technol. Lett. 2, 714 (1990)); output photons = absorbed pump - ζ X.
    """
    laser = lossless(pump_w)
    lines, photon = laser.lines(), laser.photon_energies_j
    a, slope = lines.absorption_per_m, lines.gain_slope_per_m
    x_length = (a[1] * 5.0 - np.log(0.99 * 0.1) / 2) / slope[1]
    pump_left = pump_w * np.exp(slope[0] * x_length - a[0] * 5.0)
    photons = (pump_w - pump_left) / photon[0] - lines.saturation_per_m_s * x_length
    result = laser.solve(1e-6)
    total = result.laser_out_w("forward") + result.laser_out_w("backward")
    assert total == pytest.approx(photons * photon[1], rel=1e-5)
    assert result.pumps_left_w[0] == pytest.approx(pump_left, rel=1e-5)
    # The ratio of the outputs of a cavity without loss.
    ratio = (1 - 0.1) / (1 - 0.99) * np.sqrt(0.99 / 0.1)
    found = result.laser_out_w("forward") / result.laser_out_w("backward")
    assert found == pytest.approx(ratio, rel=1e-6)


def test_output_at_constant_pump_is_rigrods():
    """Rigrod, J. Appl. Phys. 34, 2602 (1963): uniform small-signal gain, homogeneous saturation."""
    # So little doping that the pump is constant along the fiber.
    fiber = Fiber(0.5, 10, 0.08, 2e22, background_loss_per_m=0.0)
    band = AseBand(1029.9999995, 1030.0000005, 1)
    mirrors = (Reflector("start", 0.9998, 1020, 1040), Reflector("end", 0.999, 1020, 1040))
    laser = Amplifier(fiber, (Pump(940, 2e3, path="core"),), (), band, mirrors)
    lines, photon = laser.lines(), laser.photon_energies_j
    a, slope, zeta = lines.absorption_per_m, lines.gain_slope_per_m, lines.saturation_per_m_s
    pump = 2e3 / photon[0] / zeta
    rate = 1 + slope[0] * pump
    gain0 = slope[1] * a[0] * pump / rate - a[1]
    # dx = [a_p P + a_s F] / [rate + slope F]: gain = (gain0 rate) / (rate + slope F).
    saturation_w = rate / slope[1] * photon[1] * zeta
    r1, r2 = np.sqrt(0.9998), np.sqrt(0.999)
    expected = saturation_w * (1 - 0.999) * r1 / ((r1 + r2) * (1 - r1 * r2))
    expected *= gain0 * 0.5 + np.log(r1 * r2)
    result = laser.solve(1e-6)
    assert result.laser_out_w("forward") == pytest.approx(expected, rel=5e-3)


def test_a_short_cavity_agrees_with_the_dbr_laser():
    back, front = Grating(1018, 10, 0.995), Grating(1018, 10, 0.8)
    dbr = DbrLaser(Cavity(back, front, 8.0, 0.05), 6, 0.12, 2e26, 976.0, 0.1)
    mode = dbr.mode.wavelength_nm
    mirrors = tuple(
        Reflector(end, float(grating.reflectivity(mode)), mode - 1e-3, mode + 1e-3)
        for end, grating in (("start", back), ("end", front))
    )
    band = AseBand(mode - 1e-6, mode + 1e-6, 1)
    laser = Amplifier(dbr.fiber, (Pump(976, 0.1, path="core"),), (), band, mirrors)
    result, expected = laser.solve(1e-5), dbr.solve()
    assert result.laser_out_w("forward") == pytest.approx(expected.output_w, rel=1e-3)
    assert result.laser_out_w("backward") == pytest.approx(expected.back_w, rel=1e-3)


def test_below_threshold_the_output_is_ase_with_a_warning():
    laser = oscillator(2.0, 0.05, 0.04)
    with pytest.warns(PhysicalWarning, match=r"below threshold: .* the output is ASE"):
        result = laser.solve()
    assert result.laser_out_w() == 0
    assert result.round_trip_gain < 0.9
    assert result.photon_balance < 1e-12
    with pytest.raises(ValueError, match="no line lases"):
        result.laser_wavelength_nm  # noqa: B018


def test_the_threshold_is_where_the_excitation_clamps():
    pumps = [0.1, 0.2, 0.3, 0.5, 1.0, 2.0]
    found = [oscillator(2.0, pump, 0.04).solve() for pump in pumps]
    gains = [result.round_trip_gain for result in found]
    powers = [result.laser_out_w() for result in found]
    assert gains == sorted(gains)
    assert all((gain > 0.999) == (power > 0) for gain, power in zip(gains, powers, strict=True))
    slopes = np.diff(powers[-3:]) / np.diff(pumps[-3:])
    assert slopes[1] == pytest.approx(slopes[0], rel=0.1)


def test_two_pairs_of_gratings_lase_on_the_line_of_higher_net_gain():
    mirrors = (
        Reflector("start", 0.99, 1049.9, 1050.1),
        Reflector("end", 0.1, 1049.9, 1050.1),
        Reflector("start", 0.99, 1069.9, 1070.1),
        Reflector("end", 0.1, 1069.9, 1070.1),
    )
    laser = replace(oscillator(), reflectors=mirrors)
    result = laser.solve()
    assert result.laser_wavelength_nm == pytest.approx(1070, abs=0.2)
    weaker = replace(laser, reflectors=(*mirrors[:3], replace(mirrors[3], reflectivity=1e-4)))
    assert weaker.solve().laser_wavelength_nm == pytest.approx(1050, abs=0.2)


def test_a_grating_narrower_than_a_bin_acts_on_its_own_bin():
    narrow = (Reflector("start", 0.9, 1050.4, 1050.5), Reflector("end", 0.1, 1050.4, 1050.5))
    laser = replace(oscillator(), reflectors=narrow)
    assert laser.ase_bins.count == BAND.bins + 2
    assert laser.ase_bins.widths_hz.sum() == pytest.approx(BAND.widths_hz.sum(), rel=1e-12)
    assert laser.solve().laser_wavelength_nm == pytest.approx(1050.45, abs=1e-9)
    bare = replace(oscillator(), reflectors=())
    carried = replace(laser, ase_forward_in_w=np.full(40, 1e-3))
    assert carried.lines().forward_in_per_s @ carried.photon_energies_j == pytest.approx(20.04)
    assert bare.ase_bins.edges_nm == pytest.approx(BAND.edges_nm, abs=0)


def test_a_reflector_outside_all_lines_raises():
    with pytest.raises(
        ValueError, match=r"reflectors\[1\]: no signal, pump or ASE bin lies from 99"
    ):
        replace(oscillator(), reflectors=(Reflector("end", 0.1), Reflector("start", 0.9, 990, 991)))


@pytest.mark.parametrize("output", ["forward", "backward"])
def test_gradients_through_an_oscillator_agree_with_differences(output):
    laser = oscillator(3.0, 20.0, 0.1, band=AseBand(1050, 1075, 5))
    result = laser.solve(1e-2)
    inputs = (
        "fiber.length_m",
        "fiber.ytterbium_per_m3",
        "fiber.background_loss_per_m",
        "pumps[0].power_w",
        "reflectors[0].reflectivity",
        "reflectors[1].reflectivity",
    )

    def total(leaving):
        return float(getattr(leaving, f"{output}_w")[1:].sum())

    found = gradient(result, inputs, total)
    for path in inputs:
        value = value_at(laser, path)
        ends = []
        for factor in (1 - 1e-4, 1 + 1e-4):
            changed = with_value(laser, path, value * factor).solve(1e-5)
            ends.append(changed.ase_out_w(output).sum())
        assert found[path] == pytest.approx((ends[1] - ends[0]) / (2e-4 * value), rel=2e-3), path


def test_dynamics_of_oscillators_are_refused():
    with pytest.raises(ValueError, match="light circulates between both ends"):
        noise_transfer(oscillator().solve(), "pumps[0].power_w", [1.0])


def random_oscillator(seed):
    rng = np.random.default_rng(seed)

    def between(low, high):
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    cladding = bool(rng.random() < 0.6)
    core = between(6, 25)
    fiber = Fiber(
        between(0.3, 15),
        core,
        float(rng.uniform(0.06, 0.12)),
        between(1e25, 1.5e26),
        core * float(rng.uniform(5, 15)),
        between(1e-3, 0.05),
    )
    centre, width = float(rng.uniform(1010, 1080)), between(0.05, 3)
    mirrors = (
        Reflector("start", float(rng.uniform(0.8, 0.999)), centre - width, centre + width),
        Reflector("end", between(0.02, 0.9), centre - width / 2, centre + width / 2),
    )
    pumps = tuple(
        Pump(
            float(rng.choice([915.0, 940.0, 976.0])),
            between(1, 500) if cladding else between(0.01, 3),
            direction,
            "cladding" if cladding else "core",
        )
        for direction in (("forward",), ("backward",), ("forward", "backward"))[rng.integers(3)]
    )
    signals = (Signal(float(rng.uniform(1000, 1080)), 1e-3),) if rng.random() < 0.1 else ()
    band = AseBand(1000, 1090, int(rng.integers(5, 40)))
    glass = ytterbium(str(rng.choice(YTTERBIUM_GLASSES)))
    return Amplifier(fiber, pumps, signals, band, mirrors, glass)


def converged_oscillators(seeds):
    converged = 0
    for seed in seeds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                result = random_oscillator(seed).solve()
            except ConvergenceError as error:
                print(seed, error)
                continue
        assert result.photon_balance < 1e-9
        assert result.round_trip_gain < 1
        converged += 1
    return converged


def test_every_one_of_40_random_oscillators_converges():
    assert converged_oscillators(range(40)) == 40


@pytest.mark.slow
def test_at_least_299_of_300_random_oscillators_converge():
    assert converged_oscillators(range(1000, 1300)) >= 299
