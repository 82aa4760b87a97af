"""Captions to score: generated from a seed, or published predictions from a file."""

import json
import os
import random
from pathlib import Path

# The variable names a file with one line per pair, {"uid", "pred", "change_caption": [...]}, as
# published by the authors of CCExpert.
PUBLISHED = "LIGHTNING_PLUGINS_CCEXPERT_PREDICTIONS"

_WORDS = """
the the the of of in in a a on on and and to house houses building buildings villa road roads tree
trees car cars field scene corner corners built build builds appear appears appeared removed
removing replaces replaced quickly bare top bottom left right side sides middle end is are was has
been at with some many two one near next well-built u-shaped road's houses' grass, (new)
"""


def made_corpus(segments=1000, seed=0):
    """Return (captions, five references each) with function words, inflections and punctuation."""
    draw = random.Random(seed)
    words = _WORDS.split()

    def sentence(length):
        return " ".join(draw.sample(words, length))

    captions, references = [], []
    for _ in range(segments):
        group = [sentence(draw.randint(1, 16)) for _ in range(5)]
        kept = draw.choice(group).split()
        for _ in range(draw.randint(0, 4)):
            kept[draw.randrange(len(kept))] = draw.choice(words)
        if draw.random() < 0.3:
            draw.shuffle(kept)
        captions.append(" ".join(kept))
        references.append(group)
    return captions, references


def published_corpus():
    """Return (captions, references) of the published predictions, or None without the file."""
    if PUBLISHED not in os.environ:
        return None
    seen = {}
    for line in Path(os.environ[PUBLISHED]).read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        seen.setdefault(record["uid"], record)

    def plain(text):
        return " ".join(text.lower().replace(".", "").split())

    captions = [plain(record["pred"]) for record in seen.values()]
    return captions, [[plain(s) for s in r["change_caption"]] for r in seen.values()]
