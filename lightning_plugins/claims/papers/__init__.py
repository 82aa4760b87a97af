"""The papers that can be reproduced, one module each; a module is imported on demand."""

import importlib

from lightning_plugins.claims.claim import Paper, suggestion

PAPERS = {
    "late-sam": "lightning_plugins.claims.papers.late_sam",
    "blockwise-lr": "lightning_plugins.claims.papers.blockwise_lr",
    "decentralized": "lightning_plugins.claims.papers.decentralized",
    "grad-power": "lightning_plugins.claims.papers.grad_power",
    "induction-heads": "lightning_plugins.claims.papers.induction_heads",
    "mixture-of-experts": "lightning_plugins.claims.papers.mixture_of_experts",
    "change-captioning": "lightning_plugins.claims.papers.change_captioning",
    "ai-text": "lightning_plugins.claims.papers.ai_text",
    "influence-paths": "lightning_plugins.claims.papers.influence_paths",
    "fiber-laser": "lightning_plugins.claims.papers.fiber_laser",
}
"""Name -> module with a function ``paper() -> Paper``. A module imports torch inside functions."""


def load_paper(name: str) -> Paper:
    """Return the paper with that name.

    Raises:
        ValueError: If there is none; lists the papers and suggests the most similar name.
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
