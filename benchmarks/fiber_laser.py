"""CPU time of converged fiber amplifiers and oscillators, against PyFiberAmp and scipy's solve_bvp.

usage: python benchmarks/fiber_laser.py [--pyfiberamp FOLDER] [--repeats 7] [--bins 20 50 100]

PyFiberAmp is on no package index: clone `Jomiri/pyfiberamp` and give its folder; numba makes its
time steps fast. It is not a part of this project. All three solve the same channels: PyFiberAmp's
own cross-sections, overlaps and bins where its folder is given, else ours.
"""

import argparse
import contextlib
import os
import platform
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import scipy
from scipy.integrate import solve_bvp

from lightning_plugins.simulators.fiber_laser import (
    Amplifier,
    AseBand,
    Fiber,
    Pump,
    Signal,
    sweep,
    ytterbium,
)
from lightning_plugins.simulators.fiber_laser.propagation import Lines
from lightning_plugins.simulators.fiber_laser.steady_state import (
    GridSolution,
    solve_on_adapted_grid,
)

LIFETIME_S = 1e-3
PLANCK = 6.62607e-34  # the digits that PyFiberAmp has
CASES = {
    "core": (0.6, 6.0, 0.12, 5e25, None, 0.010, 0.5),
    "clad": (2.0, 25.0, 0.065, 1.2e26, 250.0, 5.0, 155.0),
}
# length_m, core µm, NA, ions per m³, loss 1/m, cladding µm, pump W, wavelength and width nm,
# reflectivity at the output and at the start. The first is the example of PyFiberAmp.
OSCILLATORS = {
    "its example": (1.0, 6.0, 0.12, 1e25, 0.0, None, 0.2, 1030.0, 1.0, 0.9, 1.0),
    "2 m, 5 W": (2.0, 10.0, 0.08, 5e25, 0.005, 125.0, 5.0, 1064.0, 1.2, 0.1, 0.99),
    "2 m, 20 W": (2.0, 10.0, 0.08, 5e25, 0.005, 125.0, 20.0, 1064.0, 1.2, 0.04, 0.99),
    "5 m, 20 W": (5.0, 10.0, 0.08, 5e25, 0.005, 125.0, 20.0, 1064.0, 1.2, 0.3, 0.99),
}
EXAMPLE_NODES, EXAMPLE_STEPS = 100, 2_000_000
NO_LIGHT_W = 1e-6


class Powers(types.SimpleNamespace):
    """Leaving signal, forward and backward ASE in W."""

    def errors(self, of: "Powers") -> str:
        shares = (
            f"{getattr(of, name) / getattr(self, name) - 1:+.0e}"
            for name in ("signal", "forward", "backward")
        )
        return "signal {} ASE forward {} backward {}".format(*shares)


def cpu_seconds(call: Callable[[], object], repeats: int) -> float:
    call()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def our_lines(case: str, bins: int) -> tuple[Lines, np.ndarray]:
    length, core, na, density, cladding, signal, pump = CASES[case]
    fiber = Fiber(length, core, na, density, cladding)
    amplifier = Amplifier(
        fiber,
        (Pump(976, pump, path="core" if cladding is None else "cladding"),),
        (Signal(1018, signal),),
        AseBand(1000, 1100, bins),
        spectroscopy=ytterbium("germanosilicate", LIFETIME_S),
    )
    return amplifier.lines(), amplifier.photon_energies_j


def powers_of(solution: GridSolution, photon_j: np.ndarray) -> Powers:
    state = solution.solution.propagation
    scale = photon_j * state.lines.saturation_per_m_s
    forward, backward = state.forward[-1] * scale, state.backward[0] * scale
    return Powers(signal=forward[0], forward=forward[2:].sum(), backward=backward[2:].sum())


def solve_by_collocation(lines: Lines, photon_j: np.ndarray, near: GridSolution) -> Powers:
    """Solve by scipy's solve_bvp with an analytic Jacobian, from our coarse solution."""
    spontaneous = lines.spontaneous_per_m_s / lines.saturation_per_m_s
    channels = np.concatenate([np.arange(lines.count), np.arange(2, lines.count)])
    sign = np.concatenate([np.ones(lines.count), -np.ones(lines.count - 2)])[:, None]
    a, e = lines.absorption_per_m[channels, None], lines.emission_per_m[channels, None]
    loss, s = lines.loss_per_m[channels, None], spontaneous[channels, None]

    def excitation(flux):
        return (a * flux).sum(0) / (1 + ((a + e) * flux).sum(0))

    def slope(_, flux):
        x = excitation(flux)
        return sign * (((a + e) * x - a - loss) * flux + s * x)

    def jacobian(_, flux):
        x = excitation(flux)
        by_flux = (a - (a + e) * x) / (1 + ((a + e) * flux).sum(0))
        gain = sign * ((a + e) * x - a - loss)
        full = (sign * ((a + e) * flux + s))[:, None, :] * by_flux[None, :, :]
        diagonal = np.arange(len(channels))
        full[diagonal, diagonal] += gain
        return full

    inflow = np.concatenate([lines.forward_in_per_s, np.zeros(lines.count - 2)])
    inflow = inflow / lines.saturation_per_m_s
    first = np.arange(len(channels)) < lines.count

    def boundary(start, end):
        return np.where(first, start, end) - inflow

    state, edges = near.solution.propagation, near.edges_m
    guess = np.concatenate([state.forward.T, state.backward.T[2:]])
    found = solve_bvp(slope, boundary, edges, guess, fun_jac=jacobian, tol=1e-5, max_nodes=20_000)
    if not found.success:
        raise RuntimeError(found.message)
    watts = found.y * lines.saturation_per_m_s * photon_j[channels, None]
    return Powers(
        signal=watts[0, -1],
        forward=watts[2 : lines.count, -1].sum(),
        backward=watts[lines.count :, 0].sum(),
    )


class PyFiberAmp:
    """The two fibers of PyFiberAmp, with the same channels."""

    def __init__(self, folder: str) -> None:
        sys.path.insert(0, folder)
        original = np.loadtxt

        def loadtxt(name, converters=None, **options):
            # Its converters expect the bytes that numpy no longer passes.
            if converters is None:
                return original(name, **options)
            with open(name) as file:
                rows = [line.replace(",", ".").split() for line in file if line.strip()]
            return np.array(rows, dtype=float)

        np.loadtxt = loadtxt
        try:
            from pyfiberamp.channels import Channels
            from pyfiberamp.dynamic import DynamicSimulation
            from pyfiberamp.fibers import YbDopedDoubleCladFiber, YbDopedFiber
            from pyfiberamp.steady_state import SteadyStateSimulation
            from pyfiberamp.steady_state.models.giles_model import GilesModel
        finally:
            np.loadtxt = original
        # Its own conversion of an array of one index fails with numpy 2.4.
        Channels.get_channel_id_index = lambda self, channel_id: next(
            place for place, one in enumerate(self.as_iterator()) if one.channel_id == channel_id
        )
        self.fibers = YbDopedFiber, YbDopedDoubleCladFiber
        self.simulation, self.model = SteadyStateSimulation, GilesModel
        self.dynamic = DynamicSimulation

    def set_up(self, case: str, bins: int):
        length, core, na, density, cladding, signal, pump = CASES[case]
        common = {
            "length": length,
            "core_radius": core / 2 * 1e-6,
            "ion_number_density": density,
            "background_loss": 0.005,
            "core_na": na,
        }
        if cladding is None:
            fiber = self.fibers[0](**common)
        else:
            fiber = self.fibers[1](ratio_of_core_and_cladding_diameters=core / cladding, **common)
        simulation = self.simulation(fiber)
        simulation.add_forward_signal(1018e-9, signal)
        simulation.add_forward_pump(976e-9, pump)
        simulation.add_ase(1000e-9, 1100e-9, bins)
        simulation.solver_verbosity = 0
        return simulation

    def run(self, case: str, bins: int) -> Powers:
        watts = self.set_up(case, bins).run(tol=1e-5).powers
        return Powers(
            signal=watts[0, -1],
            forward=watts[2 : 2 + bins, -1].sum(),
            backward=watts[2 + bins :, 0].sum(),
        )

    def set_up_oscillator(self, case: str, kind: type | None = None, **options):
        length, core, na, density, loss, cladding, pump, at, width, output, back = OSCILLATORS[case]
        common = {
            "length": length,
            "core_radius": core / 2 * 1e-6,
            "ion_number_density": density,
            "background_loss": loss,
            "core_na": na,
        }
        if cladding is None:
            fiber = self.fibers[0](**common)
        else:
            fiber = self.fibers[1](ratio_of_core_and_cladding_diameters=core / cladding, **common)
        simulation = (kind or self.simulation)(fiber=fiber, **options)
        common = {"wl": at * 1e-9, "input_power": 0.0, "wl_bandwidth": width * 1e-9}
        simulation.add_forward_signal(
            channel_id="out", reflection_target_id="back", reflectance=output, **common
        )
        simulation.add_backward_signal(
            channel_id="back", reflection_target_id="out", reflectance=back, **common
        )
        simulation.add_forward_pump(976e-9, pump)
        simulation.solver_verbosity = 0
        return simulation

    def run_oscillator(self, case: str, guess: np.ndarray | None = None) -> float:
        """Return the output in W of its steady state, from its own or a given guess.

        Raises:
            AssertionError: solve_bvp does not converge.
        """
        simulation = self.set_up_oscillator(case)
        if guess is not None:
            simulation.set_guess_array(guess)
        return float(simulation.run(tol=1e-5).powers[0, -1] * (1 - OSCILLATORS[case][9]))

    def run_in_time(self, case: str, steps: int = EXAMPLE_STEPS) -> float:
        """Return the output in W after the time steps of its example, by its fastest backend."""
        simulation = self.set_up_oscillator(case, self.dynamic, max_time_steps=steps)
        with contextlib.redirect_stdout(None):
            powers = simulation.run(EXAMPLE_NODES).powers
        return float(powers[0, -1] * (1 - OSCILLATORS[case][9]))

    def oscillator_lines(self, case: str) -> tuple[Lines, np.ndarray]:
        """Return the channels of its oscillator as spectral lines of our solver."""
        simulation = self.set_up_oscillator(case)
        model = self.model(simulation.channels, simulation.fiber)
        frequency, absorption, emission, loss, modes, width = (
            getattr(model, name).ravel()[:2] for name in ("v", "a", "g", "loss", "m", "dv")
        )
        photon_j, (pump, _, _, output, back) = PLANCK * frequency, OSCILLATORS[case][6:]
        lines = Lines(
            absorption,
            emission,
            loss,
            emission * modes * width,
            np.array([0.0, pump / photon_j[1]]),
            np.zeros(2),
            np.array([back, 0.0]),
            np.array([output, 0.0]),
            simulation.fiber.saturation_parameter(),
        )
        return lines, photon_j

    def lines(self, case: str, bins: int) -> tuple[Lines, np.ndarray]:
        """Return its channels as spectral lines of our solver."""
        simulation = self.set_up(case, bins)
        model = self.model(simulation.channels, simulation.fiber)
        count = bins + 2
        frequency, absorption, emission, loss, modes, width = (
            getattr(model, name).ravel()[:count] for name in ("v", "a", "g", "loss", "m", "dv")
        )
        photon_j = PLANCK * frequency
        entering = np.zeros(count)
        entering[:2] = np.array(CASES[case][5:]) / photon_j[:2]
        none = np.zeros(count)
        lines = Lines(
            absorption,
            emission,
            loss,
            emission * modes * width,
            entering,
            none,
            none,
            none,
            simulation.fiber.saturation_parameter(),
        )
        return lines, photon_j


def compare(case: str, bins: int, peer: PyFiberAmp | None, repeats: int) -> float:
    """Print a case; return the CPU time of PyFiberAmp over ours, nan without it."""
    length = CASES[case][0]
    lines, photon_j = peer.lines(case, bins) if peer else our_lines(case, bins)
    ours = solve_on_adapted_grid(lines, length)
    powers = powers_of(ours, photon_j)
    seconds = cpu_seconds(lambda: solve_on_adapted_grid(lines, length), repeats)
    print(
        f"{case} {bins:3d} bins: {1e3 * seconds:6.1f} ms, {ours.edges_m.size - 1} cells, signal "
        f"{powers.signal:.6g} W, ASE {powers.forward:.4g} / {powers.backward:.4g} W"
    )
    coarse = solve_on_adapted_grid(lines, length, 0.1)
    reference = solve_by_collocation(lines, photon_j, coarse)
    theirs = cpu_seconds(lambda: solve_by_collocation(lines, photon_j, coarse), 1)
    show("solve_bvp", theirs, seconds, reference.errors(powers))
    if peer is None:
        return float("nan")
    reference = peer.run(case, bins)
    theirs = cpu_seconds(lambda: peer.run(case, bins), repeats)
    show("PyFiberAmp", theirs, seconds, reference.errors(powers))
    return theirs / seconds


def compare_oscillator(case: str, peer: PyFiberAmp, repeats: int) -> None:
    length, output = OSCILLATORS[case][0], OSCILLATORS[case][9]
    lines, photon_j = peer.oscillator_lines(case)
    ours = solve_on_adapted_grid(lines, length)
    seconds = cpu_seconds(lambda: solve_on_adapted_grid(lines, length), repeats)
    state, scale = ours.solution.propagation, lines.saturation_per_m_s * photon_j
    out_w = state.forward[-1, 0] * scale[0] * (1 - output)
    print(f"oscillator {case}: {1e3 * seconds:6.1f} ms, {out_w:.6g} W")
    guess = np.vstack([(state.forward * scale).T, state.backward[:, 0] * scale[0]])
    even = np.linspace(0, length, EXAMPLE_NODES)
    guess = np.array([np.interp(even, ours.edges_m, row) for row in guess])
    runs = {
        "steady state": lambda: peer.run_oscillator(case),
        "from our solution": lambda: peer.run_oscillator(case, guess),
    }
    if case == "its example":
        peer.run_in_time(case, 1000)  # compiles
        runs["in time"] = lambda: peer.run_in_time(case)
    for name, run in runs.items():
        start = time.process_time()
        try:
            theirs_w = run()
            if theirs_w < NO_LIGHT_W:
                raise ArithmeticError(f"{theirs_w:.1g} W")
        except (AssertionError, ValueError, ArithmeticError) as error:
            found = f"no laser light: {str(error)[:60]}"
        else:
            ratio = (time.process_time() - start) / seconds
            times = "" if name == "from our solution" else f"{ratio:6.0f}x  "
            found = f"{times}{theirs_w:.6g} W"
        spent = time.process_time() - start
        print(f"    PyFiberAmp, {name:<18} {spent:8.2f} s  {found}", flush=True)


def show(peer: str, theirs: float, ours: float, errors: str) -> None:
    print(f"    {peer:<10} {theirs:8.2f} s  {theirs / ours:6.0f}x  ours: {errors}", flush=True)


def pump_sweep() -> None:
    fiber = Fiber(2.0, 25, 0.065, 1.2e26, 250)
    amplifier = Amplifier(fiber, (Pump(976, 155),), (Signal(1018, 5),), AseBand(1000, 1100, 40))
    values = np.linspace(5, 200, 200)

    def run() -> None:
        sweep(amplifier, "pumps[0].power_w", values, lambda r: {"w": r.signal_out_w})

    seconds = cpu_seconds(run, 3)
    print(f"sweep of 200 pump powers, 82 channels: {200 / seconds:.0f} points per CPU second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pyfiberamp", metavar="FOLDER", help="clone of Jomiri/pyfiberamp")
    parser.add_argument("--repeats", type=int, default=7, help="number of runs per median")
    parser.add_argument("--bins", type=int, nargs="+", default=[20, 50, 100])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    peer = PyFiberAmp(arguments.pyfiberamp) if arguments.pyfiberamp else None
    print(
        f"numpy {np.__version__}, scipy {scipy.__version__}, {platform.machine()}, one thread, "
        f"median of {arguments.repeats} (solve_bvp: one run)"
    )
    ratios: list[tuple[int, float]] = []
    for case in CASES:
        for bins in arguments.bins:
            ratios.append((bins, compare(case, bins, peer, arguments.repeats)))
    if peer:
        for bins in arguments.bins:
            own = [ratio for count, ratio in ratios if count == bins]
            print(f"median against PyFiberAmp at {bins} bins: {statistics.median(own):.0f}x")
        for case in OSCILLATORS:
            compare_oscillator(case, peer, arguments.repeats)
    pump_sweep()


if __name__ == "__main__":
    main()
