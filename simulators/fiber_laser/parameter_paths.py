"""Parameters of a design by path, such as ``fiber.length_m`` or ``pumps[0].power_w``."""

import re
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from .quantities import split_unit

_STEP = re.compile(r"\.?([A-Za-z_]\w*)|\[(\d+)\]")


def value_at(design: Any, path: str) -> Any:
    """Return the value at a path.

    Raises:
        ValueError: The path does not exist; the message lists the valid names.
    """
    for step in _steps(path):
        design = _part(design, step, path)
    return design


def completed(design: Any, path: str) -> str:
    """Return a path with the unit of its last name, which may be omitted.

    For example ``fiber.length`` is ``fiber.length_m``.

    Raises:
        ValueError: The path does not exist, or its value is not a number.
    """
    owner, _, last = path.rpartition(".")
    part = value_at(design, owner) if owner else design
    if is_dataclass(part):
        for field in fields(part):
            if split_unit(field.name)[0] == last:
                path = f"{owner}.{field.name}" if owner else field.name
    value = value_at(design, path)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"input {path!r} is not a number")
    return path


def with_value(design: Any, path: str, value: Any) -> Any:
    """Return a copy of the design with another value at a path; the copy is validated."""
    return _replaced(design, _steps(path), value, path)


def _replaced(design: Any, steps: list[str | int], value: Any, path: str) -> Any:
    if not steps:
        return value
    part = _replaced(_part(design, steps[0], path), steps[1:], value, path)
    step = steps[0]
    if isinstance(step, str):
        return replace(design, **{step: part})
    if isinstance(design, np.ndarray):
        copy = design.copy()
        copy[step] = part
        return copy
    return (*design[:step], part, *design[step + 1 :])


def _part(design: Any, step: str | int, path: str) -> Any:
    if isinstance(step, int):
        if not isinstance(design, (tuple, list, np.ndarray)) or step >= len(design):
            raise ValueError(f"path {path!r}: index [{step}] does not exist")
        return design[step]
    names = [field.name for field in fields(design)] if is_dataclass(design) else []
    if step not in names:
        raise ValueError(f"path {path!r}: {step!r} is not one of {', '.join(names) or 'no fields'}")
    return getattr(design, step)


def _steps(path: str) -> list[str | int]:
    found = list(_STEP.finditer(path))
    if not found or "".join(match[0] for match in found) != path:
        raise ValueError(f"path {path!r}: expected names and indices such as pumps[0].power_w")
    return [int(match[2]) if match[2] else match[1] for match in found]
