"""Design under limits: maximise the output within thresholds, by exact gradients from many starts.

Each stage and its delivery fiber has limits. A limit is a ratio to its allowed value, at most 1;
its gradient by the inputs of its stage and of the stages before is the adjoint gradient.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from scipy.optimize import minimize  # type: ignore[import-untyped]

from .amplifier import PhysicalWarning
from .beam_quality import beam_quality
from .chain import Chain, ChainResult
from .fiber import SINGLE_MODE_V, Fiber
from .gradients import Leaving, leaving_of
from .nonlinear_limits import BRILLOUIN_BANDWIDTH_HZ, RAMAN_GAIN_M
from .optimize import chain_gradients
from .parameter_paths import value_at, with_value
from .quantities import Array, require_positive, require_within
from .steady_state import ConvergenceError
from .thermal_limits import INSTABILITY_HEAT_W_PER_M

_SMITH_BRILLOUIN, _SMITH_RAMAN = 21.0, 16.0
_FEASIBLE = 1 + 1e-4
_PEAK_POWER = 16  # exponent of the norm that approximates the strongest bin
_ITERATIONS = 60
Ratio = Callable[[Leaving], float]


@dataclass(frozen=True)
class Limits:
    """Limits of each stage of a design. None leaves a limit out.

    Args:
        brillouin_gain_m_per_w: Gain in m/W of Smith's Brillouin threshold.
        delivery_m: Length of the delivery fiber after the last stage in m, added to the
            ``delivery_m`` that each stage has.
        raman: Whether the output of each stage stays below Smith's Raman threshold.
        heat_w_per_m: Largest average heat in W/m.
        ase_suppression_db: Smallest ASE suppression at the output of each stage in dB.
        resolution_nm: Resolution of the suppression in nm.
        beam_quality: Largest M² of the last stage.
        lp11_share: Fraction of the power launched into LP11, if the core guides it.
    """

    brillouin_gain_m_per_w: float | None = 5e-11
    delivery_m: float = 0.0
    raman: bool = True
    heat_w_per_m: float | None = INSTABILITY_HEAT_W_PER_M
    ase_suppression_db: float | None = None
    resolution_nm: float = 0.02
    beam_quality: float | None = None
    lp11_share: float = 0.05

    def __post_init__(self) -> None:
        if self.brillouin_gain_m_per_w is not None:
            require_positive("brillouin_gain_m_per_w", self.brillouin_gain_m_per_w, "m/W")
        require_within("delivery_m", self.delivery_m, "m", 0.0)
        if self.heat_w_per_m is not None:
            require_positive("heat_w_per_m", self.heat_w_per_m, "W/m")
        require_positive("resolution_nm", self.resolution_nm, "nm")
        require_within("lp11_share", self.lp11_share, "", 0.0, 1.0)
        if self.beam_quality is not None:
            require_within("beam_quality", self.beam_quality, "", 1.0)

    def ratios(self, chain: Chain) -> dict[str, tuple[int, Ratio]]:
        """Return stage and name -> place of the stage, and a function at most 1 if the limit holds.

        For example ``main.brillouin``.
        """
        found: dict[str, tuple[int, Ratio]] = {}
        last = len(chain.stages) - 1
        for place, stage in enumerate(chain.stages):
            own = {"heat": self._heat, "ase_suppression": self._ase_suppression}
            delivery_m = stage.delivery_m + (self.delivery_m if place == last else 0.0)
            own["brillouin"] = partial(self._brillouin, delivery_m)
            own["raman"] = partial(self._raman, delivery_m)
            if place == last:
                own["beam_quality"] = self._beam_quality
            found |= {
                f"{stage.name}.{name}": (place, own[name]) for name in self._active if name in own
            }
        return found

    @property
    def _active(self) -> list[str]:
        given = {
            "brillouin": self.brillouin_gain_m_per_w is not None,
            "raman": self.raman,
            "heat": self.heat_w_per_m is not None,
            "ase_suppression": self.ase_suppression_db is not None,
            "beam_quality": self.beam_quality is not None,
        }
        return [name for name, is_given in given.items() if is_given]

    def _brillouin(self, delivery_m: float, leaving: Leaving) -> float:
        gain = self.brillouin_gain_m_per_w or 0.0
        gain *= BRILLOUIN_BANDWIDTH_HZ
        gain /= BRILLOUIN_BANDWIDTH_HZ + leaving.amplifier.signals[0].linewidth_hz
        return _intensity_length(leaving, delivery_m) * gain / _SMITH_BRILLOUIN

    def _raman(self, delivery_m: float, leaving: Leaving) -> float:
        gain = RAMAN_GAIN_M / (leaving.amplifier.signals[0].wavelength_nm * 1e-9)
        return _intensity_length(leaving, delivery_m) * gain / _SMITH_RAMAN

    def _heat(self, leaving: Leaving) -> float:
        return leaving.heat_w / leaving.amplifier.fiber.length_m / (self.heat_w_per_m or np.inf)

    def _ase_suppression(self, leaving: Leaving) -> float:
        """Return the strongest ASE over its allowed value; a high norm is the smooth maximum."""
        bins = leaving.amplifier.ase_bins
        if bins is None:
            raise ValueError("ase = None: a limit of the ASE suppression requires an AseBand")
        density = leaving.forward_w[-bins.count :] * self.resolution_nm / bins.widths_nm
        strongest = density.max() * float(
            np.sum((density / density.max()) ** _PEAK_POWER) ** (1 / _PEAK_POWER)
        )
        return float(
            strongest / leaving.forward_w[0] * 10 ** ((self.ase_suppression_db or 0.0) / 10)
        )

    def _beam_quality(self, leaving: Leaving) -> float:
        fiber, wavelength = leaving.amplifier.fiber, leaving.amplifier.signals[0].wavelength_nm
        return _mixed_beam_quality(fiber, wavelength, self.lp11_share) / (
            self.beam_quality or np.inf
        )


def _intensity_length(leaving: Leaving, delivery_m: float) -> float:
    """Return ∫ P/A dz over amplifier and delivery fiber in W/m."""
    fiber, wavelength = leaving.amplifier.fiber, leaving.amplifier.signals[0].wavelength_nm
    power_length = leaving.power_length_w_m[0] + delivery_m * leaving.forward_w[0]
    return float(power_length / _effective_area_m2(fiber, wavelength))


@lru_cache(maxsize=256)
def _effective_area_m2(fiber: Fiber, wavelength_nm: float) -> float:
    return float(fiber.effective_area_m2(wavelength_nm))


@lru_cache(maxsize=256)
def _mixed_beam_quality(fiber: Fiber, wavelength_nm: float, lp11_share: float) -> float:
    """Return M² with a share of the power in LP11, if the core guides it."""
    content = {"LP01": 1.0}
    if float(fiber.v_number(wavelength_nm)) > SINGLE_MODE_V:
        content = {"LP01": 1 - lp11_share, "LP11": lp11_share}
    return beam_quality(fiber, wavelength_nm, content)


@dataclass(frozen=True, eq=False)
class ConstrainedOptimum:
    """The best design found under limits.

    Args:
        chain: The chain.
        result: Its steady state.
        values: Path of each varied input -> value.
        output_w: Output power in W.
        ratios: Limit, such as ``main.brillouin`` -> ratio to the allowed value.
        is_feasible: Whether all limits hold. If not, no start found a design within the bounds that
            meets the limits, and this one violates them least.
        feasible_starts: Number of starts that ended at a feasible design.
        starts: Number of starts.
    """

    chain: Chain
    result: ChainResult
    values: dict[str, float]
    output_w: float
    ratios: dict[str, float]
    is_feasible: bool
    feasible_starts: int
    starts: int


def constrained_design(
    chain: Chain,
    bounds: Mapping[str, tuple[float, float]],
    limits: Limits | None = None,
    objective: str = "power",
    starts: int = 4,
    seed: int = 0,
) -> ConstrainedOptimum:
    """Maximise output power or efficiency of a chain under limits, by SLSQP from several starts.

    Args:
        chain: The first start; others are random within the bounds.
        bounds: Path of an input, as in :func:`chain_gradient` -> smallest and largest value.
        limits: Limits of each stage; None: the defaults.
        objective: ``power``, or ``efficiency`` for output over launched pump of the last stage.
        starts: Number of starts.
        seed: Seed of the random starts.

    Raises:
        ValueError: There is no input, a lower bound is not below the upper bound, or the objective
            is unknown.
        ConvergenceError: No start has a steady state.
    """
    if not bounds:
        raise ValueError("bounds = {}: at least one input is required")
    for path, (low, high) in bounds.items():
        if not low < high:
            raise ValueError(f"bounds of {path}: {low:g} must be below {high:g}")
    if objective not in ("power", "efficiency"):
        raise ValueError(f"objective = {objective!r}: allowed is 'power' or 'efficiency'")
    require_within("starts", starts, "", 1, 1000)
    problem = _Problem(chain, bounds, limits or Limits(), objective)
    points = np.random.default_rng(seed).uniform(size=(starts, len(bounds)))
    points[0] = problem.share_of(chain)
    found: list[tuple[float, float, Array]] = []
    failure: ConvergenceError | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysicalWarning)
        for point in points:
            try:
                found.append(problem.maximised(point))
            except ConvergenceError as error:
                failure = error
        if not found:
            raise failure or ConvergenceError("no start has a steady state")
        feasible = [one for one in found if one[0] <= _FEASIBLE]
        # The largest objective of the feasible designs, or the smallest violation.
        best = max(feasible, key=lambda one: one[1]) if feasible else min(found, key=lambda o: o[0])
        return problem.optimum(best[2], bool(feasible), len(feasible), len(points))


class _Problem:
    """Objective, limits and their gradients over shares of the bounds, with the last solution."""

    def __init__(
        self,
        chain: Chain,
        bounds: Mapping[str, tuple[float, float]],
        limits: Limits,
        objective: str,
    ) -> None:
        self.chain, self.paths, self.objective = chain, tuple(bounds), objective
        self.low = np.array([bounds[path][0] for path in self.paths])
        self.span = np.array([bounds[path][1] for path in self.paths]) - self.low
        self.ratios = limits.ratios(chain)
        goal = (len(chain.stages) - 1, self._goal)
        self.functions = {"objective": goal, **self.ratios}
        self.sloped: dict[bytes, dict[str, Array]] = {}
        self.solved: dict[bytes, ChainResult] = {}
        self.guess: ChainResult | None = None
        self.scale = 1.0

    def share_of(self, chain: Chain) -> Array:
        values = np.array([float(value_at(chain, path)) for path in self.paths])
        return np.clip((values - self.low) / self.span, 0.0, 1.0)

    def chain_at(self, share: Array) -> Chain:
        changed = self.chain
        for path, value in zip(self.paths, self.low + self.span * share, strict=True):
            changed = with_value(changed, path, float(value))
        return changed

    def result_at(self, share: Array) -> ChainResult:
        key = np.clip(share, 0.0, 1.0).tobytes()
        if key not in self.solved:
            self.solved = {key: self.chain_at(np.frombuffer(key)).solve(guess=self.guess)}
            self.guess = self.solved[key]
        return self.solved[key]

    def maximised(self, start: Array) -> tuple[float, float, Array]:
        """Return the largest ratio, the objective and the shares of the best design of a start."""
        self.guess = None
        self.scale = max(abs(self.value(start, "objective")), 1e-12)
        names = list(self.ratios)
        limits = {
            "type": "ineq",
            "fun": lambda share: 1 - np.array([self.value(share, name) for name in names]),
            "jac": lambda share: -np.array([self.slopes(share, name) for name in names]),
        }
        found = minimize(
            lambda share: -self.value(share, "objective") / self.scale,
            start,
            jac=lambda share: -self.slopes(share, "objective") / self.scale,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * len(start),
            constraints=[limits] if names else [],
            options={"maxiter": _ITERATIONS, "ftol": 1e-7},
        )
        share = np.clip(found.x, 0.0, 1.0)
        worst = max((self.value(share, name) for name in names), default=0.0)
        return worst, self.value(share, "objective"), share

    def optimum(self, share: Array, feasible: bool, count: int, starts: int) -> ConstrainedOptimum:
        result = self.result_at(share)
        values = (self.low + self.span * share).tolist()
        return ConstrainedOptimum(
            chain=self.chain_at(share),
            result=result,
            values=dict(zip(self.paths, values, strict=True)),
            output_w=result.output.signal_out_w,
            ratios={name: self.value(share, name) for name in self.ratios},
            is_feasible=feasible,
            feasible_starts=count,
            starts=starts,
        )

    def _goal(self, leaving: Leaving) -> float:
        power = float(leaving.forward_w[0])
        if self.objective == "power":
            return power
        return power / max(sum(pump.power_w for pump in leaving.amplifier.pumps), 1e-12)

    def value(self, share: Array, name: str) -> float:
        """Return the objective or a ratio."""
        place, function = self.functions[name]
        return function(leaving_of(self.result_at(share).stages[place]))

    def slopes(self, share: Array, name: str) -> Array:
        """Return the derivatives of the objective or a ratio by the shares."""
        key = np.clip(share, 0.0, 1.0).tobytes()
        if key not in self.sloped:
            found = chain_gradients(
                self.result_at(share), self.paths, list(self.functions.values())
            )
            by_name = zip(self.functions, found, strict=True)
            self.sloped = {
                key: {
                    function: np.array([by_path[path] for path in self.paths]) * self.span
                    for function, by_path in by_name
                }
            }
        return self.sloped[key][name]
