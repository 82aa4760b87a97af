"""Checks of numbers with units: what is wrong is said with name, value, unit and allowed range."""

import math


def require_within(
    name: str,
    value: float,
    unit: str,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
) -> float:
    """The value, if ``low <= value <= high`` (``low < value`` with ``open_low``).

    Raises:
        ValueError: it is no finite number, or outside.
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
    """The value, if it is finite, above zero and at most ``high``."""
    return require_within(name, value, unit, 0.0, high, open_low=True)


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """The value, if it is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} = {value!r}: allowed is {' or '.join(map(repr, choices))}")
    return value


def _range(low: float, high: float, unit: str, open_low: bool) -> str:
    above = f"{'more than' if open_low else 'at least'} {low:g} {unit}".rstrip()
    if math.isinf(high):
        return above if math.isfinite(low) else f"a finite number in {unit}"
    return f"{above} and at most {high:g} {unit}".rstrip()
