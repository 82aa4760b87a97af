"""Loading of checkpoints with the parameter names that the authors of SCRN published."""

import pytest
import torch
from marker_corpus import SMALL_SCRN, TINY, tiny_detector
from safetensors.torch import save_file

from lightning_plugins.litmodels.ai_text import AITextDetector

PUBLISHED = {
    "encoder.": "bert.",
    "head.dense.": "classifier.dense.",
    "head.output.": "classifier.out_proj.",
    "reconstruction.squeeze.": "reconNN.encoder.squeezer.0.",
    "reconstruction.mean.": "reconNN.encoder.semantic_proj.",
    "reconstruction.log_variance.": "reconNN.encoder.perturbation_proj.",
    "reconstruction.expand.": "reconNN.decoder.recon_layers.0.",
    "reconstruction.restore.": "reconNN.decoder.recon_layers.2.",
}
ROBERTA = {
    "method": "scrn",
    **TINY,
    "encoder": "roberta",
    "config": {**TINY["config"], "max_position_embeddings": 40},
}


def published(detector):
    weights = {}
    for name, weight in detector.network.state_dict().items():
        ours = next(prefix for prefix in PUBLISHED if name.startswith(prefix))
        weights[PUBLISHED[ours] + name.removeprefix(ours)] = weight
    unused = {
        "bert.pooler.dense.weight": torch.zeros(16, 16),
        "bert.embeddings.position_ids": torch.arange(40),
    }
    return weights | unused


@pytest.fixture
def detector():
    return tiny_detector(**ROBERTA)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_detector_with_published_weights_returns_the_same_scores(detector, suffix, tmp_path):
    path = str(tmp_path / f"model{suffix}")
    save = torch.save if suffix == ".bin" else save_file
    save(published(detector), path)
    other = AITextDetector(**ROBERTA, method_options=SMALL_SCRN)
    other.load_released(path)
    texts = ["moreover a river", "stone"]
    assert other.score(texts) == detector.score(texts)


def test_the_error_names_an_unknown_or_a_missing_weight(detector, tmp_path):
    path = str(tmp_path / "model.bin")
    torch.save({**published(detector), "lm_head.bias": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"lm_head\.bias"):
        detector.load_released(path)
    weights = published(detector)
    del weights["classifier.out_proj.bias"]
    torch.save(weights, path)
    with pytest.raises(ValueError, match=r"head\.output\.bias"):
        detector.load_released(path)
