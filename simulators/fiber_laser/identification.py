"""Identification: fit parameters of an amplifier to measured curves, with confidence intervals.

The intervals are those of nonlinear least squares: normal, with the stated standard errors and the
Jacobian at the fit. If the residuals exceed the stated errors, the intervals widen in proportion.
Where the data cannot tell parameters apart, the report names the pair.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import least_squares  # type: ignore[import-untyped]
from scipy.stats import norm  # type: ignore[import-untyped]

from .amplifier import Amplifier, PhysicalWarning
from .amplifier_result import AmplifierResult
from .parameter_paths import value_at, with_value
from .quantities import Array, require_positive
from .spectroscopy import CrossSection

QUANTITIES: dict[str, Callable[[AmplifierResult], ArrayLike]] = {
    "signal_out_w": lambda result: result.signal_out_w,
    "pump_left_w": lambda result: result.pumps_left_w[0],
    "ase_forward_w": lambda result: result.ase_out_w("forward").sum(),
    "ase_backward_w": lambda result: result.ase_out_w("backward").sum(),
    "ase_forward_spectrum_w": lambda result: result.ase_out_w("forward"),
    "ase_backward_spectrum_w": lambda result: result.ase_out_w("backward"),
    "heat_w": lambda result: result.heat_w,
}
"""Measurable quantities; a spectrum has one value per bin."""

_CORRELATED = 0.98
_STEP = 1e-4
_MOST_TRIALS = 40
_CONFIDENCE = 0.95
_USUAL_SCATTER = 2.0  # squared residuals per degree of freedom that are still due to chance


@dataclass(frozen=True, eq=False)
class Curve:
    """Measured values of one quantity while one input is varied.

    Args:
        quantity: A name of :data:`QUANTITIES`.
        path: The varied input, such as ``pumps[0].power_w``.
        inputs: Values of the input, (n,).
        measured: Measured values, (n,), or (n, bins) for a spectrum.
        relative_error: Standard error of a value relative to the value.
    """

    quantity: str
    path: str
    inputs: Array
    measured: Array
    relative_error: float = 0.02

    def __post_init__(self) -> None:
        if self.quantity not in QUANTITIES:
            raise ValueError(
                f"quantity = {self.quantity!r}: allowed is {', '.join(sorted(QUANTITIES))}"
            )
        object.__setattr__(self, "inputs", np.asarray(self.inputs, dtype=float))
        object.__setattr__(self, "measured", np.asarray(self.measured, dtype=float))
        if len(self.inputs) != len(self.measured) or not len(self.inputs):
            raise ValueError(
                f"measured: expected {len(self.inputs)} values, one per input, got "
                f"{len(self.measured)}"
            )
        if not (np.isfinite(self.measured).all() and (self.measured > 0).all()):
            raise ValueError(f"measured: values of {self.quantity} must be finite and positive")
        require_positive("relative_error", self.relative_error, "", 1.0)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A fitted parameter.

    Args:
        name: Path or name of the parameter.
        value: Best value.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        is_determined: Whether the interval is narrower than the given bounds.
    """

    name: str
    value: float
    low: float
    high: float
    is_determined: bool


@dataclass(frozen=True, eq=False)
class Identified:
    """A fit of an amplifier to measurements.

    Args:
        amplifier: The amplifier with the fitted parameters.
        estimates: The parameters.
        correlation: Correlation of the estimates, (P, P).
        chi_squared: Sum of squared residuals in units of the standard errors.
        degrees_of_freedom: Number of values minus number of parameters.
        indistinguishable: Pairs of parameters that the data cannot tell apart.
        modelled: The model at the measured inputs, for each curve.
    """

    amplifier: Amplifier
    estimates: tuple[Estimate, ...]
    correlation: Array
    chi_squared: float
    degrees_of_freedom: int
    indistinguishable: tuple[tuple[str, str], ...]
    modelled: tuple[Array, ...]

    @property
    def report(self) -> tuple[str, ...]:
        """Statements on what the data determine, one sentence each."""
        found = [
            f"{first} and {second} cannot be told apart by these data; fix one of them or measure "
            "another quantity"
            for first, second in self.indistinguishable
        ]
        found += [
            f"{one.name} is not determined within its bounds"
            for one in self.estimates
            if not one.is_determined
        ]
        ratio = self.chi_squared / self.degrees_of_freedom
        if ratio > 1 + 4 * np.sqrt(2 / self.degrees_of_freedom):
            found.append(
                f"the residuals are {np.sqrt(ratio):.1f} times the stated errors: the model or the "
                "errors do not fit the data"
            )
        return tuple(found)


def identify(
    amplifier: Amplifier,
    unknowns: Mapping[str, tuple[float, float]],
    curves: Sequence[Curve],
) -> Identified:
    """Fit unknown parameters to measured curves by nonlinear least squares.

    Args:
        amplifier: The amplifier with initial values.
        unknowns: Name -> smallest and largest value. A name is a path such as
            ``fiber.ytterbium_per_m3``, or one of ``pump_coupling``, ``signal_coupling`` (fraction
            of the given power that enters) and ``cross_section_scale``.
        curves: The measurements.

    Raises:
        ValueError: There are no more values than unknowns, or a bound or path is invalid.
        ConvergenceError: A trial has no steady state.
    """
    names = tuple(unknowns)
    low, high = (np.array([unknowns[name][end] for name in names]) for end in (0, 1))
    for name, first, last in zip(names, low, high, strict=True):
        if not first < last:
            raise ValueError(f"unknowns[{name!r}]: {first:g} must be below {last:g}")
    for curve in curves:
        if curve.path in names:
            raise ValueError(f"unknowns[{curve.path!r}]: a curve varies this input")
    count = sum(curve.measured.size for curve in curves)
    if count <= len(names):
        raise ValueError(f"curves: {len(names)} unknowns require more than {count} values")
    start = np.clip(
        [_value(amplifier, name) for name in names], low + 1e-3 * (high - low), high * (1 - 1e-9)
    )
    guesses: dict[tuple[str, float], AmplifierResult] = {}
    measured = np.concatenate([curve.measured.ravel() for curve in curves])
    errors = np.concatenate([(curve.measured * curve.relative_error).ravel() for curve in curves])

    def model(share: Array) -> list[Array]:
        values = (low + (high - low) * share).tolist()
        parameters = dict(zip(names, values, strict=True))
        solved: dict[tuple[str, float], AmplifierResult] = {}
        return [_modelled(amplifier, parameters, curve, guesses, solved) for curve in curves]

    def residuals(share: Array) -> Array:
        found = np.concatenate([values.ravel() for values in model(np.clip(share, 0, 1))])
        return (found - measured) / errors

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysicalWarning)
        fit = least_squares(
            residuals,
            (start - low) / (high - low),
            bounds=(0.0, 1.0),
            diff_step=_STEP,
            xtol=1e-8,
            ftol=1e-8,
            max_nfev=_MOST_TRIALS,
        )
        modelled = tuple(model(fit.x))
    return _identified(amplifier, names, low, high, fit, count - len(names), modelled)


def with_parameters(amplifier: Amplifier, values: Mapping[str, float]) -> Amplifier:
    """Return the amplifier with other values of parameters, see :func:`identify`."""
    for name, value in values.items():
        if name == "pump_coupling":
            pumps = tuple(replace(one, power_w=one.power_w * value) for one in amplifier.pumps)
            amplifier = replace(amplifier, pumps=pumps)
        elif name == "signal_coupling":
            signals = tuple(replace(one, power_w=one.power_w * value) for one in amplifier.signals)
            amplifier = replace(amplifier, signals=signals)
        elif name == "cross_section_scale":
            glass = amplifier.spectroscopy
            scaled = replace(
                glass,
                absorption=Scaled(glass.absorption, value),
                emission=Scaled(glass.emission, value),
                broadened=None,
            )
            amplifier = replace(amplifier, spectroscopy=scaled)
        else:
            amplifier = with_value(amplifier, name, float(value))
    return amplifier


@dataclass(frozen=True)
class Scaled:
    """A cross-section multiplied by a factor."""

    cross_section: CrossSection
    factor: float

    def __call__(self, wavelength_nm: Array) -> Array:
        """Return the scaled cross-section in m² at wavelengths in nm."""
        return self.factor * self.cross_section(wavelength_nm)


_FACTORS = ("pump_coupling", "signal_coupling", "cross_section_scale")


def _value(amplifier: Amplifier, name: str) -> float:
    return 1.0 if name in _FACTORS else float(value_at(amplifier, name))


def _modelled(
    amplifier: Amplifier,
    parameters: Mapping[str, float],
    curve: Curve,
    guesses: dict[tuple[str, float], AmplifierResult],
    solved: dict[tuple[str, float], AmplifierResult],
) -> Array:
    """Return the modelled curve; ``guesses`` lasts for the fit, ``solved`` for one model."""
    found = []
    for value in curve.inputs.tolist():
        key = (curve.path, value)
        if key not in solved:
            # The parameters come second, so that a coupling scales the varied input.
            changed = with_parameters(with_value(amplifier, curve.path, value), parameters)
            solved[key] = changed.solve(guess=guesses.get(key))
            guesses.setdefault(key, solved[key])
        found.append(QUANTITIES[curve.quantity](solved[key]))
    return np.array(found, dtype=float)


def _identified(
    amplifier: Amplifier,
    names: tuple[str, ...],
    low: Array,
    high: Array,
    fit: Any,
    degrees_of_freedom: int,
    modelled: tuple[Array, ...],
) -> Identified:
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac, rcond=1e-14)
    errors = np.sqrt(np.diag(covariance))
    correlation = covariance / np.maximum(np.outer(errors, errors), 1e-300)
    excess = np.sqrt(max(1.0, 2 * fit.cost / degrees_of_freedom / _USUAL_SCATTER))
    half = norm.ppf((1 + _CONFIDENCE) / 2) * excess * errors * (high - low)
    values = low + (high - low) * fit.x
    estimates = tuple(
        Estimate(name, float(value), float(value - h), float(value + h), bool(2 * h < b - a))
        for name, value, h, a, b in zip(names, values, half, low, high, strict=True)
    )
    pairs = tuple(
        (names[one], names[other])
        for one, other in combinations(range(len(names)), 2)
        if abs(correlation[one, other]) > _CORRELATED
    )
    return Identified(
        with_parameters(amplifier, dict(zip(names, values.tolist(), strict=True))),
        estimates,
        correlation,
        float(2 * fit.cost),
        degrees_of_freedom,
        pairs,
        modelled,
    )
