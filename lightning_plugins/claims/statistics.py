"""Paired statistics for a few seeds: t intervals, TOST, Fieller, Holm, detectable effects.

scipy is imported inside the functions: listing and describing claims does not require it.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from lightning_plugins.optional_packages import requires

SIGNIFICANCE = 0.05
POWER = 0.80
PLANNED_POWER = 0.9
MOST_PAIRS = 400

_TINY_EFFECT = 1e-12


@dataclass(frozen=True)
class PairedInterval:
    """Mean of paired differences, its t interval, and the two-sided p value of a zero mean.

    ``standard_deviation`` is the one of the differences. With fewer than two pairs everything
    except ``n`` (and the estimate, for one pair) is NaN.
    """

    estimate: float
    interval: tuple[float, float]
    p: float
    n: int
    standard_deviation: float


def paired_interval(
    differences: Sequence[float], confidence: float = 1 - SIGNIFICANCE
) -> PairedInterval:
    """Return Student's paired t test and interval.

    With differences ``d_1 … d_n``, mean ``m`` and standard deviation ``s`` (``n - 1`` in the
    denominator) the interval is ``m ± t(n-1, (1+confidence)/2) · s/√n``. If all differences are
    equal, the interval is that point and p is 0, or 1 if they are 0.
    """
    n = len(differences)
    if n < 2:
        estimate = differences[0] if n else math.nan
        return PairedInterval(estimate, (math.nan, math.nan), math.nan, n, math.nan)
    mean, deviation = _mean_and_deviation(differences)
    half = student_quantile((1 + confidence) / 2, n - 1) * deviation / math.sqrt(n)
    p = 2 * min(one_sided_p(differences), one_sided_p([-d for d in differences]))
    return PairedInterval(mean, (mean - half, mean + half), p, n, deviation)


def one_sided_p(differences: Sequence[float]) -> float:
    """Return the p value of the t test with the alternative that the mean is *below* zero."""
    mean, deviation = _mean_and_deviation(differences)
    n = len(differences)
    if deviation <= _TINY_EFFECT * abs(mean):
        return 0.0 if mean < 0 else 0.5 if mean == 0 else 1.0
    return float(_special().stdtr(n - 1, mean / (deviation / math.sqrt(n))))


def tost(differences: Sequence[float], margin: float | Sequence[float]) -> tuple[float, float]:
    """Return one-sided p values for and against equivalence within ``±margin``.

    For: the larger p value of the two one-sided t tests (Schuirmann, J. Pharmacokinet. Biopharm.
    15, 1987). It is at most 0.05 exactly if the 90 % t interval is inside the margin. Against: the
    smaller p value of the two opposite tests, that the difference is outside. With one margin per
    pair the tests use ``d_i ∓ margin_i``.
    """
    margins = [margin] * len(differences) if isinstance(margin, int | float) else margin
    below_upper = [d - m for d, m in zip(differences, margins, strict=True)]
    above_lower = [-d - m for d, m in zip(differences, margins, strict=True)]
    inside = max(one_sided_p(below_upper), one_sided_p(above_lower))
    outside = min(one_sided_p([-x for x in side]) for side in (below_upper, above_lower))
    return inside, outside


def fieller_interval(
    numerators: Sequence[float], denominators: Sequence[float], confidence: float
) -> tuple[float, float]:
    """Return the interval of ``mean(numerators) / mean(denominators)`` from pairs.

    It contains all ``r`` for which the paired t test does not reject ``mean(numerators -
    r·denominators) = 0`` (Fieller, 1954). It is ``(-inf, inf)`` if the interval of the denominator
    contains zero, because the set is then unbounded.
    """
    n = len(numerators)
    if n < 2:
        return (math.nan, math.nan)
    top, top_deviation = _mean_and_deviation(numerators)
    bottom, bottom_deviation = _mean_and_deviation(denominators)
    products = ((a - top) * (b - bottom) for a, b in zip(numerators, denominators, strict=True))
    covariance = math.fsum(products) / (n - 1)
    scale = student_quantile((1 + confidence) / 2, n - 1) ** 2 / n
    # (top - r·bottom)² ≤ scale·(var_top - 2r·cov + r²·var_bottom), a quadratic in r.
    a = bottom**2 - scale * bottom_deviation**2
    b = top * bottom - scale * covariance
    c = top**2 - scale * top_deviation**2
    if a <= 0:
        return (-math.inf, math.inf)
    root = math.sqrt(max(0.0, b * b - a * c))
    return ((b - root) / a, (b + root) / a)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted by Holm's step-down method, in the given order; NaN counts as 1.

    Source: Holm, Scand. J. Statist. 6 (1979).
    """
    clean = [1.0 if math.isnan(p) else p for p in p_values]
    adjusted = [1.0] * len(clean)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(clean)), key=clean.__getitem__)):
        running = max(running, min(1.0, (len(clean) - rank) * clean[index]))
        adjusted[index] = running
    return adjusted


def minimal_detectable_effect(
    standard_deviation: float, n: int, power: float = POWER, significance: float = SIGNIFICANCE
) -> float:
    """Return the smallest true mean difference that ``n`` pairs detect with the given power.

    Exact for the two-sided paired t test: ``δ = λ·s/√n``, in the metric's own unit, where λ is the
    noncentrality at which the noncentral t distribution has probability ``power`` outside
    ``±t(n-1, 1-significance/2)``. NaN with fewer than two pairs.
    """
    if n < 2 or math.isnan(standard_deviation):
        return math.nan
    noncentrality = _detectable_noncentrality(n, power, significance)
    return noncentrality * standard_deviation / math.sqrt(n)


def pairs_for(
    effect: float,
    deviation: float,
    power: float = PLANNED_POWER,
    significance: float = SIGNIFICANCE,
) -> int | None:
    """Return the smallest number of pairs whose paired t test detects ``effect`` with ``power``.

    None if more than 400 pairs are necessary, or without an effect or a deviation.
    """
    if not effect > 0 or math.isnan(deviation):
        return None
    if deviation <= _TINY_EFFECT * effect:
        return 2

    def is_enough(pairs: int) -> bool:
        noncentrality = effect * math.sqrt(pairs) / deviation
        return paired_t_power(noncentrality, pairs, significance) >= power

    if not is_enough(MOST_PAIRS):
        return None
    return bisect_left(range(2, MOST_PAIRS), True, key=is_enough) + 2


@dataclass(frozen=True)
class PooledEffect:
    """Mean effect over settings, its standard error, degrees of freedom and standard deviation.

    The last is that of the settings' true effects.
    """

    estimate: float
    standard_error: float
    freedom: int
    between: float

    def one_sided_p(self, above: float = 0.0) -> float:
        """Return the p value with the alternative that the effect is larger than ``above``."""
        t = (self.estimate - above) / self.standard_error
        return float(_special().stdtr(self.freedom, -t))


def pooled_effect(means: Sequence[float], errors: Sequence[float]) -> PooledEffect:
    """Pool the effects of several settings by a random-effects meta-analysis.

    Weights are those of DerSimonian and Laird (Control. Clin. Trials 7, 1986), and the standard
    error is that of Hartung and Knapp (Stat. Med. 20, 2001), but not below that of the weights
    (Roever et al., BMC Med. Res. Methodol. 15, 2015), with ``settings - 1`` degrees of freedom.

    Args:
        means: Effect of each setting; at least two.
        errors: Standard error of each, above 0.
    """
    fixed = [1 / error**2 for error in errors]
    total = math.fsum(fixed)
    centre = math.fsum(w * m for w, m in zip(fixed, means, strict=True)) / total
    q = math.fsum(w * (m - centre) ** 2 for w, m in zip(fixed, means, strict=True))
    spread = total - math.fsum(w**2 for w in fixed) / total
    variance = max(0.0, (q - (len(means) - 1)) / spread)
    weights = [1 / (error**2 + variance) for error in errors]
    total = math.fsum(weights)
    estimate = math.fsum(w * m for w, m in zip(weights, means, strict=True)) / total
    inflation = math.fsum(w * (m - estimate) ** 2 for w, m in zip(weights, means, strict=True))
    inflation = max(1.0, inflation / (len(means) - 1))
    return PooledEffect(estimate, math.sqrt(inflation / total), len(means) - 1, math.sqrt(variance))


def level_of_look(looks: Sequence[int], n: int) -> float:
    """Return the two-sided level of a test at one of several planned looks at growing data.

    Up to a share ``t`` of the pairs, ``2 - 2Φ(Φ⁻¹(1 - α/2)/√t)`` is spent: the function of Lan and
    DeMets (Biometrika 70, 1983) that resembles O'Brien and Fleming's bounds. A look has what is
    spent since the look before. The levels add up to α = 0.05, so by Bonferroni's inequality all
    looks together have at most this error, for any test and any dependence between looks.

    Args:
        looks: Planned numbers of pairs, increasing.
        n: One of them.
    """
    special = _special()
    bound = float(special.ndtri(1 - SIGNIFICANCE / 2))

    def spent(pairs: int) -> float:
        return float(2 * special.ndtr(-bound / math.sqrt(pairs / looks[-1]))) if pairs else 0.0

    return spent(n) - spent(max((one for one in looks if one < n), default=0))


def student_quantile(probability: float, degrees_of_freedom: int) -> float:
    """Return a quantile of Student's t distribution."""
    return float(_special().stdtrit(degrees_of_freedom, probability))


def paired_t_power(noncentrality: float, n: int, significance: float = SIGNIFICANCE) -> float:
    """Return the power of the two-sided paired t test at noncentrality ``λ = δ·√n/s``.

    The noncentral t tail is computed as the mean of ``Φ(λ - t·S) + Φ(-λ - t·S)`` over the scaled
    chi variable ``S``, because scipy's noncentral t returns NaN for the large ``λ`` of two pairs.
    """
    special = _special()
    from scipy.integrate import quad  # type: ignore[import-untyped]

    freedom = n - 1
    critical = student_quantile(1 - significance / 2, freedom)
    constant = math.log(2) + freedom / 2 * math.log(freedom / 2) - math.lgamma(freedom / 2)

    def weighted(scaled_chi: float) -> float:
        logarithm = (freedom - 1) * math.log(scaled_chi) - freedom * scaled_chi**2 / 2
        reached = special.ndtr(noncentrality - critical * scaled_chi)
        reached += special.ndtr(-noncentrality - critical * scaled_chi)
        return float(math.exp(constant + logarithm) * reached)

    end = 1 + 10 / math.sqrt(freedom)  # beyond ten standard deviations of S
    edge = noncentrality / critical
    return float(quad(weighted, 0.0, end, points=[min(1.0, edge)], epsabs=1e-12, limit=200)[0])


@cache
def _detectable_noncentrality(n: int, power: float, significance: float) -> float:
    from scipy.optimize import brentq  # type: ignore[import-untyped]

    largest = 10 + 10 * student_quantile(1 - significance / 2, n - 1)  # two pairs need the most

    def excess(noncentrality: float) -> float:
        return paired_t_power(noncentrality, n, significance) - power

    return float(brentq(excess, 0.0, largest, rtol=1e-9))


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    n = len(values)
    mean = math.fsum(values) / n
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))


def _special() -> ModuleType:
    with requires("scipy", by="the statistics of claims", extra="report"):
        from scipy import special  # type: ignore[import-untyped]
    return special
