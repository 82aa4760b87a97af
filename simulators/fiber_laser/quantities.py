"""Physical constants, checks of values that have units, and quantities written as text.

Constants are in SI units (CODATA, through scipy). Text is read as people write it: ``1018 nm``,
``4.95 dB/m``, ``8e25 1/m^3``, ``20 degC``.
"""

import math
import re

import numpy as np
from numpy.typing import NDArray
from scipy.constants import (  # type: ignore[import-untyped]
    Boltzmann,
    Planck,
    speed_of_light,
)

from .file_limits import quoted

Array = NDArray[np.float64]

SPEED_OF_LIGHT: float = speed_of_light
PLANCK: float = Planck
BOLTZMANN: float = Boltzmann
SECOND_RADIATION_CONSTANT: float = Planck * speed_of_light / Boltzmann
"""h c / k in m K."""
_NEPERS_PER_DB = np.log(10) / 10
# Dimension -> unit -> size of that unit in the dimension's first unit.
_UNITS: dict[str, dict[str, float]] = {
    "length": {"m": 1, "km": 1e3, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "pm": 1e-12},
    "power": {"W": 1, "kW": 1e3, "mW": 1e-3, "uW": 1e-6, "nW": 1e-9, "pW": 1e-12},
    "time": {"s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "temperature": {"K": 1},
    "frequency": {"Hz": 1, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9, "THz": 1e12},
    "attenuation": {"1/m": 1, "1/km": 1e-3, "dB/m": _NEPERS_PER_DB, "dB/km": _NEPERS_PER_DB / 1e3},
    "density": {"1/m^3": 1, "1/cm^3": 1e6, "m^-3": 1, "cm^-3": 1e6},
    "ratio": {"dB": 1},
    "expansion": {"1/K": 1, "ppm/K": 1e-6},
    "curvature": {"1/K^2": 1},
    "flicker": {"Hz^2": 1},
    "white": {"Hz^2/Hz": 1},
    "walk": {"Hz^3": 1},
    "convection": {"W/m^2/K": 1},
    "heat": {"W/m": 1, "mW/m": 1e-3, "kW/m": 1e3},
    "scattering gain": {"m/W": 1},
}
# Suffix of a name -> dimension and unit, the longest suffix first.
SUFFIXES: dict[str, tuple[str, str]] = {
    "_w_per_m2_k": ("convection", "W/m^2/K"),
    "_w_per_m": ("heat", "W/m"),
    "_m_per_w": ("scattering gain", "m/W"),
    "_hz2_per_hz": ("white", "Hz^2/Hz"),
    "_db_per_m": ("attenuation", "dB/m"),
    "_per_m3": ("density", "1/m^3"),
    "_per_k2": ("curvature", "1/K^2"),
    "_per_k": ("expansion", "1/K"),
    "_per_m": ("attenuation", "1/m"),
    "_hz2": ("flicker", "Hz^2"),
    "_hz3": ("walk", "Hz^3"),
    "_hz": ("frequency", "Hz"),
    "_nm": ("length", "nm"),
    "_um": ("length", "um"),
    "_mm": ("length", "mm"),
    "_db": ("ratio", "dB"),
    "_m": ("length", "m"),
    "_w": ("power", "W"),
    "_s": ("time", "s"),
    "_k": ("temperature", "K"),
    "_c": ("temperature", "degC"),
}
# Linear in the length of the text: no two neighbouring parts match the same character.
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_PLAIN = str.maketrans({"µ": "u", "μ": "u", "²": "^2", "³": "^3"})
_CELSIUS = ("degC", "°C", "C")
_ZERO_CELSIUS_K = 273.15


def require_within(
    name: str,
    value: float,
    unit: str,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
) -> float:
    """Return the value if ``low <= value <= high`` (``low < value`` with ``open_low``).

    Raises:
        ValueError: The value is not a finite number or lies outside the range.
    """
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} = {value!r}: expected a number in {unit}") from error
    too_low = number <= low if open_low else number < low
    if not math.isfinite(number) or too_low or number > high:
        said = f"{name} = {number:g} {unit}".rstrip()
        raise ValueError(f"{said}: allowed is {_range(low, high, unit, open_low)}")
    return number


def require_positive(name: str, value: float, unit: str, high: float = math.inf) -> float:
    """Return the value if it is finite, positive and at most ``high``."""
    return require_within(name, value, unit, 0.0, high, open_low=True)


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return the value if it is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} = {value!r}: allowed is {' or '.join(map(repr, choices))}")
    return value


def _range(low: float, high: float, unit: str, open_low: bool) -> str:
    above = f"{'more than' if open_low else 'at least'} {low:g} {unit}".rstrip()
    if math.isinf(high):
        return above if math.isfinite(low) else f"a finite number in {unit}"
    return f"{above} and at most {high:g} {unit}".rstrip()


def split_unit(name: str) -> tuple[str, str | None]:
    """Split a name into the name without its unit and the suffix of the unit, if any."""
    for suffix in SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return name[: -len(suffix)], suffix
    return name, None


def parse_quantity(name: str, text: object, suffix: str) -> float:
    """Return the number in the unit of ``suffix``.

    Raises:
        ValueError: The text has no number, no unit, or a unit of another dimension; the message
            lists the valid units.
    """
    dimension, unit = SUFFIXES[suffix]
    stripped = str(text).strip() if isinstance(text, str) else quoted(text)
    found = _NUMBER.match(stripped)
    if found is None or not math.isfinite(number := float(found[0])):
        raise ValueError(f"{name} = {quoted(text)}: expected a number and a unit of {dimension}")
    given = stripped[found.end() :].strip().translate(_PLAIN)
    if dimension == "temperature":
        return _temperature(name, text, number, given, unit)
    units = _UNITS[dimension]
    if given not in units:
        raise ValueError(
            f"{name} = {quoted(text)}: expected a unit of {dimension} ({', '.join(units)}), got "
            f"{quoted(given) if given else 'none'}"
        )
    # Rounded to the digits as written: 8 mm is 0.008 m, not 0.008000000000000002.
    return float(f"{number * units[given] / units[unit]:.15g}")


def _temperature(name: str, text: object, number: float, given: str, unit: str) -> float:
    if given not in ("K", *_CELSIUS):
        raise ValueError(f"{name} = {quoted(text)}: expected a unit of temperature (K, degC)")
    kelvin = number if given == "K" else number + _ZERO_CELSIUS_K
    return kelvin if unit == "K" else kelvin - _ZERO_CELSIUS_K
