"""HC3 and RAID by the ``datasets`` package."""

from collections.abc import Iterable, Mapping
from typing import Any

from lightning_plugins.datamodules.ai_text.files import sample_of
from lightning_plugins.datamodules.ai_text.sample import Sample

HUB = {
    "hc3": ("Hello-SimpleAI/HC3", "all"),
    "raid": ("liamdugan/raid", "raid"),
}


def hub_samples(name: str) -> list[Sample]:
    """``hc3`` (arXiv 2301.07597, CC BY-SA 4.0) or ``raid`` (arXiv 2405.07940, MIT) from the hub.

    Raises:
        ImportError: without ``datasets``.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f'path={name!r} needs datasets: pip install "lightning-plugins[text]"'
        ) from error
    rows = datasets.load_dataset(*HUB[name], split="train")
    return hc3_samples(rows) if name == "hc3" else raid_samples(rows)


def hc3_samples(rows: Iterable[Mapping[str, Any]]) -> list[Sample]:
    """Answers to questions; a question is a source, its kind the domain."""
    samples = []
    for row in rows:
        question = f"hc3:{row['question']}"
        for label, answers in enumerate((row["human_answers"], row["chatgpt_answers"])):
            generator = "chatgpt" if label else "human"
            samples += [
                Sample(answer, label, question, domain=row["source"], generator=generator)
                for answer in answers
                if answer.strip()
            ]
    return samples


def raid_samples(rows: Iterable[Mapping[str, Any]]) -> list[Sample]:
    """Generations that RAID did not attack; what a person wrote is the source."""
    return [sample for row in rows if (sample := sample_of(row)) is not None]
