"""The results of running a paper's experiments, and the verdicts that follow from them."""

from dataclasses import dataclass, replace

from lightning_plugins.claims.claim import Claim, Paper
from lightning_plugins.claims.judgement import Judgement, at_look, holm_adjusted
from lightning_plugins.claims.result_store import CellRecord


@dataclass(frozen=True)
class Failure:
    """A cell that raised an exception, with the error in one line."""

    experiment: str
    arm: str
    seed: int
    error: str


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its judgement.

    ``rule_changed`` is True if results in the same folder were computed under another version of
    the claim's rule, or before the claim was written. ``seconds`` is the wall time of the cells
    that the verdict depends on.
    """

    claim: Claim
    judgement: Judgement
    rule_changed: bool
    seconds: float


@dataclass(frozen=True)
class Results:
    """The cells of one paper at one scale.

    ``reused`` counts the records that were finished before this run. ``rules_seen`` lists
    (experiment, arm, claim -> hash of its rule) of the cells that were stored before the run,
    including those of other sources and versions. A rule changes no cell, so cells that were
    computed under another rule are reused, and :class:`ClaimResult` states that the rule changed.
    ``looks`` are the planned numbers of seeds at which the run may be stopped.
    """

    paper: Paper
    scale: str
    records: tuple[CellRecord, ...]
    failures: tuple[Failure, ...]
    reused: int
    seconds: float
    rules_seen: tuple[tuple[str, str, dict[str, str]], ...] = ()
    looks: tuple[int, ...] = ()

    def of_arm(self, experiment: str, arm: str) -> list[CellRecord]:
        """Return the finished cells of an arm, sorted by seed."""
        found = [
            record
            for record in self.records
            if (record.identity.experiment, record.identity.arm) == (experiment, arm)
        ]
        return sorted(found, key=lambda record: record.identity.seed)

    def values(self, experiment: str) -> dict[str, dict[int, dict[str, float]]]:
        """Return arm -> seed -> metrics; the metrics of a failed seed are empty."""
        values: dict[str, dict[int, dict[str, float]]] = {}
        for arm in self.paper.experiment(experiment).arms:
            values[arm] = {one.identity.seed: one.metrics for one in self.of_arm(experiment, arm)}
        for failure in self.failures:
            if failure.experiment == experiment:
                values[failure.arm].setdefault(failure.seed, {})
        return values

    def judge(self) -> list[ClaimResult]:
        """Judge every claim by its rule; Holm's method adjusts the paper's claims, and ours."""
        of_claim: dict[str, Judgement] = {}
        for is_ours in (False, True):
            family = [claim for claim in self.paper.claims if claim.is_ours == is_ours]
            judged = [
                at_look(claim.rule.judge(self.values(claim.experiment)), self.looks)
                for claim in family
            ]
            names = (claim.name for claim in family)
            of_claim |= zip(names, holm_adjusted(judged), strict=True)
        return [self._result(claim, of_claim[claim.name]) for claim in self.paper.claims]

    def _result(self, claim: Claim, judgement: Judgement) -> ClaimResult:
        records = [
            record for arm in claim.rule.arms for record in self.of_arm(claim.experiment, arm)
        ]
        return ClaimResult(
            claim=claim,
            judgement=replace(judgement, regime=claim.regime).decided(),
            rule_changed=self._rule_changed(claim)
            or any(record.rules.get(claim.name) != claim.rule_sha256 for record in records),
            seconds=sum(record.seconds for record in records),
        )

    def _rule_changed(self, claim: Claim) -> bool:
        hashes: dict[str, set[str | None]] = {arm: set() for arm in claim.rule.arms}
        for experiment, arm, rules in self.rules_seen:
            if experiment == claim.experiment and arm in hashes:
                hashes[arm].add(rules.get(claim.name))
        other = any(found - {None, claim.rule_sha256} for found in hashes.values())
        # Without a cell of one of its arms the claim could not have been judged before.
        return other or all(None in found for found in hashes.values())
