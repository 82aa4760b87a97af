"""The amplifier against closed forms, and its order of convergence."""

from itertools import pairwise

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import (
    Amplifier,
    AseBand,
    Fiber,
    Pump,
    Reflector,
    Signal,
    quantum_limit_w,
    ytterbium,
)
from lightning_plugins.simulators.fiber_laser.steady_state import outputs, solve

FIBER = Fiber(2.0, 20, 0.08, 8e25, cladding_diameter_um=130)
FAINT = 1e-15
pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning_plugins.simulators.fiber_laser.PhysicalWarning"
)


def core_pumped(length_m=0.5, **changes):
    return Fiber(length_m, 6, 0.12, 5e25, **changes)


def test_an_undoped_fiber_has_only_background_loss():
    # At 1e14 ions per m³ the doped absorption is 1e-11 per m.
    passive = Fiber(3.0, 6, 0.12, 1e14, background_loss_per_m=0.1)
    amplifier = Amplifier(passive, (Pump(976, 1.0, path="core"),), (Signal(1018, 0.5),), ase=None)
    result = amplifier.solve()
    assert result.signal_out_w == pytest.approx(0.5 * np.exp(-0.3), rel=1e-6)
    assert result.pumps_left_w[0] == pytest.approx(np.exp(-0.3), rel=1e-6)


def test_weak_light_in_an_unpumped_fiber_follows_beer_lambert():
    fiber, glass = core_pumped(), ytterbium()
    result = Amplifier(
        fiber, (Pump(976, FAINT, path="core"),), (Signal(1018, FAINT),), None
    ).solve()
    absorbed = fiber.core_overlap(1018.0) * 5e25 * glass.absorption_m2(1018.0) + 0.005
    assert result.signal_out_w / FAINT == pytest.approx(np.exp(-absorbed * 0.5), rel=1e-6)


def test_a_weak_signal_in_a_bleached_fiber_has_the_small_signal_gain():
    # So strong a pump that the excitation is σa/(σa + σe) of the pump all along.
    fiber, glass = core_pumped(0.2, background_loss_per_m=0.0), ytterbium()
    result = Amplifier(fiber, (Pump(940, 1e7, path="core"),), (Signal(1018, FAINT),), None).solve()
    excitation = float(glass.transparency(940.0))
    density = float(fiber.core_overlap(1018.0)) * 5e25
    nepers = (
        density
        * 0.2
        * (
            excitation * (glass.absorption_m2(1018.0) + glass.emission_m2(1018.0))
            - glass.absorption_m2(1018.0)
        )
    )
    assert result.excitation == pytest.approx(np.full(result.excitation.size, excitation), rel=1e-6)
    assert np.log(result.signal_out_w / FAINT) == pytest.approx(float(nepers), rel=1e-6)


def test_ase_at_constant_excitation_matches_the_closed_form():
    # Spontaneous emission of a bin in a fiber of constant excitation: s x (e^{gL} - 1)/g.
    fiber, band = core_pumped(0.2, background_loss_per_m=0.0), AseBand(1010, 1050, bins=8)
    amplifier = Amplifier(fiber, (Pump(940, 1e7, path="core"),), ase=band)
    result, lines = amplifier.solve(), amplifier.lines()
    x = float(amplifier.spectroscopy.transparency(940.0))
    gain = (lines.gain_slope_per_m * x - lines.absorption_per_m)[1:]
    photons = lines.spontaneous_per_m_s[1:] * x * np.expm1(gain * 0.2) / gain
    expected = photons * amplifier.photon_energies_j[1:]
    assert result.ase_out_w("forward") == pytest.approx(expected, rel=1e-6)
    assert result.ase_out_w("backward") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("power", [1.0, 50.0, 400.0])
def test_the_signal_is_below_the_quantum_limit(direction, power):
    result = Amplifier(FIBER, (Pump(976, power, direction),), (Signal(1018, 5.0),)).solve()
    assert result.signal_out_w < quantum_limit_w(5.0, power, 976, 1018) * (1 + 1e-6)


def test_without_loss_each_absorbed_pump_photon_becomes_a_signal_photon():
    # At this saturation spontaneous decay is negligible.
    fiber = Fiber(20.0, 20, 0.08, 8e25, cladding_diameter_um=130, background_loss_per_m=0.0)
    glass = ytterbium(lifetime_s=1.0)
    amplifier = Amplifier(fiber, (Pump(976, 1e4),), (Signal(1018, 1e3),), None, spectroscopy=glass)
    result = amplifier.solve()
    limit = quantum_limit_w(1e3, result.pump_absorbed_w, 976, 1018)
    assert result.signal_out_w == pytest.approx(limit, rel=1e-5)
    assert result.heat_w == pytest.approx(result.pump_absorbed_w * (1 - 976 / 1018), rel=1e-3)


def test_energy_is_conserved_to_rounding():
    result = Amplifier(FIBER, (Pump(976, 100.0, "backward"),), (Signal(1018, 5.0),)).solve()
    left = result.signals_out_w.sum() + result.pumps_left_w.sum()
    left += result.ase_out_w("forward").sum() + result.ase_out_w("backward").sum()
    escaped = 105.0 - left - result.heat_w
    assert 0 < escaped < 5, "the rest is fluorescence"
    assert result.photon_balance < 1e-9


def test_outputs_converge_in_second_order_of_the_cell():
    amplifier = Amplifier(FIBER, (Pump(976, 100.0, "backward"),), (Signal(1018, 5.0),))
    lines = amplifier.lines()
    found = [
        outputs(solve(lines, np.full(cells, FIBER.length_m / cells)).propagation)
        for cells in (50, 100, 200, 400)
    ]
    present = found[-1] > 1e-9 * found[-1].max()
    changes = [np.abs(b - a)[present] / b[present] for a, b in pairwise(found)]
    orders = [np.log2(changes[i].max() / changes[i + 1].max()) for i in range(2)]
    assert orders == pytest.approx([2.0, 2.0], abs=0.1)


def test_the_estimated_grid_error_bounds_the_true_one():
    amplifier = Amplifier(FIBER, (Pump(976, 100.0, "backward"),), (Signal(1018, 5.0),))
    best = amplifier.solve(1e-6)
    for tolerance in (1e-2, 1e-3, 1e-4, 1e-5):
        result = amplifier.solve(tolerance)
        assert result.grid_error <= tolerance
        assert abs(result.signal_out_w / best.signal_out_w - 1) <= tolerance
        true = abs(result.ase_out_w("backward").sum() / best.ase_out_w("backward").sum() - 1)
        assert true <= 2 * tolerance


def test_a_mirror_gives_a_second_pass():
    # With all ions bleached by the pump, light goes out and back through the same gain.
    fiber = core_pumped(0.05, background_loss_per_m=0.0)
    mirror = Reflector("end", 0.5, from_nm=1000)
    amplifier = Amplifier(
        fiber, (Pump(940, 1e6, path="core"),), (Signal(1018, FAINT),), None, (mirror,)
    )
    result = amplifier.solve()
    single = result.forward_w[-1, 0] / FAINT
    assert result.backward_w[0, 0] / FAINT == pytest.approx(0.5 * single**2, rel=1e-9)
    assert result.signal_out_w == pytest.approx(0.5 * single * FAINT, rel=1e-9)
    assert result.photon_balance < 1e-9


def test_two_mirrors_give_the_geometric_series_of_round_trips():
    # Below threshold the geometric series of round trips sums up.
    fiber = core_pumped(0.05, background_loss_per_m=0.0)
    mirrors = (Reflector("start", 0.2, 1000), Reflector("end", 0.3, 1000))
    amplifier = Amplifier(
        fiber, (Pump(940, 1e6, path="core"),), (Signal(1018, FAINT),), None, mirrors
    )
    result = amplifier.solve()
    single = np.exp(result.grid.solution.propagation.nepers.sum(0)[0])
    series = sum((0.06 * single**2) ** trip for trip in range(200))
    assert 0.06 * single**2 < 1
    assert result.signal_out_w / FAINT == pytest.approx(0.7 * single * series, rel=1e-9)


def test_polarisations_and_exact_edges_scale_the_emission():
    faint = (Pump(976, 1e-3, path="core"),)
    one = Amplifier(core_pumped(), faint, ase=AseBand(1000, 1040, 10, polarisations=1)).solve()
    two = Amplifier(core_pumped(), faint, ase=AseBand(1000, 1040, 10, polarisations=2)).solve()
    assert two.ase_out_w().sum() == pytest.approx(2 * one.ase_out_w().sum(), rel=1e-3)
    coarse, fine = AseBand(1000, 1040, 10), AseBand(1000, 1040, 400)
    assert coarse.widths_hz.sum() == pytest.approx(fine.widths_hz.sum(), rel=1e-12)


def test_ase_suppression_scales_with_the_resolution():
    result = Amplifier(FIBER, (Pump(976, 100.0),), (Signal(1018, 5.0),)).solve()
    difference = result.ase_suppression_db(0.02) - result.ase_suppression_db(0.1)
    assert difference == pytest.approx(10 * np.log10(5), abs=1e-9)


def test_a_reflected_pump_that_leaves_does_not_count_as_absorbed():
    fiber = Fiber(0.3, 20, 0.08, 8e25, cladding_diameter_um=130)
    mirror = Reflector("end", 0.99, 970, 980)
    passing, doubled = (
        Amplifier(fiber, (Pump(976, 150),), (Signal(1018, 10),), reflectors=mirrors).solve()
        for mirrors in ((), (mirror,))
    )
    left = doubled.backward_w[0][1] + 0.01 * doubled.forward_w[-1][1]
    assert left > 20
    assert doubled.pump_absorbed_w == pytest.approx(150 - left, rel=1e-9)
    assert passing.pump_absorbed_w < doubled.pump_absorbed_w < 150
    # No more light is made than is absorbed.
    assert doubled.signal_out_w - 10 < doubled.pump_absorbed_w * 976 / 1018
