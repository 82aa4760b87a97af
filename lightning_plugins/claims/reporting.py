"""Turns results into the plain data of a report; numbers get the digits that their interval has."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from lightning_plugins.claims.claim import Column, Experiment
from lightning_plugins.claims.judgement import Judgement
from lightning_plugins.claims.results import ClaimResult, Results
from lightning_plugins.claims.statistics import MOST_PAIRS, paired_interval
from lightning_plugins.reports.report_data import (
    ArmInterval,
    ClaimEvidence,
    OverviewEvidence,
    PaperEvidence,
    Report,
    Table,
)


def report_of(results: Sequence[Results], command: str) -> Report:
    """Build the report of several papers; ``command`` is the command line of the run."""
    cells = [record.identity for one in results for record in one.records]
    environment: dict[str, str] = dict(cells[0].versions) if cells else {}
    sources = sorted({cell.source_sha256 for cell in cells})
    environment["hash of our sources"] = ", ".join(sources) or "-"
    return Report(
        title=f"{results[0].paper.name}: claims, re-measured"
        if len(results) == 1
        else "Claims, re-measured",
        command=command,
        generated=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment,
        papers=tuple(paper_evidence(one) for one in results),
    )


def paper_evidence(results: Results) -> PaperEvidence:
    """Build one paper's tables, claims, failures and raw rows."""
    paper = results.paper
    claims = tuple(_claim_evidence(results, one) for one in results.judge())
    return PaperEvidence(
        name=paper.name,
        title=paper.title,
        citation=paper.citation,
        scale=results.scale,
        tables=tuple(_arms_table(results, experiment) for experiment in paper.experiments),
        claims=claims,
        overview=_overview(results, claims),
        failures=tuple(
            f"{one.experiment}, {one.arm}, seed {one.seed}: {one.error}" for one in results.failures
        ),
        rows=tuple(_raw_rows(results)),
    )


def _overview(results: Results, claims: tuple[ClaimEvidence, ...]) -> OverviewEvidence | None:
    overview = results.paper.overview
    if overview is None:
        return None
    arms = []
    for arm, of_seeds in results.values(overview.experiment).items():
        values = [one[overview.metric] for one in of_seeds.values() if overview.metric in one]
        values = [value for value in values if math.isfinite(value)]
        if values:
            mean = paired_interval(values)
            arms.append(ArmInterval(arm, tuple(values), mean.estimate, mean.interval))
    conclusions = tuple(
        f"{claim.statement} {claim.verdict.capitalize()}: {claim.ours}."
        for claim in claims
        if claim.name in overview.conclusions
    )
    label = results.paper.column(overview.metric).label
    return OverviewEvidence(overview.title, label, overview.caption, tuple(arms), conclusions)


def _arms_table(results: Results, experiment: Experiment) -> Table:
    """Arms by measured columns, as mean ± standard deviation over seeds."""
    of_arms = {arm: results.of_arm(experiment.name, arm) for arm in experiment.arms}
    measured = {name for records in of_arms.values() for one in records for name in one.metrics}
    columns = [column for column in results.paper.columns if column.metric in measured]
    rows = []
    for arm, records in of_arms.items():
        seconds = sum(record.seconds for record in records)
        shown = [
            _mean_and_deviation(column, [r.metrics.get(column.metric, math.nan) for r in records])
            for column in columns
        ]
        rows.append((arm, *shown, str(len(records)), _duration_text(seconds)))
    labels = (column.label for column in columns)
    return Table(("arm", *labels, "n", "time"), tuple(rows), title=experiment.name)


def _mean_and_deviation(column: Column, values: list[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "-"
    mean = math.fsum(finite) / len(finite)
    text = column.show(mean)
    if len(finite) > 1:
        variance = math.fsum((value - mean) ** 2 for value in finite) / (len(finite) - 1)
        text = f"{text} ± {column.show(math.sqrt(variance))}"
    lost = len(values) - len(finite)
    return f"{text} ({lost} not finite)" if lost else text


def _claim_evidence(results: Results, result: ClaimResult) -> ClaimEvidence:
    claim, judgement = result.claim, result.judgement
    metric = claim.rule.metric
    values = results.values(claim.experiment)
    arms = {
        arm: {seed: metrics[metric] for seed, metrics in values[arm].items() if metric in metrics}
        for arm in claim.rule.arms
    }
    return ClaimEvidence(
        name=claim.name,
        statement=claim.statement,
        paper_figure=claim.paper_figure,
        source=claim.source,
        rule=claim.rule.describe(),
        rule_sha256=claim.rule_sha256,
        rule_changed=result.rule_changed,
        verdict=judgement.verdict.value,
        is_ours=claim.is_ours,
        smallest_effect=judgement.smallest_effect,
        needed=needed_text(judgement, result.seconds),
        ours=_estimate_text(judgement),
        p=_p_text(judgement.p),
        n=judgement.n,
        dropped=judgement.dropped,
        detectable=_number_text(judgement.minimal_detectable_effect),
        regime=f"{judgement.regime} (scale {results.scale}, {judgement.n} pairs)",
        cost=_duration_text(result.seconds),
        note=judgement.note,
        metric=results.paper.column(metric).label,
        confidence=judgement.confidence,
        arms=arms,
        contrasts=judgement.comparisons,
    )


def needed_text(judgement: Judgement, seconds: float) -> str:
    """Return the pairs that would decide a claim and their CPU hours; empty if they are unknown.

    Args:
        judgement: A judgement of ``n`` pairs.
        seconds: CPU time of these pairs.
    """
    if judgement.n < 2 or judgement.blocked or not judgement.smallest_effect > 0:
        return ""
    if math.isnan(judgement.deviation):
        return "the settings differ: more settings would decide, not more pairs"
    more = "more than " if judgement.pairs_needed is None else ""
    pairs = max(judgement.pairs_needed or MOST_PAIRS, judgement.n + 1)
    hours = pairs * seconds / judgement.n / 3600
    return f"{more}{pairs} pairs would decide ({more}{hours:.2g} CPU hours)"


def _raw_rows(results: Results) -> list[dict[str, Any]]:
    return [
        {
            "paper": results.paper.name,
            "scale": results.scale,
            "experiment": record.identity.experiment,
            "arm": record.identity.arm,
            "seed": record.identity.seed,
            **record.metrics,
            "seconds": record.seconds,
            "finished": record.finished,
            "config": record.identity.config,
            "series": record.series,
            "key": record.identity.key,
        }
        for record in results.records
    ]


def _estimate_text(judgement: Judgement) -> str:
    """The estimate with its interval; for rules with a ratio, the ratio comes first."""
    label = judgement.comparisons[0].label if judgement.comparisons else ""
    percent = f"{100 * judgement.confidence:.0f} %"
    plain = f"{label}: {_with_interval(judgement.estimate, judgement.interval)}"
    if judgement.ratio is None or judgement.ratio_interval is None:
        return f"{plain} ({percent})"
    return (
        f"{judgement.ratio_label} {_with_interval(judgement.ratio, judgement.ratio_interval)}; "
        f"{plain} ({percent})"
    )


def _with_interval(estimate: float, interval: tuple[float, float]) -> str:
    """``0.72 [0.61, 0.83]``: two significant digits of the interval's half width."""
    low, high = interval
    if math.isnan(estimate):
        return "no value"
    half = (high - low) / 2
    if not math.isfinite(half):
        return (
            f"{estimate:.3g} [unbounded]" if math.isinf(half) else f"{estimate:.3g} [no interval]"
        )
    decimals = _decimals_for(half or estimate)
    return f"{estimate:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def _decimals_for(size: float) -> int:
    """Decimals that show two significant digits of a number of this size; at most 8."""
    if size == 0 or not math.isfinite(size):
        return 2
    return min(8, max(0, 1 - math.floor(math.log10(abs(size)))))


def _p_text(p: float) -> str:
    if math.isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _number_text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def _duration_text(seconds: float) -> str:
    """``4.2 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
