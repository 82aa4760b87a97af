"""Queries a second of an attack on a text detector: searches side by side, and one by one.

The same attack, seeds and texts, so that both ask the same questions and find the same texts (that
is checked first); what differs is how many of the questions share a forward pass. The detector is
two layers of MiniLM, untrained: what a query costs does not depend on the weights. ``one query a
call`` asks text by text, as a wrapper around a model's own ``predict`` would.

usage: python benchmarks/attacks.py [--texts 32] [--rounds 3] [--threads 1]
"""

import argparse
import platform
import time
from collections.abc import Callable

import torch
import transformers

from lightning_plugins.attacks.text import AttackResult, DeepWordBug, attack_texts
from lightning_plugins.litmodels import AITextDetector

WORDS = "river stone cloud apple window garden winter letter candle morning harbour teacher"


def texts_of(count: int) -> list[str]:
    """Different texts of 40 words."""
    words = WORDS.split()
    return [
        " ".join(words[(i * 7 + j * (i + 1)) % len(words)] for j in range(40)) for i in range(count)
    ]


def detector() -> AITextDetector:
    torch.manual_seed(0)
    module = AITextDetector("minilm", "plain", config={"num_hidden_layers": 2}, max_length=64)
    module.configure_model()
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    module, texts = detector(), texts_of(options.texts)

    def attacked(at_once: int, victim: Callable[[list[str]], list[float]]) -> list[AttackResult]:
        # A threshold below every score: nothing succeeds, so that the searches ask to their end.
        return attack_texts(
            DeepWordBug(max_word_share=0.25),
            victim,
            texts,
            [1] * len(texts),
            threshold=-1.0,
            at_once=at_once,
        )

    ways: dict[str, Callable[[], list[AttackResult]]] = {
        "64 searches side by side": lambda: attacked(64, module.score),
        "one search after the other": lambda: attacked(1, module.score),
        "one query a call": lambda: attacked(
            1, lambda asked: [module.score([text])[0] for text in asked]
        ),
    }
    print(
        f"{platform.machine()}, torch {torch.__version__}, transformers {transformers.__version__},"
    )
    print(f"{options.texts} texts, {options.threads} thread(s), best of {options.rounds} rounds")
    found = {name: way() for name, way in ways.items()}
    kept = [[(one.adversarial, one.queries) for one in results] for results in found.values()]
    agree = sum(a == b == c for a, b, c in zip(*kept, strict=True))
    print(f"the same text found in the same queries: {agree} of {options.texts}")
    rates: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, way in ways.items():  # in turns, so that a busy machine is busy for all
            started = time.process_time()
            queries = sum(result.queries for result in way())
            rate = queries / (time.process_time() - started)
            rates[name] = max(rates.get(name, 0.0), rate)
    slowest = rates["one query a call"]
    for name, rate in rates.items():
        print(f"{name:<28} {rate:8.0f} queries/CPU-s  {rate / slowest:5.1f}x")


if __name__ == "__main__":
    main()
