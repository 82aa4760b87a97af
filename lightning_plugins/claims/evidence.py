"""Results turned into the plain data that a report or a terminal shows."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from lightning_plugins.claims.claim import Column, Experiment
from lightning_plugins.claims.results import ClaimResult, Results
from lightning_plugins.claims.statistics import paired_interval
from lightning_plugins.claims.wording import (
    duration_text,
    estimate_text,
    number_text,
    p_text,
)
from lightning_plugins.reports.evidence import (
    ArmInterval,
    ClaimEvidence,
    ContrastEvidence,
    OverviewEvidence,
    PaperEvidence,
    Report,
    Table,
)


def report_of(
    results: Sequence[Results], command: str, title: str = "Claims, re-measured"
) -> Report:
    """The report of some papers' results; ``command`` is the line that made them."""
    cells = [record.identity for one in results for record in one.records]
    environment: dict[str, str] = dict(cells[0].versions) if cells else {}
    sources = sorted({cell.source_sha256 for cell in cells})
    environment["hash of our sources"] = ", ".join(sources) or "-"
    return Report(
        title=title,
        command=command,
        generated=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment,
        papers=tuple(paper_evidence(one) for one in results),
    )


def paper_evidence(results: Results) -> PaperEvidence:
    """One paper's table, claims, failures and raw rows."""
    paper = results.paper
    claims = tuple(_claim_evidence(results, one) for one in results.judge())
    return PaperEvidence(
        name=paper.name,
        title=paper.title,
        citation=paper.citation,
        scale=results.scale,
        tables=arms_tables(results),
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
    follows = tuple(
        f"{claim.statement} {claim.verdict.capitalize()}: {claim.ours}."
        for claim in claims
        if claim.name in overview.conclusions
    )
    label = results.paper.column(overview.metric).label
    return OverviewEvidence(overview.title, label, overview.caption, tuple(arms), follows)


def arms_tables(results: Results) -> tuple[Table, ...]:
    """One table an experiment: arms by columns, mean ± standard deviation over seeds.

    Columns that the experiment does not measure are left out.
    """
    return tuple(_arms_table(results, experiment) for experiment in results.paper.experiments)


def _arms_table(results: Results, experiment: Experiment) -> Table:
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
        rows.append((arm, *shown, str(len(records)), duration_text(seconds)))
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
    rule = claim.rule
    values = results.values(claim.experiment)
    return ClaimEvidence(
        name=claim.name,
        statement=claim.statement,
        paper_figure=claim.paper_figure,
        source=claim.source,
        rule=rule.describe(),
        rule_sha256=claim.rule_sha256,
        rule_changed=result.rule_changed,
        verdict=judgement.verdict.value,
        ours=estimate_text(judgement),
        p=p_text(judgement.p),
        n=judgement.n,
        dropped=judgement.dropped,
        detectable=number_text(judgement.minimal_detectable_effect),
        regime=f"{judgement.regime} (scale {results.scale}, {judgement.n} pairs)",
        cost=duration_text(result.seconds),
        note=judgement.note,
        metric=results.paper.column(rule.metric).label,
        confidence=judgement.confidence,
        arms={
            arm: {
                seed: metrics[rule.metric]
                for seed, metrics in values[arm].items()
                if rule.metric in metrics
            }
            for arm in rule.arms
        },
        contrasts=tuple(
            ContrastEvidence(one.label, one.differences, one.estimate, one.interval, one.margin)
            for one in judgement.comparisons
        ),
    )


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
