"""The number of seeds that decides each claim, from the cells of earlier runs as a pilot."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from lightning_plugins.claims.claim import Claim, Paper
from lightning_plugins.claims.contrasts import Values
from lightning_plugins.claims.result_store import ResultStore
from lightning_plugins.claims.statistics import MOST_PAIRS


@dataclass(frozen=True)
class PlannedClaim:
    """How many pairs decide a claim.

    Args:
        claim: Name of the claim.
        pilot_pairs: Pairs of the pilot; below 2 there is no plan.
        deviation: Standard deviation of the paired differences in the pilot.
        effect: Smallest effect of interest, in the metric's unit; 0 if the rule has none.
        pairs: Pairs for a power of 90 %, None if unknown or above 400.
        hours: CPU hours of these pairs, from the pilot's wall time with one thread per cell.
    """

    claim: str
    pilot_pairs: int
    deviation: float
    effect: float
    pairs: int | None
    hours: float | None

    def line(self) -> str:
        """Return the plan in one line."""
        if self.pilot_pairs < 2:
            return f"{self.claim}: no pilot; run two seeds first"
        if not self.effect:
            return f"{self.claim}: the rule has no smallest effect, so a true zero is never refuted"
        known = f"{self.claim}: sd {self.deviation:.3g}, smallest effect {self.effect:.3g}"
        if self.pairs is None:
            return f"{known}: more than {MOST_PAIRS} seeds for 90 % power"
        return f"{known}: {self.pairs} seeds for 90 % power, {self.hours:.2g} CPU hours"


def planned_claims(paper: Paper, scale: str, store: ResultStore) -> Iterator[PlannedClaim]:
    """Yield the plan of each claim of a paper at a scale.

    The pilot is every stored cell of the claim's arms, also of other sources: the latest of each
    seed. With the planned number of pairs, the two-sided paired t test, at a level divided by the
    number of claims of the family, shows a true effect of the smallest size with a power of 90 %,
    and shows with the same power that a true zero is below it. Seeds of the pilot must not be used
    again for the verdict.
    """
    paper = paper.at(scale)
    seen: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    seconds: dict[tuple[str, str], list[float]] = {}
    for stored in store.seen(paper.name, scale):
        place = (stored["identity"]["experiment"], stored["identity"]["arm"])
        metrics = {k: math.nan if v is None else v for k, v in stored["metrics"].items()}
        seen.setdefault(place, {})[stored["identity"]["seed"]] = metrics
        seconds.setdefault(place, []).append(stored["seconds"])
    for claim in paper.claims:
        places = [(claim.experiment, arm) for arm in claim.rule.arms]
        values = {arm: seen.get((claim.experiment, arm), {}) for arm in claim.rule.arms}
        per_pair = sum(fmean(seconds.get(place, [0.0])) for place in places)
        family = sum(other.is_ours == claim.is_ours for other in paper.claims)
        yield _planned(claim, values, per_pair, family)


def _planned(
    claim: Claim, values: Values, seconds_per_pair: float, family_size: int
) -> PlannedClaim:
    judged = replace(claim.rule.judge(values), family_size=family_size)
    # The contrast with the widest spread needs the most pairs.
    differences = [list(one.differences.values()) for one in judged.comparisons]
    deviation = max((stdev(one) for one in differences if len(one) > 1), default=math.nan)
    pairs = judged.pairs_needed
    hours = None if pairs is None else pairs * seconds_per_pair / 3600
    return PlannedClaim(claim.name, judged.n, deviation, judged.smallest_effect, pairs, hours)
