"""Folders of text files, in folders named by who wrote them, as Ghostbuster's."""

from collections.abc import Callable
from pathlib import Path

from lightning_plugins.datamodules.ai_text.labels import is_human_name
from lightning_plugins.datamodules.ai_text.text_sample import HUMAN, Sample
from lightning_plugins.datamodules.tables.encodings import decoded_prose

NO_TEXTS = frozenset(("prompts", "prompt", "logprobs", "headlines", "titles", "metadata"))
"""Folders beside those of texts, which contain other things."""


def folder_samples(root: Path, report: Callable[[str], None]) -> list[Sample]:
    """Return the texts below ``DOMAIN/human/`` and below the folders beside ``human``.

    Files of one relative path, such as ``human/7.txt`` and ``gpt/7.txt``, are one group. Folders
    named ``logprobs`` or ``prompts`` are ignored.
    """
    samples: list[Sample] = []
    folders = [root, *(path for path in sorted(root.rglob("*")) if path.is_dir())]
    for domain in folders:
        children = sorted(path for path in domain.iterdir() if path.is_dir())
        if not any(is_human_name(child.name) for child in children):
            continue
        name = domain.name if domain != root else ""
        counts = []
        for child in children:
            if child.name.lower() in NO_TEXTS:
                continue
            label = int(not is_human_name(child.name))
            texts = [
                Sample(
                    text=text,
                    label=label,
                    source=f"{name}:{file.relative_to(child).as_posix()}",
                    domain=name,
                    generator=child.name if label else HUMAN,
                )
                for file in sorted(child.rglob("*.txt"))
                if not NO_TEXTS & set(file.relative_to(child).parts[:-1])
                and (text := decoded_prose(file.read_bytes(), file)).strip()
            ]
            counts.append(f"{child.name} ({'AI' if label else 'human'}): {len(texts):,}")
            samples += texts
        report(f"{domain}: texts by folder: {', '.join(counts)}")
    return samples
