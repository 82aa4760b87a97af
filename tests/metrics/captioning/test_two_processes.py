"""Two processes of torch.distributed compute the same scores as one, to the last digit."""

import json

import pytest
import torch
from caption_corpora import made_corpus
from caption_scores_on_two_ranks import score_share

from lightning_plugins.metrics import ChangeCaptionScores


@pytest.mark.slow
def test_two_processes_with_a_repeated_segment_compute_the_scores_of_one(tmp_path):
    torch.multiprocessing.spawn(score_share, args=(str(tmp_path),), nprocs=2)
    preds, references = made_corpus(21)
    alone = ChangeCaptionScores(constant="the house")
    ids, changed = [str(i) for i in range(21)], [i % 3 > 0 for i in range(21)]
    alone.update(preds, references, ids, changed)
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone.compute()
