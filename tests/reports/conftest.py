from dataclasses import replace
from types import SimpleNamespace

import pytest

from lightning_plugins.reports.report_data import (
    ClaimEvidence,
    ContrastEvidence,
    PaperEvidence,
    Report,
    Table,
)


def claim(**changes):
    plain = ClaimEvidence(
        name="late SAM is flatter",
        statement="It ends flatter.",
        paper_figure="flatter",
        source="Fig. 1",
        rule="late SAM has lower lambda_max than SGD",
        rule_sha256="ab" * 32,
        rule_changed=False,
        verdict="supported",
        ours="0.92 [0.80, 1.03] (95 %)",
        p="0.001",
        n=3,
        dropped=0,
        detectable="0.16",
        regime="digits",
        cost="12 s",
        note="three seeds",
        metric="λ_max",
        arms={"SGD": {0: 1.6, 1: 1.7, 2: 1.5}, "late SAM": {0: 0.7, 1: 0.8, 2: 0.7}},
        contrasts=(ContrastEvidence("SGD - late SAM", {0: 0.9, 1: 0.9, 2: 0.8}, 0.87, (0.7, 1.0)),),
    )
    return replace(plain, **changes)


def report(*claims, failures=(), rows=({"arm": "SGD", "seed": 0, "lambda_max": 1.6},)):
    paper = PaperEvidence(
        name="late-sam",
        title="A paper",
        citation="Somebody, 2025",
        scale="smoke",
        tables=(
            Table(("arm", "λ_max"), (("SGD", "1.6 ± 0.1"), ("late SAM", "0.7 ± 0.1")), "switch"),
        ),
        claims=claims or (claim(),),
        failures=failures,
        rows=rows,
    )
    return Report("Claims", "lightning-plugins reproduce", "2026-11-23", {"torch": "2"}, (paper,))


@pytest.fixture
def evidence():
    return SimpleNamespace(claim=claim, report=report)
