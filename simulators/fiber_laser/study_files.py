"""Studies as YAML files: identification from measurements, and design under limits.

Both name a design and have units in each quantity. The keys are those of the examples::

    design: reference_1018                    design: reference_1018
    stage: main                               objective: power
    unknowns:                                 starts: 4
      fiber.ytterbium: [4e25 m^-3, 2e26 m^-3] vary:
      pump_coupling: [0.5, 1.0]                 main.fiber.length: [0.5 m, 2.5 m]
    curves:                                     main.pumps[0].power: [50 W, 200 W]
      - quantity: signal_out                  limits:
        input: pumps[0].power                   delivery: 0.5 m
        inputs: [50 W, 100 W]                   ase_suppression: 60 dB
        measured: [40 W, 84 W]                  beam_quality: 1.3
        relative_error: 0.02
"""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .amplifier import Amplifier, PhysicalWarning
from .constrained_design import ConstrainedOptimum, Limits, constrained_design
from .design import Design
from .design_file import as_list, as_mapping, build, load_design, parse_yaml, refuse_unknown
from .identification import QUANTITIES, Curve, Identified, identify
from .parameter_paths import completed
from .quantities import parse_quantity, split_unit


def full_path(design: Design, name: str) -> str:
    """Return the path of an input; a stage's name replaces its place, units may be omitted.

    For example ``main.fiber.length`` is ``chain.stages[2].fiber.length_m``.
    """
    head, _, rest = name.partition(".")
    for place, stage in enumerate(design.chain.stages):
        if head == stage.name:
            name = f"chain.stages[{place}].{rest}"
    return completed(design, name)


def quantity_of(path: str, text: Any) -> float:
    """Return a value in the unit of a path.

    Raises:
        ValueError: The text has no unit, or one of another dimension.
    """
    suffix = split_unit(path)[1]
    if suffix is not None:
        return parse_quantity(path, text, suffix)
    try:
        return float(text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} = {text!r}: expected a number") from error


def run_identification(file: str | os.PathLike[str]) -> tuple[Identified, list[Curve]]:
    """Fit a stage of a design to the measurements of a YAML file.

    Raises:
        ValueError: The file is invalid; the message gives the place, the value and the remedy.
    """
    content = _content(file)
    refuse_unknown(content, ("design", "stage", "unknowns", "curves"), "identification")
    amplifier = _stage(content)
    unknowns = {}
    for name, ends in as_mapping(content.get("unknowns", {}), "unknowns").items():
        path = name if name in _FACTORS else completed(amplifier, name)
        unknowns[path] = _two(f"unknowns.{name}", path, ends)
    curves = [
        _curve(amplifier, curve, f"curves[{place}]")
        for place, curve in enumerate(as_list(content.get("curves", []), "curves"))
    ]
    return identify(amplifier, unknowns, curves), curves


def run_design(file: str | os.PathLike[str]) -> tuple[Design, ConstrainedOptimum]:
    """Optimise a design under the limits of a YAML file.

    Raises:
        ValueError: The file is invalid; the message gives the place, the value and the remedy.
    """
    content = _content(file)
    known = ("design", "objective", "starts", "seed", "vary", "limits")
    refuse_unknown(content, known, "design study")
    design = load_design(str(content.get("design", "")))
    bounds = {}
    for name, ends in as_mapping(content.get("vary", {}), "vary").items():
        path = full_path(design, name)
        if not path.startswith("chain."):
            raise ValueError(f"vary.{name}: only inputs of the stages can be varied")
        bounds[path.removeprefix("chain.")] = _two(f"vary.{name}", path, ends)
    limits = as_mapping(content.get("limits", {}), "limits")
    limits.setdefault("delivery", f"{design.surroundings.delivery_m} m")
    found = constrained_design(
        design.seeded_chain(),
        bounds,
        build(Limits, limits, "limits"),
        str(content.get("objective", "power")),
        int(content.get("starts", 4)),
        int(content.get("seed", 0)),
    )
    return design, found


_FACTORS = ("pump_coupling", "signal_coupling", "cross_section_scale")


def _content(file: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        return as_mapping(parse_yaml(Path(file).read_text("utf-8")), str(file))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error


def _stage(content: dict[str, Any]) -> Amplifier:
    design = load_design(str(content.get("design", "")))
    names = [stage.name for stage in design.chain.stages]
    name = content.get("stage", names[-1])
    if name not in names:
        raise ValueError(f"stage = {name!r}: allowed is {', '.join(names)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysicalWarning)
        return design.seeded_chain().solve().stages[names.index(name)].amplifier


def _curve(amplifier: Amplifier, content: Any, where: str) -> Curve:
    content = as_mapping(content, where)
    known = ("quantity", "input", "inputs", "measured", "relative_error")
    refuse_unknown(content, known, where)
    for key in known[:-1]:
        if key not in content:
            raise ValueError(f"{where}.{key} is missing")
    names = {split_unit(name)[0]: name for name in QUANTITIES}
    quantity = names.get(str(content["quantity"]), str(content["quantity"]))
    path = completed(amplifier, str(content["input"]))
    inputs = [quantity_of(path, text) for text in as_list(content["inputs"], f"{where}.inputs")]
    measured = [
        [quantity_of(quantity, text) for text in row]
        if isinstance(row, list)
        else quantity_of(quantity, row)
        for row in as_list(content["measured"], f"{where}.measured")
    ]
    error = float(content.get("relative_error", 0.02))
    return Curve(quantity, path, np.array(inputs), np.array(measured), error)


def _two(where: str, path: str, ends: Any) -> tuple[float, float]:
    values = [quantity_of(path, text) for text in as_list(ends, where)]
    if len(values) != 2:
        raise ValueError(f"{where} = {ends!r}: expected the smallest and the largest value")
    return values[0], values[1]
