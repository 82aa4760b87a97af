"""The papers' claims as experiments whose rules are written before the run."""

from typing import TYPE_CHECKING

from lightning_plugins._lazy import lazy_exports

if TYPE_CHECKING:
    from .cell import Cell as Cell
    from .claim import Claim as Claim
    from .claim import Column as Column
    from .claim import Experiment as Experiment
    from .claim import Paper as Paper
    from .claim import Scale as Scale
    from .claim_tables import read_paper as read_paper
    from .judgement import Judgement as Judgement
    from .judgement import Verdict as Verdict
    from .papers import PAPERS as PAPERS
    from .papers import load_paper as load_paper
    from .rules import Equivalence as Equivalence
    from .rules import PooledSuperiority as PooledSuperiority
    from .rules import Recovers as Recovers
    from .rules import Superiority as Superiority
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "PAPERS": "papers",
            "Cell": "cell",
            "Claim": "claim",
            "Column": "claim",
            "Equivalence": "rules",
            "Experiment": "claim",
            "Judgement": "judgement",
            "Paper": "claim",
            "PooledSuperiority": "rules",
            "Recovers": "rules",
            "Scale": "claim",
            "Superiority": "rules",
            "Verdict": "judgement",
            "load_paper": "papers",
            "read_paper": "claim_tables",
        },
    )
