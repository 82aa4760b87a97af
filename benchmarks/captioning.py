"""CPU time of scoring 1,929 captions with 5 references each, the size of LEVIR-CC's test part.

The first figure is the CPU time of ChangeCaptionScores without Java, which scores the whole corpus,
its changed half, and a constant captioner. The second is the ratio of the CPU time of BLEU, ROUGE-L
and CIDEr-D to pycocoevalcap's, measured alternately after a check that the scores are equal. The
captions are generated from a seed: each is one of its references with two words replaced.

usage: python benchmarks/captioning.py [--pairs 8]
"""

import argparse
import random
import time
from collections.abc import Callable

from paired import paired_ratio

from lightning_plugins.metrics import ChangeCaptionScores
from lightning_plugins.metrics.captioning import bleu, cider_d, rouge_l

SEGMENTS, REFERENCES = 1929, 5
STARTS = ("the", "house", "road", "tree", "car", "field")
ENDS = ("", "s", "ing", "ed", "er", "ly", "ness", "y", "al", "ful")
WORDS = [start + end for start in STARTS for end in ENDS]
Corpus = tuple[list[str], list[list[str]]]


def made_corpus() -> Corpus:
    draw = random.Random(0)
    captions, references = [], []
    for _ in range(SEGMENTS):
        group = [draw.choices(WORDS, k=draw.randint(5, 12)) for _ in range(REFERENCES)]
        caption = list(draw.choice(group))
        for _ in range(2):
            caption[draw.randrange(len(caption))] = draw.choice(WORDS)
        captions.append(" ".join(caption))
        references.append([" ".join(words) for words in group])
    return captions, references


def everything(captions: list[str], references: list[list[str]]) -> None:
    scores = ChangeCaptionScores(constant="the scene is the same as before")
    numbers = range(SEGMENTS)
    changed = [number % 2 == 0 for number in numbers]
    scores.update(captions, references, [str(number) for number in numbers], changed)
    scores.compute()


def ours(captions: list[str], references: list[list[str]]) -> list[float]:
    return [
        *bleu(captions, references),
        rouge_l(captions, references),
        cider_d(captions, references),
    ]


def coco(captions: list[str], references: list[list[str]]) -> list[float]:
    from pycocoevalcap.bleu.bleu import Bleu  # type: ignore[import-untyped]
    from pycocoevalcap.cider.cider import Cider  # type: ignore[import-untyped]
    from pycocoevalcap.rouge.rouge import Rouge  # type: ignore[import-untyped]

    wanted = dict(enumerate(references))
    given = {number: [caption] for number, caption in enumerate(captions)}
    return [
        *Bleu(4).compute_score(wanted, given, verbose=0)[0],
        Rouge().compute_score(wanted, given)[0],
        Cider().compute_score(wanted, given)[0],
    ]


def seconds(function: Callable[..., object], corpus: Corpus) -> float:
    started = time.process_time()
    function(*corpus)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8)
    pairs = parser.parse_args().pairs
    corpus = made_corpus()
    print(f"{SEGMENTS} x {REFERENCES}, all scores: {seconds(everything, corpus):.1f} s of one core")
    try:
        differing = [abs(a - b) for a, b in zip(ours(*corpus), coco(*corpus), strict=True)]
    except ImportError:
        print("pycocoevalcap is not installed")
        return
    assert max(differing) < 1e-9
    ratio = paired_ratio(
        lambda: seconds(coco, corpus), lambda: seconds(ours, corpus), pairs=pairs, warmup=1
    )
    print(f"BLEU, ROUGE-L and CIDEr-D, ours / pycocoevalcap {ratio}")


if __name__ == "__main__":
    main()
