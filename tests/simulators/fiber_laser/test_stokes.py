"""Brillouin and Raman Stokes waves: closed forms of the undepleted waves, and their thresholds."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.constants import Boltzmann, Planck, speed_of_light
from scipy.integrate import quad

from lightning_plugins.simulators.fiber_laser import (
    Amplifier,
    Fiber,
    Pump,
    Signal,
    brillouin_stokes,
    brillouin_threshold,
    core_heating_k,
    design_from,
    four_wave_mixing_share,
    load_design,
    nonlinear_phase_rad,
    raman_stokes,
    raman_threshold_w,
)
from lightning_plugins.simulators.fiber_laser.nonlinear_limits import (
    BRILLOUIN_BANDWIDTH_HZ,
    RAMAN_BANDWIDTH_HZ,
    RAMAN_SHIFT_HZ,
    brillouin_shift_hz,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning_plugins.simulators.fiber_laser.PhysicalWarning"
)
# Hardly doped, so that a signal of constant power crosses it.
PASSIVE = Amplifier(
    Fiber(10.0, 10, 0.08, 1e18, 125, background_loss_per_m=0.0),
    (Pump(976, 1e-9),),
    (Signal(1064, 20.0),),
    None,
).solve()
AREA = float(PASSIVE.amplifier.fiber.effective_area_m2(1064.0))
AMPLIFIER = Amplifier(Fiber(1.5, 25, 0.065, 8e25, 250), (Pump(976, 155),), (Signal(1018, 5.7),))


def seed_w_per_hz(shift_hz):
    frequency = speed_of_light / 1064e-9 - shift_hz
    return Planck * frequency / -np.expm1(-Planck * shift_hz / (Boltzmann * 293.15))


@pytest.mark.parametrize("power_w", [0.5, 2.0, 4.0])
def test_undepleted_brillouin_wave_is_the_closed_form(power_w):
    """∫ hν (n + 1) (e^{G(δ)} - 1) dδ with a Lorentzian G(δ)."""
    gain = 5e-11 * power_w / AREA * 10.0
    density = seed_w_per_hz(brillouin_shift_hz(1064.0))

    def spectrum(offset):
        return np.expm1(gain / (1 + offset**2))

    expected = 2 * density * BRILLOUIN_BANDWIDTH_HZ / 2 * quad(spectrum, 0, 12)[0]
    wave = brillouin_stokes(PASSIVE, 5e-11)
    assert wave.output_w(power_w / 20.0) == pytest.approx(expected, rel=0.01)


def test_undepleted_raman_wave_is_the_closed_form():
    gain = 1e-19 / 1064e-9 * 500.0 / AREA * 10.0
    density = seed_w_per_hz(RAMAN_SHIFT_HZ)
    integral = quad(lambda offset: np.expm1(gain / (1 + offset**2)), 0, 12)[0]
    expected = 2 * density * RAMAN_BANDWIDTH_HZ / 2 * integral
    assert raman_stokes(PASSIVE).output_w(25.0) == pytest.approx(expected, rel=0.01)


def test_thresholds_of_a_passive_fiber_are_near_smiths():
    formula = brillouin_threshold(PASSIVE)
    integrated = brillouin_stokes(PASSIVE, 5e-11).threshold_w(20.0)
    assert integrated == pytest.approx(formula.low_w, rel=0.2)
    raman = raman_stokes(PASSIVE).threshold_w(20.0)
    assert raman == pytest.approx(raman_threshold_w(PASSIVE), rel=0.3)


def test_linewidth_raises_the_brillouin_threshold_as_the_summed_widths():
    plain = brillouin_stokes(PASSIVE, 5e-11).threshold_w(20.0)
    broad = brillouin_stokes(PASSIVE, 5e-11, signal_linewidth_hz=450e6).threshold_w(20.0)
    assert broad / plain == pytest.approx(10, rel=0.1)
    amplifier = replace(PASSIVE.amplifier, signals=(Signal(1064, 20.0, linewidth_hz=450e6),))
    own = brillouin_stokes(amplifier.solve(), 5e-11).threshold_w(20.0)
    assert own == pytest.approx(broad, rel=1e-6)


def test_more_bandwidth_never_lowers_the_threshold_formula():
    def low_w(linewidth_hz, bandwidth_hz):
        return brillouin_threshold(
            PASSIVE, signal_linewidth_hz=linewidth_hz, brillouin_bandwidth_hz=bandwidth_hz
        ).low_w

    for bandwidth_hz in (50e6, 500e6):
        rising = [low_w(linewidth_hz, bandwidth_hz) for linewidth_hz in (0, 10e6, 50e6, 1e9)]
        assert rising == sorted(rising)
    # The area of the gain spectrum is constant: ten times the width, a tenth of the peak.
    assert low_w(0, 500e6) == pytest.approx(10 * low_w(0, 50e6))


def test_heat_and_a_detuned_delivery_fiber_raise_the_brillouin_threshold():
    result = AMPLIFIER.solve()
    power = result.signal_out_w
    cold = brillouin_stokes(result, 5e-11, 0.5).threshold_w(power)
    hot = brillouin_stokes(result, 5e-11, 0.5, core_heating_k(result, 250, 1000)).threshold_w(power)
    detuned = brillouin_stokes(result, 5e-11, 0.5, delivery_detuning_hz=500e6).threshold_w(power)
    assert 1.01 < hot / cold < 1.3
    assert 1.1 < detuned / cold < 2.5


def test_ion_gain_lowers_the_brillouin_threshold():
    result = AMPLIFIER.solve()
    wave = brillouin_stokes(result, 5e-11)
    without = replace(wave, ion_gain_per_m=np.zeros_like(wave.ion_gain_per_m))
    ratio = wave.threshold_w(result.signal_out_w) / without.threshold_w(result.signal_out_w)
    assert 0.6 < ratio < 0.95


def test_a_backward_signal_has_the_threshold_of_its_mirror_image():
    mirrored = replace(
        AMPLIFIER, pumps=(Pump(976, 155, "backward"),), signals=(Signal(1018, 5.7, "backward"),)
    )
    found = [
        brillouin_stokes(one.solve(), 5e-11, 0.3).threshold_w(100.0)
        for one in (AMPLIFIER, mirrored)
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_nonlinear_phase_and_four_wave_mixing_are_their_closed_forms():
    phase = 2.6e-20 * 2 * np.pi / 1064e-9 * 20.0 * 10.0 / AREA
    assert nonlinear_phase_rad(PASSIVE) == pytest.approx(phase, rel=1e-6)
    two = replace(PASSIVE.amplifier, signals=(Signal(1064, 20.0), Signal(1064.001, 10.0))).solve()
    assert four_wave_mixing_share(two) == pytest.approx(phase**2 / 2, rel=1e-3)
    apart = replace(PASSIVE.amplifier, signals=(Signal(1064, 20.0), Signal(1074, 10.0))).solve()
    assert four_wave_mixing_share(apart) < 0.1 * phase**2
    with pytest.raises(ValueError, match="requires two signals, got 1"):
        four_wave_mixing_share(PASSIVE)


def test_limits_are_checked_on_every_stage():
    content = {
        "seed": {"signal": {"wavelength": "1064 nm", "power": "0.5 W"}},
        "ase": {"from": "1030 nm", "to": "1100 nm", "bins": 10},
        "stages": [
            {
                "name": "booster",
                "fiber": {
                    "length": "8 m",
                    "core_diameter": "6 um",
                    "core_na": 0.12,
                    "cladding_diameter": "125 um",
                    "ytterbium": "8e25 1/m^3",
                },
                "pumps": [{"wavelength": "976 nm", "power": "40 W"}],
            },
            {
                "name": "main",
                "fiber": {
                    "length": "1 m",
                    "core_diameter": "25 um",
                    "core_na": 0.065,
                    "cladding_diameter": "250 um",
                    "ytterbium": "8e25 1/m^3",
                },
                "pumps": [{"wavelength": "976 nm", "power": "1 W"}],
            },
        ],
    }
    texts = design_from(content).solve().warnings
    assert [text for text in texts if text.startswith("booster: Brillouin scattering")]
    content["seed"]["signal"]["linewidth"] = "50 GHz"
    texts = design_from(content).solve().warnings
    assert not [text for text in texts if "Brillouin" in text]


def test_the_reference_design_has_the_integrated_thresholds_of_the_note():
    result = load_design("reference_1018").solve()
    stokes = result.brillouin_stokes_threshold()
    assert stokes.low_w == pytest.approx(73, rel=0.1)
    assert stokes.high_w == pytest.approx(193, rel=0.1)
