"""The fiber's own heat sets its temperature, and so its cross-sections, along z."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import (
    YTTERBIUM_GLASSES,
    Amplifier,
    AmplifierResult,
    AseBand,
    ConvergenceError,
    Cooling,
    Fiber,
    PhysicalWarning,
    Pump,
    Reflector,
    Signal,
    design_from,
    gradient,
    noise_transfer,
    transient,
    ytterbium,
)
from lightning_plugins.simulators.fiber_laser.steady_state import solve_on_adapted_grid

pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning_plugins.simulators.fiber_laser.PhysicalWarning"
)
MAIN = Amplifier(
    Fiber(1.8, 25, 0.065, 8e25, 250),
    (Pump(976, 155),),
    (Signal(1018, 5.7),),
    AseBand(1000, 1060, 6),
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", PhysicalWarning)
    HOT = replace(MAIN, cooling=Cooling(50.0)).solve()
RESISTANCE = 1 / (4 * np.pi * 1.38) + np.log(10) / (2 * np.pi * 1.38)  # of 25 in 250 µm


def test_light_lost_in_a_passive_fiber_heats_it_in_proportion_to_its_decay():
    """ΔT(z) = R α P e^{-αz} without ions that matter."""
    fiber = Fiber(2.0, 25, 0.065, 1e18, 250, background_loss_per_m=0.7, cladding_loss_per_m=0.0)
    lossy = Amplifier(fiber, (Pump(976, 1e-9),), (Signal(1064, 8.0),), None, cooling=Cooling(80.0))
    result = lossy.solve(1e-6)
    resistance = RESISTANCE + 1 / (np.pi * 250e-6 * 80.0)
    low, high = result.edges_m[:-1], result.edges_m[1:]
    heat = 8.0 * (np.exp(-0.7 * low) - np.exp(-0.7 * high)) / (high - low)
    assert result.heating_k == pytest.approx(resistance * heat, rel=1e-4)


def test_the_quantum_defect_is_the_rise_of_a_saturated_amplifier():
    """∫ΔT dz = R (1 - λp/λs) P_absorbed where all ions that absorb emit into the signal."""
    fiber = Fiber(3.0, 20, 0.08, 8e25, 130, background_loss_per_m=0.0)
    strong = Amplifier(fiber, (Pump(976, 40),), (Signal(1064, 500.0),), None, cooling=Cooling(300))
    result = strong.solve()
    resistance = strong.cooling.resistance_k_m_per_w(fiber)
    assert resistance == pytest.approx(
        1 / (4 * np.pi * 1.38) + np.log(6.5) / (2 * np.pi * 1.38) + 1 / (np.pi * 130e-6 * 300)
    )
    rise = result.heating_k @ np.diff(result.edges_m)
    assert rise == pytest.approx(resistance * (1 - 976 / 1064) * result.pump_absorbed_w, rel=5e-3)


def test_heat_lowers_pump_absorption_at_976_and_gain_at_1018_nm():
    """Moore et al. (2011): absorption falls at 977 nm and rises from 1020 nm on."""
    outputs, left = [], []
    for convection in (1e6, 1000.0, 200.0, 50.0):
        result = replace(MAIN, cooling=Cooling(convection)).solve()
        assert result.photon_balance <= 1e-9
        assert result.grid_error <= 1e-4
        outputs.append(result.signal_out_w)
        left.append(float(result.pumps_left_w[0]))
    assert outputs == sorted(outputs, reverse=True)
    assert left == sorted(left)
    cold = MAIN.solve().signal_out_w
    assert 0 < 1 - outputs[0] / cold < 2e-3  # 3 K through the glass remain
    assert 1 - outputs[-1] / cold > 0.05


def test_the_temperature_agrees_with_the_heat_that_it_causes():
    resistance = HOT.amplifier.cooling.resistance_k_m_per_w(HOT.amplifier.fiber)
    assert HOT.heating_k == pytest.approx(resistance * HOT.heat_w_per_m, rel=1e-4)
    assert HOT.heating_k.max() > 80
    assert HOT.heating_k[0] > 1.5 * HOT.heating_k[-1]  # the pump enters at z = 0
    assert HOT.summary()["hottest_core_k"] == HOT.heating_k.max()


def test_equal_temperatures_of_all_cells_are_the_temperature_of_the_glass():
    warm = replace(MAIN, spectroscopy=ytterbium().at_temperature(353.15)).solve()
    grid = solve_on_adapted_grid(lambda at: MAIN.lines(np.full(at.size - 1, 353.15)), 1.8)
    assert AmplifierResult(MAIN, grid).signal_out_w == pytest.approx(warm.signal_out_w, rel=1e-10)


@pytest.mark.parametrize("name", YTTERBIUM_GLASSES)
def test_cross_sections_are_interpolated_in_temperature(name):
    glass, at = ytterbium(name), np.linspace(900, 1100, 41)
    temperature = np.linspace(293.15, 590, 7)
    for sigma in ("absorption_m2", "emission_m2"):
        found = glass.along(temperature, lambda one, sigma=sigma: getattr(one, sigma)(at))
        exact = [getattr(glass.at_temperature(kelvin), sigma)(at) for kelvin in temperature]
        assert found == pytest.approx(np.array(exact), rel=1e-5)


def test_an_oscillator_heats_itself():
    mirrors = (Reflector("start", 0.99, 1063.4, 1064.6), Reflector("end", 0.1, 1063.4, 1064.6))
    laser = Amplifier(
        Fiber(5, 10, 0.08, 5e25, 125), (Pump(976, 50),), (), AseBand(1050, 1075, 10), mirrors
    )
    hot = replace(laser, cooling=Cooling(30.0)).solve()
    assert hot.photon_balance <= 1e-9
    assert hot.heating_k.max() > 100
    assert 0.9 < hot.output_w / laser.solve().output_w < 1


def test_a_core_too_hot_for_the_cross_sections_raises():
    with pytest.raises(ConvergenceError, match=r"cooling: .* valid up to 600 K; increase the conv"):
        replace(MAIN, ase=None, cooling=Cooling(5.0)).solve(1e-2)


def test_an_undisturbed_hot_amplifier_stays_in_its_steady_state():
    """Transients, pulses and noise keep the temperatures of the start."""
    still = transient(HOT, lambda _: HOT.amplifier, [0.0, 1e-3, 5e-3])
    assert still.signals_out_w[-1] == pytest.approx([HOT.signal_out_w], rel=1e-6)
    response = noise_transfer(HOT, "pumps[0].power_w", [1e-3])[0].real
    above, below = (
        replace(HOT.amplifier, pumps=(Pump(976, 155 * factor),)).solve(guess=HOT).signal_out_w
        for factor in (1.001, 0.999)
    )
    with_heat = (above - below) / 0.002 / HOT.signal_out_w
    assert 0 < with_heat < response < 1.3 * with_heat


def test_gradients_of_a_heated_fiber_are_refused():
    with pytest.raises(ValueError, match="set cooling = None"):
        gradient(HOT, ("fiber.length_m",))


def test_a_stage_of_a_design_file_has_a_cooling():
    fiber = {
        "length": "1.8 m",
        "core_diameter": "25 um",
        "core_na": 0.065,
        "cladding_diameter": "250 um",
        "ytterbium": "8e25 1/m^3",
    }
    stage = {
        "name": "main",
        "fiber": fiber,
        "pumps": [{"wavelength": "976 nm", "power": "155 W"}],
        "cooling": {"convection": "50 W/m^2/K"},
    }
    seed = {"signal": {"wavelength": "1018 nm", "power": "5.7 W"}}
    ase = {"from": "1000 nm", "to": "1060 nm", "bins": 6}
    result = design_from({"seed": seed, "ase": ase, "stages": [stage]}).solve()
    assert result.core_heating_k() == pytest.approx(HOT.heating_k, rel=1e-3)
    with pytest.raises(ValueError, match="convection_w_per_m2_k = -1"):
        Cooling(-1)
