"""Gradients by the adjoint agree with differences of converged solutions."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import (
    Amplifier,
    AmplifierResult,
    AseBand,
    Fiber,
    Pump,
    Reflector,
    Signal,
)
from lightning_plugins.simulators.fiber_laser.gradients import Leaving, gradient
from lightning_plugins.simulators.fiber_laser.parameter_paths import value_at, with_value
from lightning_plugins.simulators.fiber_laser.steady_state import GridSolution, solve

pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning_plugins.simulators.fiber_laser.PhysicalWarning"
)

CLADDING = Amplifier(
    Fiber(1.5, 20, 0.08, 8e25, cladding_diameter_um=130),
    (Pump(976, 100.0), Pump(915, 30.0, "backward")),
    (Signal(1018, 5.0),),
    AseBand(985, 1085, 12),
    ase_forward_in_w=np.full(12, 1e-6),
)
CORE = Amplifier(
    Fiber(0.6, 6, 0.12, 5e25),
    (Pump(976, 0.5, "backward", path="core"),),
    (Signal(1018, 0.01),),
    AseBand(1000, 1100, 12),
)
MIRRORED = replace(
    CORE, reflectors=(Reflector("end", 0.1, 1010, 1025), Reflector("start", 0.02, 1010, 1025))
)
INPUTS = (
    "fiber.length_m",
    "fiber.core_diameter_um",
    "fiber.core_na",
    "fiber.ytterbium_per_m3",
    "fiber.background_loss_per_m",
    "pumps[0].power_w",
    "pumps[0].wavelength_nm",
    "signals[0].power_w",
    "signals[0].wavelength_nm",
    "spectroscopy.lifetime_s",
    "spectroscopy.temperature_k",
)


def leaving_of(amplifier, shares, guess):
    """Solve again on the grid with these shares of the length."""
    lines = amplifier.lines()
    solution = solve(lines, shares * amplifier.fiber.length_m, guess)
    state, edges = solution.propagation, np.append(0, np.cumsum(solution.propagation.widths_m))
    scale = amplifier.photon_energies_j * lines.saturation_per_m_s
    return Leaving(
        state.forward[-1] * scale * (1 - lines.reflectivity_at_end),
        state.backward[0] * scale * (1 - lines.reflectivity_at_start),
        float(shares @ state.excitation),
        shares * amplifier.fiber.length_m @ state.mean * scale,
        AmplifierResult(amplifier, GridSolution(solution, edges, 0.0)).heat_w,
        amplifier,
    )


def differenced(result, path, output):
    """Fourth-order central difference; cross-sections change within a few nanometres."""
    amplifier = result.amplifier
    shares = np.diff(result.edges_m) / amplifier.fiber.length_m
    value = value_at(amplifier, path)
    step = value * (2e-5 if "wavelength" in path else 2e-4)
    at = [
        output(leaving_of(with_value(amplifier, path, value + k * step), shares, result.excitation))
        for k in (-2, -1, 1, 2)
    ]
    return (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step)


OUTPUTS = {
    "signal": lambda leaving: leaving.forward_w[0],
    "backward ASE": lambda leaving: leaving.backward_w[-12:].sum(),
    "suppression": lambda leaving: np.log(leaving.forward_w[0] / leaving.forward_w[-12:].max()),
    "excitation": lambda leaving: leaving.mean_excitation,
    "power times length": lambda leaving: leaving.power_length_w_m[0],
    "heat per length": lambda leaving: leaving.heat_w / leaving.amplifier.fiber.length_m,
}


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize(
    "amplifier", [CLADDING, CORE, MIRRORED], ids=["cladding", "counter-pumped", "mirrors"]
)
def test_gradients_agree_with_central_differences(amplifier, output):
    result = amplifier.solve(1e-2)
    found = gradient(result, INPUTS, output)
    for path in INPUTS:
        expected = differenced(result, path, output)
        # For an input of small influence: relative to the effect of a relative change of 1.
        floor = 1e-8 / value_at(amplifier, path)
        assert found[path] == pytest.approx(expected, rel=1e-5, abs=floor), path


def test_gradients_with_respect_to_input_ase_and_reflectivity():
    result = CLADDING.solve(1e-2)
    path = "ase_forward_in_w[5]"
    assert gradient(result, (path,), OUTPUTS["suppression"])[path] == pytest.approx(
        differenced(result, path, OUTPUTS["suppression"]), rel=1e-5
    )
    result = MIRRORED.solve(1e-2)
    for path in ("reflectors[0].reflectivity", "reflectors[1].reflectivity"):
        assert gradient(result, (path,))[path] == pytest.approx(
            differenced(result, path, OUTPUTS["signal"]), rel=1e-5
        )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("fiber.lenght_m", "'lenght_m' is not one of length_m, core_diameter_um"),
        ("pumps[7].power_w", r"index \[7\] does not exist"),
        ("pumps[0]power_w!", "expected names and indices"),
    ],
)
def test_an_invalid_path_raises(path, message):
    with pytest.raises(ValueError, match=message):
        gradient(CORE.solve(1e-2), (path,))
