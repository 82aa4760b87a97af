"""The function that the test of ChangeCaptionScores on two ranks runs in spawned processes."""

import json
from pathlib import Path

import torch
from caption_corpora import made_corpus

from lightning_plugins.metrics import ChangeCaptionScores

# A distributed sampler fills the second rank's last batch with the first segment.
SHARES = (list(range(0, 21, 2)), [*range(1, 21, 2), 0])


def score_share(rank: int, folder: str) -> None:
    """Score the share of ``rank`` together with the other rank, and write the scores."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    preds, references = made_corpus(21)
    metric = ChangeCaptionScores(constant="the house")
    for index in SHARES[rank]:
        metric.update([preds[index]], [references[index]], [str(index)], [index % 3 > 0])
    Path(folder, f"{rank}.json").write_text(json.dumps(metric.compute()))
    torch.distributed.destroy_process_group()
