"""Chains: the output of a stage is the input of the next."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import (
    YTTERBIUM_GLASSES,
    Amplifier,
    AseBand,
    BandpassFilter,
    Chain,
    ConvergenceError,
    Fiber,
    FrequencyNoise,
    PhysicalWarning,
    Pump,
    Signal,
    Stage,
    chain_gradient,
    flat_seed_ase_w,
    inverse_design,
    load_design,
    optimum_length_m,
    sweep,
    ytterbium,
    ytterbium_from_cladding_absorption,
)
from lightning_plugins.simulators.fiber_laser.parameter_paths import value_at, with_value

pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning_plugins.simulators.fiber_laser.PhysicalWarning"
)

FIRST = Stage("first", Fiber(0.25, 6, 0.12, 5e25), (Pump(976, 0.6, path="core"),), 1.5)
SECOND = Stage(
    "second",
    Fiber(1.0, 10, 0.08, 8e25, cladding_diameter_um=125),
    (Pump(976, 15.0),),
    input_loss_db=1.0,
    input_filter=BandpassFilter(1018, 4.0, 30.0),
)
CHAIN = Chain(Signal(1018, 0.030), (FIRST, SECOND), AseBand(985, 1085, 25))


def test_signal_and_spectrum_pass_losses_and_filters_to_the_next_stage():
    result = CHAIN.solve()
    first, second = result.stages
    assert first.amplifier.signals[0].power_w == pytest.approx(0.030 * 10**-0.15)
    passed = 10**-0.1
    assert second.amplifier.signals[0].power_w == pytest.approx(first.signal_out_w * passed)
    carried = second.amplifier.ase_forward_in_w / first.ase_out_w("forward")
    # 25 bins of 4 nm from 985 nm: 1016-1020 nm lies in those from 1013 and from 1017 nm.
    expected = np.full(25, 1e-3 * passed)
    expected[7] = passed * (0.25 + 0.75e-3)
    expected[8] = passed * (0.75 + 0.25e-3)
    assert carried == pytest.approx(expected, rel=1e-9)


def random_chain(seed):
    """Two or three stages, the first core-pumped: 10 mW to 1 kW of pump, 0.2-12 m of fiber."""
    rng = np.random.default_rng(seed)

    def between(low, high):
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    stages, core, pump_w = [], 6.0, 0.5
    for place in range(int(rng.integers(2, 4))):
        core *= float(rng.uniform(1.0, 2.5))
        pump_w *= between(1, 20)
        fiber = Fiber(
            between(0.2, 12),
            core,
            float(rng.uniform(0.06, 0.12)),
            between(1e25, 2e26),
            core * float(rng.uniform(4, 15)),
            between(1e-3, 0.05),
        )
        pump = Pump(
            float(rng.choice([915.0, 940.0, 976.0])),
            pump_w * (10 if place else 1),
            str(rng.choice(["forward", "backward"])),
            "cladding" if place else "core",
        )
        stages.append(Stage(f"stage{place}", fiber, (pump,), float(rng.uniform(0, 3))))
    seed_signal = Signal(float(rng.uniform(1010, 1075)), between(1e-4, 0.1))
    glass = ytterbium(str(rng.choice(YTTERBIUM_GLASSES)))
    return Chain(seed_signal, tuple(stages), AseBand(985, 1095, 20), glass)


def converged_chains(seeds):
    converged = 0
    for seed in seeds:
        result = random_chain(seed).solve()
        assert all(stage.photon_balance <= 1e-9 for stage in result.stages)
        converged += 1
    return converged


def test_every_one_of_10_random_chains_converges():
    assert converged_chains(range(10)) == 10


@pytest.mark.slow
def test_every_one_of_200_random_chains_converges():
    assert converged_chains(range(1000, 1200)) == 200


def test_a_chain_of_one_stage_is_the_amplifier():
    stage = replace(SECOND, input_loss_db=0.0, input_filter=None)
    chain = Chain(Signal(1018, 0.2), (stage,), CHAIN.ase)
    alone = Amplifier(stage.fiber, stage.pumps, (Signal(1018, 0.2),), CHAIN.ase).solve()
    assert chain.solve().output.signal_out_w == pytest.approx(alone.signal_out_w, rel=1e-12)


def test_the_linewidth_of_the_seed_is_that_of_every_stage():
    result = replace(CHAIN, seed=Signal(1018, 0.030, linewidth_hz=1e9)).solve()
    assert [stage.amplifier.signals[0].linewidth_hz for stage in result.stages] == [1e9, 1e9]


def test_upstream_emission_lowers_the_suppression_of_the_output():
    stage = replace(SECOND, input_filter=None)
    clean = Chain(Signal(1018, 0.2), (stage,), CHAIN.ase).solve().output
    seed_ase = flat_seed_ase_w(0.2, 50.0, 0.02, CHAIN.ase)
    dirty = Chain(Signal(1018, 0.2), (stage,), CHAIN.ase, seed_ase_w=seed_ase).solve().output
    assert dirty.ase_suppression_db() < clean.ase_suppression_db() - 3
    assert dirty.ase_suppression_db() < 50


def test_frequency_noise_accumulates_along_the_chain():
    noisy = replace(SECOND, added_noise=FrequencyNoise(flicker_hz2=3.0))
    chain = replace(CHAIN, stages=(FIRST, noisy), seed_noise=FrequencyNoise(1.0, 2.0))
    assert chain.solve().noise == FrequencyNoise(1.0, 5.0)


def test_density_from_vendor_absorption_reproduces_that_absorption():
    glass = ytterbium()
    density = ytterbium_from_cladding_absorption(4.95, 976, 20, 130, glass)
    fiber = Fiber(0.5, 20, 0.08, density, cladding_diameter_um=130, background_loss_per_m=0.0)
    result = Amplifier(fiber, (Pump(976, 1e-9),), ase=None, spectroscopy=glass).solve()
    decibels = -10 * np.log10(result.pumps_left_w[0] / 1e-9)
    assert decibels == pytest.approx(4.95 * 0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Chain(Signal(1018, 0.1), ()), "at least one Stage"),
        (lambda: Chain(Signal(1018, 0.1), (FIRST, FIRST)), "expected different names"),
        (lambda: Chain(Signal(1018, 0.1, "backward"), (FIRST,)), "seed.direction = 'backward'"),
        (lambda: replace(FIRST, input_loss_db=-1), "input_loss_db = -1 dB"),
        (lambda: BandpassFilter(1018, 0), "width_nm = 0 nm"),
    ],
)
def test_invalid_chains_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_convergence_error_names_the_stage(monkeypatch):
    from lightning_plugins.simulators.fiber_laser import steady_state

    monkeypatch.setattr(steady_state, "_MOST_ITERATIONS", 1)
    with pytest.raises(ConvergenceError, match="stage 'first': no steady state"):
        CHAIN.solve()


def test_chain_gradients_agree_with_differences():
    inputs = (
        "stages[0].fiber.length_m",
        "stages[0].pumps[0].power_w",
        "stages[1].fiber.ytterbium_per_m3",
        "stages[1].pumps[0].power_w",
    )
    chain = replace(CHAIN, ase=AseBand(985, 1085, 10))

    def noise_to_signal(leaving):
        return leaving.forward_w[2:].sum() / leaving.forward_w[0]

    result = chain.solve(1e-6)
    outputs = (lambda leaving: leaving.forward_w[0], noise_to_signal)
    found = [chain_gradient(result, inputs, output) for output in outputs]
    for path in inputs:
        value = value_at(chain, path)
        ends = []
        for factor in (1 - 1e-3, 1 + 1e-3):
            last = with_value(chain, path, value * factor).solve(1e-6, guess=result).output
            ends.append((last.signal_out_w, last.ase_out_w().sum() / last.signal_out_w))
        for place in range(2):
            expected = (ends[1][place] - ends[0][place]) / (2e-3 * value)
            assert found[place][path] == pytest.approx(expected, rel=1e-3), path


def test_inverse_design_finds_the_optimum_of_a_length_scan():
    bounds = {"stages[1].fiber.length_m": (0.5, 4.0)}
    best = inverse_design(CHAIN, bounds, lambda leaving: -float(leaving.forward_w[0]))
    lengths = np.linspace(0.5, 4.0, 15)
    scanned = sweep(
        CHAIN, "stages[1].fiber.length_m", lengths, lambda r: {"w": r.output.signal_out_w}
    )
    powers = [one["w"] for one in scanned]
    assert best.result.output.signal_out_w >= max(powers) * (1 - 1e-5)
    found = best.values["stages[1].fiber.length_m"]
    assert found == pytest.approx(lengths[int(np.argmax(powers))], abs=0.3)


def test_inverse_design_reaches_a_target_power():
    bounds = {"stages[1].pumps[0].power_w": (1.0, 30.0)}
    best = inverse_design(CHAIN, bounds, lambda leaving: (leaving.forward_w[0] / 7.0 - 1) ** 2)
    assert best.result.output.signal_out_w == pytest.approx(7.0, rel=1e-4)


def test_the_optimum_length_is_a_maximum():
    amplifier = Amplifier(SECOND.fiber, SECOND.pumps, (Signal(1018, 0.3),), CHAIN.ase)
    length = optimum_length_m(amplifier, 0.3, 5.0)
    powers = [
        with_value(amplifier, "fiber.length_m", length + d).solve(1e-6).signal_out_w
        for d in (-0.2, 0.0, 0.2)
    ]
    assert powers[1] > max(powers[0], powers[2])


def test_a_sweep_is_the_same_alone_and_in_processes_and_from_cold():
    values = np.linspace(5, 20, 6)
    path = "stages[1].pumps[0].power_w"
    pick = operator_signal
    warm = sweep(CHAIN, path, values, pick)
    cold = [pick(with_value(CHAIN, path, float(value)).solve()) for value in values]
    assert [one["w"] for one in warm] == pytest.approx([one["w"] for one in cold], rel=2e-4)
    pytest.importorskip("joblib")
    spread = sweep(CHAIN, path, values, pick, jobs=2, backend="threading")
    assert [one["w"] for one in spread] == pytest.approx([one["w"] for one in warm], rel=2e-4)


def operator_signal(result):
    return {"w": result.output.signal_out_w}


def test_a_sweep_requires_a_process():
    with pytest.raises(ValueError, match="jobs = 0"):
        sweep(CHAIN, "seed.power_w", [0.01], jobs=0)


def test_the_packaged_design_solves_and_warns_of_brillouin_scattering():
    design = load_design("reference_1018")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = design.solve()
    assert any(issubclass(one.category, PhysicalWarning) for one in caught)
    assert any("Brillouin" in text for text in result.warnings)
    figures = result.summary()
    assert figures["signal_out_w"] > 120
    assert figures["ase_suppression_db"] > 60
    bound = result.chain.output.amplifier.signals[0].power_w + 155 * 976 / 1018
    assert figures["signal_out_w"] < bound
