"""The papers' claims as experiments whose rules are written before the run."""

from lightning_plugins.claims.claim import Cell, Claim, Column, Experiment, Paper, Scale, claims_on
from lightning_plugins.claims.judgement import Judgement, Verdict
from lightning_plugins.claims.papers import PAPERS, load_paper
from lightning_plugins.claims.rules import Equivalence, Recovers, Superiority

__all__ = [
    "PAPERS",
    "Cell",
    "Claim",
    "Column",
    "Equivalence",
    "Experiment",
    "Judgement",
    "Paper",
    "Recovers",
    "Scale",
    "Superiority",
    "Verdict",
    "claims_on",
    "load_paper",
]
