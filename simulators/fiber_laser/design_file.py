"""Designs as YAML files in which each quantity has a unit."""

import difflib
import os
import re
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from .chain import (
    BandpassFilter,
    Chain,
    Stage,
    flat_seed_ase_w,
)
from .cross_section_files import load_spectroscopy
from .dbr_cavity import Cavity, Grating
from .dbr_laser import DbrLaser
from .design import Design, Surroundings, lasing
from .fiber import (
    Fiber,
    ytterbium_from_cladding_absorption,
)
from .file_limits import check_yaml, quoted
from .light import AseBand, Pump, Reflector, Signal
from .linewidth import FrequencyNoise
from .quantities import parse_quantity, split_unit
from .self_heating import Cooling
from .spectroscopy import Spectroscopy
from .temperature_tuning import FiberMount
from .ytterbium import LIFETIME_S, ytterbium

_PACKAGED = Path(__file__).parent / "designs"
_Built = TypeVar("_Built")


def packaged_designs() -> list[str]:
    """Return the names of the designs in the package."""
    return sorted(path.stem for path in _PACKAGED.glob("*.yaml"))


def read_design_file(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the mapping in a YAML file, or in the packaged design of that name.

    Raises:
        ValueError: Neither exists, or the file does not contain a mapping.
    """
    try:
        content = parse_yaml(read_design_text(name))
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name}: expected a mapping with seed and stages")
    return content


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers, such as 65e-3, which YAML 1.1 reads as text; repeated keys are errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        seen = set()
        for key in keys:
            if not isinstance(key, str | int | float | bool | None):
                problem = f"the key {quoted(key)} is not text"
            elif key in seen:
                problem = f"the key {quoted(key)} is repeated"
            else:
                seen.add(key)
                continue
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str) -> Any:
    """Return the content of a YAML text; numbers with an exponent are numbers.

    Raises:
        yaml.YAMLError: The text is not valid YAML, or a key is repeated.
        LimitError: The text is nested too deeply, or too large when its anchors are expanded.
    """
    check_yaml(text, "the design")
    try:
        return yaml.load(text, Loader=_Loader)
    except (ValueError, LookupError, AttributeError, OverflowError) as error:  # as from !!bool 3
        raise yaml.YAMLError("a value is not of the type that it has") from error


def read_design_text(name: str | os.PathLike[str]) -> str:
    """Return the text of a YAML file, or of the packaged design of that name.

    Raises:
        ValueError: Neither exists, or the file is not UTF-8 text.
    """
    path = Path(name)
    if not path.is_file() and str(name) in packaged_designs():
        path = _PACKAGED / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(
            f"no design {str(name)!r}: neither a file nor one of {', '.join(packaged_designs())}"
        )
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: see byte {error.start}") from error


def load_design(name: str | os.PathLike[str]) -> Design:
    """Return the design of a YAML file, or the packaged design of that name.

    Raises:
        ValueError: The file is invalid; the message gives the place, the value and the remedy.
    """
    content = read_design_file(name)
    try:
        return design_from(content)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def design_from(content: dict[str, Any]) -> Design:
    """Return the design that a mapping describes.

    Raises:
        ValueError: The mapping is invalid; the message gives the place, the value and the remedy.
    """
    known = ("name", "note", "glass", "ase", "seed", "stages", "surroundings")
    refuse_unknown(content, known, "design")
    if "stages" not in content:
        raise ValueError("design: stages is missing")
    glass = _glass(content.get("glass", {}))
    ase = build(AseBand, content.get("ase", {}), "ase")
    stages = tuple(
        _stage(stage, glass, f"stages[{place}]")
        for place, stage in enumerate(as_list(content["stages"], "stages"))
    )
    if "seed" not in content and not (stages and stages[0].reflectors):
        raise ValueError("design: seed is missing; only an oscillator, with reflectors, needs none")
    seed = as_mapping(content.get("seed", {}), "seed")
    laser, signal = _seed(seed, glass) if "seed" in content else (None, None)
    carried = None
    if "suppression" in seed and signal is not None:
        suppression = parse_quantity("seed.suppression", seed["suppression"], "_db")
        resolution = parse_quantity("seed.resolution", seed.get("resolution", "0.02 nm"), "_nm")
        carried = flat_seed_ase_w(signal.power_w, suppression, resolution, ase)
    noise = build(FrequencyNoise, seed.get("noise", {}), "seed.noise")
    return Design(
        name=str(content.get("name", "design")),
        chain=Chain(signal, stages, ase, glass, carried, noise),
        seed_laser=laser,
        seed_mount=build(FiberMount, seed.get("mount", {}), "seed.mount"),
        surroundings=build(Surroundings, content.get("surroundings", {}), "surroundings"),
        note=str(content.get("note", "")),
    )


def _seed(seed: dict[str, Any], glass: Spectroscopy) -> tuple[DbrLaser | None, Signal]:
    known = ("signal", "laser", "mount", "suppression", "resolution", "noise", "linewidth")
    refuse_unknown(seed, known, "seed")
    if ("signal" in seed) == ("laser" in seed):
        raise ValueError("seed: give either signal or laser")
    laser = _laser(seed["laser"], glass) if "laser" in seed else None
    if laser is not None:
        solved = lasing(laser)
        signal = Signal(solved.mode.wavelength_nm, solved.output_w)
    else:
        signal = build(Signal, seed["signal"], "seed.signal")
    if "linewidth" in seed:
        if signal.linewidth_hz:
            raise ValueError("seed: give either linewidth or signal.linewidth")
        linewidth_hz = parse_quantity("seed.linewidth", seed["linewidth"], "_hz")
        signal = replace(signal, linewidth_hz=linewidth_hz)
    return laser, signal


def _glass(content: Any) -> Spectroscopy:
    content = as_mapping(content, "glass")
    known = ("name", "lifetime", "temperature", "absorption_file", "emission_file")
    refuse_unknown(content, known, "glass")
    lifetime = LIFETIME_S
    if "lifetime" in content:
        lifetime = parse_quantity("glass.lifetime", content["lifetime"], "_s")
    if "absorption_file" in content:
        glass = load_spectroscopy(
            content["absorption_file"],
            content.get("emission_file"),
            lifetime_s=lifetime,
            complete_by_mccumber=True,
        )
    else:
        glass = ytterbium(content.get("name", "aluminosilicate"), lifetime)
    if "temperature" in content:
        kelvin = parse_quantity("glass.temperature", content["temperature"], "_k")
        glass = glass.at_temperature(kelvin)
    return glass


def _laser(content: Any, glass: Spectroscopy) -> DbrLaser:
    rest = as_mapping(content, "seed.laser")
    cavity = as_mapping(rest.pop("cavity", {}), "seed.laser.cavity")
    gratings = {
        side: build(Grating, cavity.pop(side, {}), f"seed.laser.cavity.{side}")
        for side in ("back", "front")
    }
    built = build(Cavity, cavity, "seed.laser.cavity", **gratings)
    return build(DbrLaser, rest, "seed.laser", cavity=built, spectroscopy=glass)


def _stage(content: Any, glass: Spectroscopy, where: str) -> Stage:
    rest = as_mapping(content, where)
    parts: dict[str, Any] = {"fiber": _fiber(rest.pop("fiber", {}), glass, f"{where}.fiber")}
    parts["pumps"] = tuple(
        build(Pump, pump, f"{where}.pumps[{place}]")
        for place, pump in enumerate(as_list(rest.pop("pumps", []), f"{where}.pumps"))
    )
    if "reflectors" in rest:
        parts["reflectors"] = tuple(
            build(Reflector, mirror, f"{where}.reflectors[{place}]")
            for place, mirror in enumerate(as_list(rest.pop("reflectors"), f"{where}.reflectors"))
        )
    if not parts["pumps"]:
        raise ValueError(f"{where}.pumps is missing: a stage needs at least one pump")
    kinds = {"input_filter": BandpassFilter, "added_noise": FrequencyNoise, "cooling": Cooling}
    for key, kind in kinds.items():
        if key in rest:
            parts[key] = build(kind, rest.pop(key), f"{where}.{key}")
    return build(Stage, rest, where, **parts)


def _fiber(content: Any, glass: Spectroscopy, where: str) -> Fiber:
    """Return a fiber from its ions per m³, or from the vendor's cladding absorption."""
    rest = as_mapping(content, where)
    if "cladding_absorption" not in rest:
        return build(Fiber, rest, where)
    absorption = parse_quantity(
        f"{where}.cladding_absorption", rest.pop("cladding_absorption"), "_db_per_m"
    )
    at_nm = parse_quantity(
        f"{where}.cladding_absorption_at", rest.pop("cladding_absorption_at", "976 nm"), "_nm"
    )
    core, cladding = (
        parse_quantity(f"{where}.{key}", rest.get(key, ""), "_um")
        for key in ("core_diameter", "cladding_diameter")
    )
    if "ytterbium" in rest:
        raise ValueError(f"{where}: give either ytterbium or cladding_absorption")
    density = ytterbium_from_cladding_absorption(absorption, at_nm, core, cladding, glass)
    fiber = build(Fiber, rest, where, ytterbium_per_m3=density)
    return replace(fiber, ytterbium_per_m3=density * fiber.core_area_m2 / fiber.doped_area_m2)


def build(kind: type[_Built], content: Any, where: str, **parts: Any) -> _Built:
    """Return a dataclass from a mapping whose keys are its fields without their units."""
    content = as_mapping(content, where)
    by_key = {split_unit(field.name)[0]: field for field in fields(kind)}  # type: ignore[arg-type]
    refuse_unknown(content, [key for key in by_key if by_key[key].name not in parts], where)
    values = dict(parts)
    for key, value in content.items():
        field = by_key[key]
        suffix = split_unit(field.name)[1]
        if suffix is not None and value is not None:
            value = parse_quantity(f"{where}.{key}", value, suffix)
        values[field.name] = value
    for key, field in by_key.items():
        optional = field.default is not MISSING or field.default_factory is not MISSING
        if field.name not in values and not optional:
            raise ValueError(f"{where}.{key} is missing")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def refuse_unknown(content: Any, known: Any, where: str) -> None:
    """Raise for a key that is not known; the message gives the nearest known key."""
    if not isinstance(content, dict):
        raise ValueError(f"{where} = {quoted(content)}: expected a mapping")
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(quoted(key)[1:-1], known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            shown = key if isinstance(key, str) and len(key) < 80 else quoted(key)
            raise ValueError(f"{where}.{shown} is unknown: allowed is {', '.join(known)}{hint}")


def as_mapping(content: Any, where: str) -> dict[str, Any]:
    """Return a copy of a mapping, or raise with its place."""
    if not isinstance(content, dict):
        raise ValueError(f"{where} = {quoted(content)}: expected a mapping")
    return dict(content)


def as_list(content: Any, where: str) -> list[Any]:
    """Return a list, or raise with its place."""
    if not isinstance(content, list):
        raise ValueError(f"{where} = {quoted(content)}: expected a list")
    return content
