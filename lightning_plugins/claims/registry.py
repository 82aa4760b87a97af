"""The papers that can be reproduced, by name; a module is imported when its paper is asked for."""

import importlib

from lightning_plugins.claims.claim import Paper
from lightning_plugins.claims.near_names import suggestion

PAPERS = {
    "late-sam": "lightning_plugins.claims.late_sam",
    "blockwise-lr": "lightning_plugins.claims.blockwise_lr",
    "decentralized": "lightning_plugins.claims.decentralized",
    "grad-power": "lightning_plugins.claims.grad_power",
    "induction-heads": "lightning_plugins.claims.induction_heads",
    "mixture-of-experts": "lightning_plugins.claims.mixture_of_experts",
    "change-captioning": "lightning_plugins.claims.change_captioning",
    "ai-text": "lightning_plugins.claims.ai_text",
    "influence-paths": "lightning_plugins.claims.influence_paths",
    "fiber-laser": "lightning_plugins.claims.fiber_laser",
}
"""Name -> module with a function ``paper() -> Paper``. A module imports torch inside functions."""


def load_paper(name: str) -> Paper:
    """The paper of that name.

    Raises:
        ValueError: naming the papers that exist and the nearest one.
    """
    if name not in PAPERS:
        raise ValueError(
            f"no paper named {name!r}; the papers are "
            f"{', '.join(sorted(PAPERS))}{suggestion(name, PAPERS)}"
        )
    paper = importlib.import_module(PAPERS[name]).paper()
    if not isinstance(paper, Paper):
        raise ValueError(f"paper() of {PAPERS[name]} must return a Paper, got {type(paper)}")
    return paper
