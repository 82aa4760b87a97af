"""Queries per second of an attack on a text detector, with concurrent and sequential searches.

Attack, seeds and texts are the same, so all variants send the same queries and find the same texts;
the benchmark verifies this first. The variants differ in the number of queries per forward pass.
``one query per call`` scores the texts one by one, as a wrapper around a model's ``predict`` does.
The detectors are untrained, because the cost of a query does not depend on the weights. ``small``
has two layers of 64 features; a call costs more than its arithmetic, like large networks on GPUs.
``minilm`` has two layers of 384 features, whose arithmetic dominates on a CPU.

usage: python benchmarks/attacks.py [--texts 32] [--rounds 3] [--threads 1]
       python benchmarks/attacks.py --checkpoint FILE --wordnet FOLDER [--texts 32]

The second form prints the success of each attack against a trained detector, with the queries and
the changed words per text. The texts are the first AI texts of the embedded test part that the
detector finds at its threshold for 5 % false positives. Each attack may change a quarter of the
words in 300 queries.
"""

import argparse
import platform
import time
from collections.abc import Callable

import torch
import transformers

from lightning_plugins.attacks.text import (
    PWWS,
    AttackResult,
    DeepWordBug,
    Pruthi,
    TextBugger,
    TextFooler,
    attack_texts,
)
from lightning_plugins.datamodules import AITextDataModule
from lightning_plugins.litmodels import AITextDetector
from lightning_plugins.recipes import load_recipe

WORDS = "river stone cloud apple window garden winter letter candle morning harbour teacher"


def texts_of(count: int) -> list[str]:
    """Different texts of 40 words."""
    words = WORDS.split()
    return [
        " ".join(words[(i * 7 + j * (i + 1)) % len(words)] for j in range(40)) for i in range(count)
    ]


def detectors() -> dict[str, AITextDetector]:
    torch.manual_seed(0)
    small = {"vocab_size": 5000, "hidden_size": 64, "intermediate_size": 256}
    small |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    found = {
        "small": AITextDetector(
            "bert", "plain", pretrained=False, config=small, tokenizer="words", max_length=64
        ),
        "minilm": AITextDetector("minilm", "plain", config={"num_hidden_layers": 2}, max_length=64),
    }
    for module in found.values():
        module.configure_model()
    return found


def attacked(
    texts: list[str], at_once: int, victim: Callable[[list[str]], list[float]]
) -> list[AttackResult]:
    # The threshold is below every score, so no attack succeeds and every search runs to its end.
    return attack_texts(
        DeepWordBug(max_word_share=0.25),
        victim,
        texts,
        [1] * len(texts),
        threshold=-1.0,
        at_once=at_once,
    )


def compare(name: str, module: AITextDetector, texts: list[str], rounds: int) -> None:
    def one_by_one(asked: list[str]) -> list[float]:
        return [module.score([text])[0] for text in asked]

    ways: dict[str, Callable[[], list[AttackResult]]] = {
        "64 concurrent searches": lambda: attacked(texts, 64, module.score),
        "sequential searches": lambda: attacked(texts, 1, module.score),
        "one query per call": lambda: attacked(texts, 1, one_by_one),
    }
    kept = [[(one.adversarial, one.queries) for one in way()] for way in ways.values()]
    agree = sum(a == b == c for a, b, c in zip(*kept, strict=True))
    print(f"\n{name}: the same text found in the same queries for {agree} of {len(texts)}")
    rates: dict[str, float] = {}
    for _ in range(rounds):
        for way, run in ways.items():  # alternately, so that a busy machine affects all variants
            started = time.process_time()
            queries = sum(result.queries for result in run())
            rate = queries / (time.process_time() - started)
            rates[way] = max(rates.get(way, 0.0), rate)
    for way, rate in rates.items():
        ratio = rate / rates["one query per call"]
        print(f"  {way:<28} {rate:8.0f} queries/CPU-s  {ratio:5.1f}x")


def success_table(checkpoint: str, wordnet: str, count: int) -> None:
    module = AITextDetector.load_from_checkpoint(checkpoint, weights_only=True).eval()
    data = AITextDataModule(**load_recipe("ai_text/tiny")["data"]["init_args"])
    data.prepare_data()
    data.setup()
    threshold = float(module.thresholds[1])
    ai = [sample.text for sample in data.samples("test") if sample.label]
    found = [text for text, score in zip(ai, module.score(ai), strict=True) if score > threshold]
    print(f"{len(found)} of {len(ai)} AI texts are found at the threshold {threshold:.3f}")
    texts = found[:count]
    budget = {"max_queries": 300, "max_word_share": 0.25}
    attacks = {
        "DeepWordBug": DeepWordBug(**budget),
        "Pruthi": Pruthi(**budget),
        "TextBugger": TextBugger(**budget),
        "PWWS": PWWS(wordnet=wordnet, **budget),
        "TextFooler": TextFooler(wordnet=wordnet, **budget),
    }
    print(f"\n{len(texts)} texts\n| attack | success % | queries a text | changed words % |")
    print("|---|---|---|---|")
    for name, attack in attacks.items():
        results = attack_texts(
            attack, module.score, texts, [1] * len(texts), threshold=threshold, at_once=64
        )
        success = sum(one.status == "succeeded" for one in results) / len(results)
        queries = sum(one.queries for one in results) / len(results)
        changed = sum(one.changed_words / max(one.words, 1) for one in results) / len(results)
        print(f"| {name} | {success:.0%} | {queries:.0f} | {changed:.0%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoint", help="a checkpoint of AITextDetector")
    parser.add_argument("--wordnet", help="a folder of WordNet's files")
    options = parser.parse_args()
    if options.checkpoint:
        torch.set_num_threads(options.threads)
        success_table(options.checkpoint, options.wordnet, options.texts)
        return
    torch.set_num_threads(options.threads)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{platform.machine()}, {versions}, {options.threads} thread(s)")
    for name, module in detectors().items():
        compare(name, module, texts_of(options.texts), options.rounds)


if __name__ == "__main__":
    main()
