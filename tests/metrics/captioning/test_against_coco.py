"""BLEU, ROUGE-L and CIDEr-D against manual computation, the COCO evaluation and sacrebleu."""

import math

import pytest
from caption_corpora import PUBLISHED, made_corpus, published_corpus

from lightning_plugins.metrics.captioning import bleu, cider_d, rouge_l


def test_bleu_of_a_corpus_equals_a_manual_computation():
    preds = ["a house appears", "the the the"]
    references = [["a house is built", "a new house appears"], ["the road"]]
    first = (3 + 1) / (3 + 3)  # clipped: "the" counts once
    second = (2 + 0) / (2 + 2)
    scores = bleu(preds, references, max_n=2)
    # The captions have 6 words. The references closest in length have 4 and 2, so 6: no penalty.
    assert scores[0] == pytest.approx(first, abs=1e-8)
    assert scores[1] == pytest.approx(math.sqrt(first * second), abs=1e-8)


def test_bleu_uses_the_shorter_of_two_equally_close_references():
    # The references have 2 and 4 words; only 4 would give a brevity penalty.
    assert bleu(["a b c"], [["a b c d", "x y"]], 1) == pytest.approx([1.0])


def test_rouge_l_equals_a_manual_computation():
    # The longest common subsequence is "a house"; the sentences have 3 and 4 words.
    precision, recall = 2 / 3, 2 / 4
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l(["a big house"], [["a house was built"]]) == pytest.approx(expected)
    assert rouge_l(["nothing"], [["a house"]]) == 0


def test_cider_d_is_ten_for_perfect_captions_and_zero_for_a_single_segment():
    preds = ["a b c d e", "f g h i j"]
    assert cider_d(preds, [[preds[0]], [preds[1]]]) == pytest.approx(10)
    assert cider_d(preds[:1], [[preds[0]]]) == 0


def test_cider_d_is_damped_by_the_number_of_bigrams():
    references = [["a b"], ["c d e f g h"]]
    # The first caption repeats its words: they are clipped, and it has three bigrams, not one.
    found = cider_d(["a b a b", "x"], references)
    # tf-idf: unigrams a b (2, 2) against (1, 1); bigrams ab (2), ba (1) against ab (1); idf equal.
    unigram = (1 + 1) / (math.sqrt(8) * math.sqrt(2))
    bigram = 1 / math.sqrt(5)
    damped = (unigram + bigram) / 4 * math.exp(-((3 - 1) ** 2) / 72)
    assert found == pytest.approx(10 * damped / 2)


CORPORA = {"made": made_corpus, "published": published_corpus}


@pytest.mark.parametrize("corpus", CORPORA)
def test_all_three_scores_equal_the_coco_evaluation_to_1e_9(corpus):
    bleu_of_coco = pytest.importorskip("pycocoevalcap.bleu.bleu")
    cider_of_coco = pytest.importorskip("pycocoevalcap.cider.cider")
    rouge_of_coco = pytest.importorskip("pycocoevalcap.rouge.rouge")
    if (found := CORPORA[corpus]()) is None:
        pytest.skip(f"set {PUBLISHED} to the published predictions")
    preds, references = found
    wanted = dict(enumerate(references))
    given = {number: [pred] for number, pred in enumerate(preds)}
    expected = bleu_of_coco.Bleu(4).compute_score(wanted, given, verbose=0)[0]
    assert bleu(preds, references) == pytest.approx(expected, abs=1e-9, rel=0)
    expected = rouge_of_coco.Rouge().compute_score(wanted, given)[0]
    assert rouge_l(preds, references) == pytest.approx(expected, abs=1e-9, rel=0)
    expected = cider_of_coco.Cider().compute_score(wanted, given)[0]
    assert cider_d(preds, references) == pytest.approx(expected, abs=1e-9, rel=0)


def test_bleu_4_equals_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    preds, references = made_corpus(200, seed=1)
    streams = [list(column) for column in zip(*references, strict=True)]
    expected = sacrebleu.corpus_bleu(
        preds, streams, tokenize="none", smooth_method="none", force=True
    )
    assert 100 * bleu(preds, references)[3] == pytest.approx(expected.score, abs=1e-6)
