"""The functions of an exact exponential step: φ1(y) = (e^y - 1)/y, φ2(y) = (e^y - 1 - y)/y²."""

from math import factorial

import numpy as np

from lightning_plugins.simulators.fiber_laser.spectroscopy import Array

_SERIES_BELOW = 0.02
_TERMS = 7


def step_functions(y: Array) -> tuple[Array, Array, Array]:
    """e^y, φ1(y) and φ2(y), elementwise, to rounding also near zero."""
    grown = np.expm1(y)
    near = np.abs(y) < _SERIES_BELOW
    with np.errstate(divide="ignore", invalid="ignore"):
        phi1 = grown / y
        phi2 = (phi1 - 1) / y
    if near.any():
        phi1[near] = _series(y[near], 1)
        phi2[near] = _series(y[near], 2)
    return grown + 1, phi1, phi2


def step_derivatives(y: Array, grown: Array, phi1: Array, phi2: Array) -> tuple[Array, Array]:
    """φ1'(y) and φ2'(y), given e^y, φ1 and φ2."""
    near = np.abs(y) < _SERIES_BELOW
    with np.errstate(divide="ignore", invalid="ignore"):
        slope1 = (grown - phi1) / y
        slope2 = (slope1 - phi2) / y
    if near.any():
        slope1[near] = _series_slope(y[near], 1)
        slope2[near] = _series_slope(y[near], 2)
    return slope1, slope2


def _series(y: Array, order: int) -> Array:
    """φ_order(y) = Σ y^n / (n + order)!."""
    return _polynomial([1 / factorial(n + order) for n in range(_TERMS)], y)


def _series_slope(y: Array, order: int) -> Array:
    return _polynomial([n / factorial(n + order) for n in range(1, _TERMS + 1)], y)


def _polynomial(coefficients: list[float], y: Array) -> Array:
    value = np.zeros_like(y)
    for coefficient in reversed(coefficients):
        value = value * y + coefficient
    return value
