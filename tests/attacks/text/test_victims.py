"""Detectors with noise: a defence that only misleads the search is detected."""

import math
import random

import numpy as np
import pytest
import torch

from lightning_plugins.attacks.text import DeepWordBug, FreshNoise, attack_texts, still_misled
from lightning_plugins.attacks.text.victims import checked_scores

TEXT = "moreover we delve into a large river and a winter garden of stones"


@pytest.fixture
def noisy(detector):
    """The detector's scores with Gaussian noise that is a function of the seed and the text."""

    def answers(texts, seed, size=0.5):
        pairs = zip(texts, detector(texts), strict=True)
        drawn = [p + random.Random(f"{seed}{t}").gauss(0, size) for t, p in pairs]
        return [0.5 + (score - 0.5) / 10 for score in drawn]  # within [0, 1]

    return answers


def test_each_call_draws_new_noise_and_one_seed_gives_one_sequence(noisy):
    victim, again = FreshNoise(noisy), FreshNoise(noisy)
    first, second = victim([TEXT]), victim([TEXT])
    assert first != second
    assert [again([TEXT]), again([TEXT])] == [first, second]


def test_the_expectation_is_the_mean_of_its_draws(noisy):
    expected = sum(noisy([TEXT], seed)[0] for seed in range(3, 8)) / 5
    assert FreshNoise(noisy, samples=5, seed=3)([TEXT]) == pytest.approx([expected])


def test_the_expectation_finds_texts_that_a_single_draw_misses(noisy):
    def misled(samples):
        texts = [f"{TEXT} {number}" for number in range(30)]
        victim = FreshNoise(noisy, samples)
        results = attack_texts(DeepWordBug(max_word_share=0.2), victim, texts, [1] * 30)
        kept = [r for r in results if r.status != "skipped"]
        shares = still_misled(kept, noisy, draws=30)
        return sum(shares) / len(shares)

    # Without both markers the mean score is 0.27, so most new draws are misled.
    assert misled(samples=60) > misled(samples=1) + 0.1


def test_successes_are_scored_again_with_new_noise(detector):
    (result,) = attack_texts(DeepWordBug(), detector, [TEXT], [1])
    assert still_misled([result], lambda texts, seed: detector(texts), draws=3) == [1.0]
    right_again = [0.9, 0.1, 0.9, 0.9]
    answers = iter(right_again)
    assert still_misled([result], lambda texts, seed: [next(answers)], draws=4) == [0.25]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: FreshNoise(None, samples=0), "samples=0"),
        (lambda: FreshNoise(None, seed=-1), "seed=-1"),
        (lambda: still_misled([], None, draws=0), "draws=0"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([math.nan], "victim's scores contain nan: expected probabilities"),
        ([3.7], "victim's scores contain 3.7.*sigmoid or softmax to logits"),
        ([-0.2], "victim's scores contain -0.2"),
        ([[2.0, 1.0]], "rows do not add up to 1.*softmax"),
        ([[0.2, 0.3, 0.5]], "victim's scores are not numbers"),
        (["ai"], "victim's scores are not numbers"),
        ([0.1, 0.2], "victim returned 2 scores for 1 texts"),
    ],
)
def test_answers_that_are_no_probabilities_are_refused(answer, message):
    with pytest.raises(ValueError, match=message):
        attack_texts(DeepWordBug(max_queries=5), lambda texts: answer, [TEXT], [1])


@pytest.mark.parametrize(
    "answer",
    [[0.75], [[0.25, 0.75]], [[0.75]], np.array([[0.25, 0.75]]), torch.tensor([0.75])],
)
def test_columns_arrays_and_tensors_are_converted(answer):
    assert checked_scores(answer, 1) == [0.75]
