"""Texts with marker words that reveal the label, and a detector of a few thousand parameters."""

import json
import random

import torch
from lightning.pytorch import LightningDataModule, Trainer

from lightning_plugins.datamodules import ResumableDataLoader
from lightning_plugins.litmodels.ai_text import AITextDetector

WORDS = ["river", "stone", "cloud", "apple", "window", "garden", "winter", "letter", "candle"]
MARKERS = ["moreover", "furthermore", "delve", "tapestry"]
TINY = {
    "encoder": "bert",
    "pretrained": False,
    "tokenizer": "words",
    "max_length": 32,
    "config": {
        "vocab_size": 200,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
    },
}
SMALL_SCRN = {"latent_dim": 16, "width": 16}


def marker_corpus(count=64, seed=0, length=12):
    """Return samples of alternating labels; AI texts contain three marker words."""
    randomness = random.Random(seed)
    samples = []
    for place in range(count):
        words = randomness.choices(WORDS, k=randomness.randint(length // 2, length))
        if place % 2:
            words += randomness.sample(MARKERS, 3)
            randomness.shuffle(words)
        samples.append({"text": " ".join(words), "label": place % 2})
    return samples


class MarkerData(LightningDataModule):
    """Four batches of 16 training texts, and different texts for validation and test."""

    def train_dataloader(self):
        return ResumableDataLoader(marker_corpus(seed=0), 16, shuffle=True)

    def val_dataloader(self):
        return ResumableDataLoader(marker_corpus(seed=1), 16)

    def test_dataloader(self):
        return ResumableDataLoader(marker_corpus(seed=2), 16)


def tiny_detector(method="plain", **arguments):
    """Return a detector from scratch, with its networks built."""
    if method == "scrn":
        arguments = {"method_options": SMALL_SCRN, **arguments}
    detector = AITextDetector(method=method, **{**TINY, **arguments})
    detector.configure_model()
    return detector


def write_marker_corpus(path, count):
    """Write a file for ``AITextDataModule``, in which each text has its own source."""
    lines = [
        json.dumps(sample | {"source": str(place)})
        for place, sample in enumerate(marker_corpus(count))
    ]
    path.write_text("\n".join(lines))


def batch_of(samples):
    """Return samples as a batch of the DataModule."""
    labels = torch.tensor([sample["label"] for sample in samples])
    return {"text": [sample["text"] for sample in samples], "label": labels}


def quiet_trainer(folder, **arguments):
    """Return a Trainer on the CPU without progress bar, summary, logger and checkpoints."""
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, "max_epochs": 1, **arguments},
    )
