"""Random amplifiers: each converges with balanced photons or raises."""

import warnings

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import (
    YTTERBIUM_GLASSES,
    Amplifier,
    AseBand,
    ConvergenceError,
    Fiber,
    PhysicalWarning,
    Pump,
    Reflector,
    Signal,
    ytterbium,
)
from lightning_plugins.simulators.fiber_laser.steady_state import solve_on_adapted_grid


def random_amplifier(seed):
    """Core- or cladding-pumped, co or counter, from faint (ASE alone counts) to saturating.

    Core 6-12 or 10-30 µm, cladding 4-20 times that, NA 0.06-0.14, 1e25-2e26 ions per m³,
    0.1-5 m, loss 1e-3-0.1 per m, pump 10 mW-2 W or 1-300 W at 915, 940 or 976 nm, signal
    1 nW-0.3 W or 1 nW-10 W at 1000-1080 nm, 20 bins from 985 to 1085 nm, 1 or 2 polarisations.
    """
    rng = np.random.default_rng(seed)

    def between(low, high):
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    cladding = bool(rng.random() < 0.5)
    core = between(10, 30) if cladding else between(6, 12)
    fiber = Fiber(
        length_m=between(0.1, 5),
        core_diameter_um=core,
        core_na=float(rng.uniform(0.06, 0.14)),
        ytterbium_per_m3=between(1e25, 2e26),
        cladding_diameter_um=core * float(rng.uniform(4, 20)),
        background_loss_per_m=between(1e-3, 0.1),
    )
    return Amplifier(
        fiber,
        (
            Pump(
                float(rng.choice([915.0, 940.0, 976.0])),
                between(1, 300) if cladding else between(0.01, 2),
                str(rng.choice(["forward", "backward"])),
                "cladding" if cladding else "core",
            ),
        ),
        (Signal(float(rng.uniform(1000, 1080)), between(1e-9, 10 if cladding else 0.3)),),
        AseBand(985, 1085, 20, int(rng.choice([1, 2]))),
        spectroscopy=ytterbium(str(rng.choice(YTTERBIUM_GLASSES))),
    )


def converged_of(seeds):
    """How many converged; each of those is checked."""
    converged = 0
    for seed in seeds:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PhysicalWarning)
                result = random_amplifier(seed).solve()
        except ConvergenceError:
            continue
        light = result.grid.solution.propagation
        worst = np.max(np.abs(light.imbalance()) / light.rate()) / light.excitation.max()
        assert worst <= 1e-11
        assert light.photon_balance() <= 1e-9
        assert (light.excitation > 0).all()
        assert (light.excitation < 1).all()
        assert result.grid_error <= 1e-4
        converged += 1
    return converged


def test_every_one_of_100_random_amplifiers_converges():
    assert converged_of(range(100)) == 100


@pytest.mark.slow
def test_at_least_495_of_500_random_amplifiers_converge():
    assert converged_of(range(1000, 1500)) >= 495


def test_a_signal_between_reflectors_that_lase_warns():
    fiber = Fiber(0.5, 6, 0.12, 5e25)
    mirrors = (Reflector("start", 0.99, 1010, 1026), Reflector("end", 0.3, 1010, 1026))
    amplifier = Amplifier(
        fiber,
        (Pump(976, 0.2, path="core"),),
        (Signal(1064, 1e-3),),
        AseBand(1010, 1026, 8),
        mirrors,
    )
    with pytest.warns(PhysicalWarning, match="lasing: between the given reflectors"):
        result = amplifier.solve()
    assert result.photon_balance < 1e-9
    assert 0.05 < result.ase_out_w("forward").sum() < 0.2 * 976 / 1018


def test_a_convergence_error_gives_residual_and_photon_balance(monkeypatch):
    from lightning_plugins.simulators.fiber_laser import steady_state

    monkeypatch.setattr(steady_state, "_MOST_ITERATIONS", 2)
    amplifier = Amplifier(
        Fiber(1.0, 6, 0.12, 1e26), (Pump(976, 0.5, "backward", path="core"),), (Signal(1018, 0.01),)
    )
    with pytest.raises(ConvergenceError, match=r"no steady state .* residual .* photon balance"):
        solve_on_adapted_grid(amplifier.lines(), 1.0)
