"""Design under limits, and the commands ``identify`` and ``design`` with their YAML files."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import (
    AseBand,
    Chain,
    Fiber,
    Limits,
    Pump,
    Signal,
    Stage,
    brillouin_stokes,
    brillouin_threshold,
    constrained_design,
    load_design,
)
from lightning_plugins.simulators.fiber_laser.command import main
from lightning_plugins.simulators.fiber_laser.constrained_design import _Problem

pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning_plugins.simulators.fiber_laser.PhysicalWarning"
)
CHAIN = Chain(
    Signal(1064, 5.0),
    (Stage("main", Fiber(1.8, 25, 0.065, 8e25, 250), (Pump(976, 155.0),)),),
    AseBand(1030, 1090, 6),
)
PREAMPLIFIER = Stage(
    "pre", Fiber(1.0, 10, 0.08, 8e25, 125), (Pump(976, 15.0),), input_loss_db=1.0, delivery_m=2.0
)
TWO_STAGES = replace(
    CHAIN, seed=Signal(1064, 0.05), stages=(PREAMPLIFIER, replace(CHAIN.stages[0], delivery_m=0.3))
)
BOUNDS = {
    "stages[0].fiber.length_m": (0.5, 3.0),
    "stages[0].fiber.core_diameter_um": (20.0, 32.0),
    "stages[0].pumps[0].power_w": (30.0, 200.0),
}


@pytest.mark.parametrize("objective", ["power", "efficiency"])
def test_gradients_of_objective_and_limits_agree_with_differences(objective):
    limits = Limits(delivery_m=0.5, ase_suppression_db=50.0, beam_quality=1.3)
    bounds = {
        "stages[0].fiber.length_m": (0.5, 1.5),
        "stages[0].pumps[0].power_w": (5.0, 20.0),
        "stages[1].fiber.core_diameter_um": (20.0, 32.0),
        "stages[1].pumps[0].power_w": (30.0, 200.0),
    }
    problem = _Problem(TWO_STAGES, bounds, limits, objective)
    assert set(problem.ratios) == {
        *(f"{stage}.{name}" for stage in ("pre", "main")
          for name in ("brillouin", "raman", "heat", "ase_suppression")),
        "main.beam_quality",
    }  # fmt: skip
    share, step = np.array([0.5, 0.6, 0.4, 0.6]), 1e-3 * np.eye(4)
    found = {name: problem.slopes(share, name) for name in problem.functions}
    for place in range(4):
        ends = [
            {name: problem.value(share + sign * step[place], name) for name in problem.functions}
            for sign in (-1, 1)
        ]
        for name, slopes in found.items():
            expected = (ends[1][name] - ends[0][name]) / 2e-3
            assert slopes[place] == pytest.approx(expected, rel=4e-4, abs=1e-7), (name, place)


def test_a_limit_of_an_inner_stage_and_its_delivery_fiber_binds():
    bounds, limits = {"stages[0].pumps[0].power_w": (1.0, 20.0)}, Limits(2e-10)
    main = replace(TWO_STAGES.stages[1], pumps=(Pump(976, 5.0),))
    chain = replace(TWO_STAGES, stages=(PREAMPLIFIER, main))
    found = constrained_design(chain, bounds, limits, starts=1)
    assert found.is_feasible
    assert found.ratios["pre.brillouin"] == pytest.approx(1.0, abs=1e-3)
    stage = found.result.stages[0]
    assert stage.signal_out_w == pytest.approx(
        brillouin_threshold(stage, 2.0, (1e-10, 2e-10)).low_w, rel=5e-3
    )
    free = replace(chain, stages=(replace(PREAMPLIFIER, delivery_m=0.0), main))
    relaxed = constrained_design(free, bounds, limits, starts=1)
    assert relaxed.result.stages[0].signal_out_w > 1.2 * stage.signal_out_w


def test_the_optimum_meets_the_limits_and_touches_one():
    found = constrained_design(CHAIN, BOUNDS, Limits(delivery_m=0.5), starts=2)
    assert found.is_feasible
    assert max(found.ratios.values()) == pytest.approx(1.0, abs=1e-3)
    assert found.ratios["main.brillouin"] == pytest.approx(1.0, abs=1e-3)
    threshold = brillouin_threshold(found.result.output, 0.5)
    assert found.output_w == pytest.approx(threshold.low_w, rel=5e-3)
    for path, (low, high) in BOUNDS.items():
        assert low <= found.values[path] <= high
    # A linewidth lifts the Brillouin limit, and the output rises.
    broad = replace(CHAIN, seed=Signal(1064, 5.0, linewidth_hz=10e9))
    assert constrained_design(broad, BOUNDS, Limits(), starts=1).output_w > found.output_w


def test_limits_that_cannot_be_met_are_reported_with_the_nearest_design():
    bounds = {"stages[0].pumps[0].power_w": (30.0, 200.0)}
    found = constrained_design(CHAIN, bounds, Limits(heat_w_per_m=0.1), starts=1)
    assert not found.is_feasible
    assert found.feasible_starts == 0
    assert found.ratios["main.heat"] > 1


@pytest.mark.slow
def test_the_reference_reaches_120_w_below_the_brillouin_threshold():
    chain = replace(load_design("reference_1018").seeded_chain(), ase=AseBand(985, 1085, 25))
    chain = replace(chain, seed_ase_w=None)
    bounds = {path.replace("[0].fiber", "[2].fiber").replace("[0].pumps", "[2].pumps"): ends
              for path, ends in BOUNDS.items()}  # fmt: skip
    limits = Limits(delivery_m=0.5, ase_suppression_db=60.0, beam_quality=1.3)
    found = constrained_design(chain, bounds, limits, starts=3)
    assert found.is_feasible
    assert found.output_w >= 120
    stokes = brillouin_stokes(found.result.output, 5e-11, 0.5).threshold_w(found.output_w)
    assert stokes > 120


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: constrained_design(CHAIN, {}), "at least one input is required"),
        (lambda: constrained_design(CHAIN, {"a": (2, 1)}), "bounds of a: 2 must be below 1"),
        (lambda: constrained_design(CHAIN, BOUNDS, objective="beauty"), "objective = 'beauty'"),
        (lambda: Limits(heat_w_per_m=-1), "heat_w_per_m = -1 W/m"),
    ],
)
def test_invalid_design_studies_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


DESIGN = """
ase: {from: 1030 nm, to: 1090 nm, bins: 5}
seed: {signal: {wavelength: 1064 nm, power: 5 W}}
stages:
  - name: main
    fiber: {length: 1.8 m, core_diameter: 25 um, core_na: 65e-3, cladding_diameter: 250 um,
            ytterbium: 8e25 1/m^3}
    pumps: [{wavelength: 976 nm, power: 155 W}]
"""
IDENTIFY = """
design: DESIGN
stage: main
unknowns:
  fiber.ytterbium: [4e25 1/m^3, 2e26 1/m^3]
  pump_coupling: [0.5, 1.0]
curves:
  - quantity: signal_out
    input: pumps[0].power
    inputs: [50 W, 100 W, 0.15 kW]
    measured: [SIGNAL]
  - quantity: pump_left
    input: pumps[0].power
    inputs: [50 W, 100 W, 0.15 kW]
    measured: [PUMP]
"""
LIMITED = """
design: DESIGN
objective: power
starts: 1
vary:
  main.fiber.length: [0.5 m, 3 m]
  main.pumps[0].power: [30 W, 200 W]
limits: {delivery: 0.5 m, heat: 30 W/m, brillouin_gain: 5e-11 m/W}
"""


@pytest.fixture
def design(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(DESIGN)
    return path


def test_identify_prints_intervals_and_draws(design, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    from lightning_plugins.simulators.fiber_laser.identification import QUANTITIES
    from lightning_plugins.simulators.fiber_laser.parameter_paths import with_value

    amplifier = load_design(design).chain.solve().output.amplifier
    truth = with_value(amplifier, "fiber.ytterbium_per_m3", 6e25)
    found = {"SIGNAL": [], "PUMP": []}
    for pump_w in (50, 100, 150):
        result = with_value(truth, "pumps[0].power_w", 0.9 * pump_w).solve()
        found["SIGNAL"].append(f"{QUANTITIES['signal_out_w'](result):.6f} W")
        found["PUMP"].append(f"{QUANTITIES['pump_left_w'](result):.6f} W")
    text = IDENTIFY.replace("DESIGN", str(design))
    for name, values in found.items():
        text = text.replace(name, ", ".join(values))
    file = tmp_path / "identify.yaml"
    file.write_text(text)
    assert main(["identify", str(file), "--output", str(tmp_path)]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert float(lines["fiber.ytterbium_per_m3"][1]) == pytest.approx(6e25, rel=1e-3)
    assert float(lines["pump_coupling"][1]) == pytest.approx(0.9, rel=1e-3)
    assert (tmp_path / "identification.png").read_bytes().startswith(b"\x89PNG")


def test_design_prints_the_optimum_and_its_limits_and_draws(design, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    file = tmp_path / "limits.yaml"
    file.write_text(LIMITED.replace("DESIGN", str(design)))
    assert main(["design", str(file), "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "stages[0].fiber.length_m" in printed
    assert "100.0 % of the limit" in printed
    assert "1 of 1 starts end at a design that meets all limits" in printed
    assert (tmp_path / "design.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("design", "limits: {heet: 1 W/m}\ndesign: DESIGN", "limits.heet is unknown"),
        ("design", "vary: {main.fiber.length: [1 m]}\ndesign: DESIGN", "expected the smallest and"),
        ("design", "vary: {main.fiber.length: [1 W, 2 m]}\ndesign: DESIGN", "a unit of length"),
        ("identify", "stage: third\ndesign: DESIGN", "stage = 'third': allowed is main"),
        ("identify", "curves: [{quantity: heat}]\ndesign: DESIGN", "curves[0].input is missing"),
        ("identify", "wishes: 1\ndesign: DESIGN", "identification.wishes is unknown"),
    ],
)
def test_errors_in_study_files_are_one_line(design, tmp_path, capsys, command, text, message):
    file = tmp_path / "study.yaml"
    file.write_text(text.replace("DESIGN", str(design)))
    assert main([command, str(file), "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
