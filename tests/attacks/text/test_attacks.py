"""Attacks on a detector whose scores are known."""

from dataclasses import replace

import pytest

from lightning_plugins.attacks.text import (
    PWWS,
    DeepWordBug,
    FreshNoise,
    Pruthi,
    TextAttackVictim,
    TextBugger,
    attack_texts,
)

# Log-odds 2.0 + 1.5 - 1: both markers must be replaced.
AI = "moreover we delve into a large river and a winter garden of stones"
HUMAN = "a large river and a winter garden"
ODD = ["", " ", "🌍🌍", "Καλημέρα κόσμε", "你好，世界", "a", "'", "\x00\ud7ff", "moreover " * 300]
ATTACKS = {
    "deep_word_bug": lambda folder, **budget: DeepWordBug(**budget),
    "pruthi": lambda folder, **budget: Pruthi(max_typos=3, **budget),
    "pwws": lambda folder, **budget: PWWS(wordnet=folder, **budget),
    "text_bugger": lambda folder, **budget: TextBugger(**budget),
}


@pytest.fixture(params=ATTACKS)
def build(request, wordnet):
    return lambda **budget: ATTACKS[request.param](wordnet, **budget)


def counted(detector):
    """Return the detector, and a list of the number of texts in each call."""
    calls = []

    def victim(texts):
        calls.append(len(texts))
        return detector(texts)

    return victim, calls


def test_it_finds_both_markers_and_changes_nothing_else(build, detector):
    counting, calls = counted(detector)
    asked = []

    def victim(texts):
        asked.extend(texts)
        return counting(texts)

    (result,) = attack_texts(build(), victim, [AI], [1])
    assert result.status == "succeeded"
    assert result.score == pytest.approx(detector([result.adversarial])[0])
    assert result.score <= 0.5
    assert result.changed_words <= 2
    assert result.queries == sum(calls)
    assert len(asked) == len(set(asked))
    assert result.text == AI
    assert result.label == 1
    changed = [w for w in AI.split() if w not in result.adversarial.split()]
    assert set(changed) <= {"moreover", "delve"}


def test_stop_words_are_not_changed(build):
    def counts_stop_words(texts):
        return [min(0.3 * text.lower().split().count("the"), 1.0) for text in texts]

    text = "The moreover of the delve and the tapestry"
    (result,) = attack_texts(build(), counts_stop_words, [text], [1])
    assert result.status == "failed"
    left = result.adversarial.lower().split()
    assert [left.count(word) for word in ("the", "of", "and")] == [3, 1, 1]


def test_misclassified_texts_are_skipped_and_texts_that_cannot_be_changed_fail(build, detector):
    wrong, human = attack_texts(build(), detector, [HUMAN, HUMAN], [1, 0])
    assert (wrong.status, wrong.queries, wrong.adversarial) == ("skipped", 1, HUMAN)
    assert human.status == "failed"  # no attack inserts a marker word
    assert human.score <= 0.5


@pytest.mark.parametrize("max_queries", [1, 2, 5, 14, 20])
def test_queries_stay_within_the_budget(build, detector, max_queries):
    victim, calls = counted(detector)
    for result in attack_texts(
        build(max_queries=max_queries), victim, [AI, AI + " tapestry"], [1, 1]
    ):
        assert result.queries <= max_queries
    assert sum(calls) <= 2 * max_queries


@pytest.mark.parametrize(("share", "allowed"), [(0.0, 0), (0.01, 1), (0.2, 2)])
def test_changed_words_stay_within_the_budget(build, detector, share, allowed):
    (result,) = attack_texts(build(max_word_share=share), detector, [AI + " tapestry"], [1])
    assert result.changed_words <= allowed
    assert (result.adversarial == result.text) == (result.changed_words == 0)


def test_one_seed_gives_one_result_for_any_other_texts(build, detector):
    texts = [AI, HUMAN, AI + " tapestry", "moreover"]
    labels = [1, 0, 1, 1]
    together = attack_texts(build(), detector, texts, labels, at_once=4)
    assert together == attack_texts(build(), detector, texts, labels, at_once=1)
    alone = [
        attack_texts(build(), detector, [t], [y])[0] for t, y in zip(texts, labels, strict=True)
    ]
    assert together == alone


def test_any_string_is_accepted_and_keeps_its_label(build, detector):
    texts = ODD * 2
    labels = [0] * len(ODD) + [1] * len(ODD)
    results = attack_texts(build(max_queries=40), detector, texts, labels)
    assert [r.text for r in results] == texts
    assert [r.label for r in results] == labels
    assert all(isinstance(r.adversarial, str) for r in results)


def test_the_threshold_determines_success(detector):
    score = detector([AI])[0]
    (result,) = attack_texts(DeepWordBug(), detector, [AI], [1], threshold=score)
    assert result.status == "skipped"  # the detector predicts AI above the threshold
    (result,) = attack_texts(DeepWordBug(), detector, [AI], [1], threshold=0.7)
    assert result.status == "succeeded"
    assert result.changed_words == 1


def test_concurrent_searches_share_their_calls(detector):
    texts = [AI] * 16
    victim, calls = counted(detector)
    attack_texts(DeepWordBug(), victim, texts, [1] * 16, at_once=16)
    alone, calls_alone = counted(detector)
    attack_texts(DeepWordBug(), alone, texts, [1] * 16, at_once=1)
    assert sum(calls) == sum(calls_alone)
    assert len(calls_alone) == 16 * len(calls)


def test_deep_word_bug_stays_within_its_edit_distance(detector):
    (result,) = attack_texts(DeepWordBug(max_edit_distance=0), detector, [AI], [1])
    assert result.status == "failed"
    assert result.adversarial == AI


def test_synonyms_are_ranked_by_their_effect(detector, wordnet):
    # delve is worth less than moreover; both have a synonym that the detector does not know.
    (result,) = attack_texts(PWWS(wordnet=wordnet, max_word_share=0.01), detector, [AI], [1])
    assert result.adversarial == AI.replace("moreover", "furthermore")


def test_typing_errors_are_a_twentieth_of_the_words(detector):
    text = AI + " cloud" * 46
    results = attack_texts(Pruthi(max_queries=3000), detector, [text, AI], [1, 1])
    assert [r.changed_words for r in results] == [2, 1]


def test_text_attack_gets_rows_of_two_probabilities(detector):
    rows = TextAttackVictim(detector)([AI, HUMAN])
    assert [sum(row) for row in rows] == pytest.approx([1, 1])
    assert [row[1] for row in rows] == detector([AI, HUMAN])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: DeepWordBug(max_queries=0), "max_queries=0"),
        (lambda: DeepWordBug(max_word_share=1.5), "max_word_share=1.5"),
        (lambda: DeepWordBug(max_edit_distance=-1), "max_edit_distance=-1"),
        (lambda: Pruthi(max_typos=0), "max_typos=0"),
        (lambda: attack_texts(DeepWordBug(), list, ["a"], []), "labels has 0 entries"),
        (lambda: attack_texts(DeepWordBug(), list, ["a"], [2]), r"labels has \[2\]"),
        (lambda: attack_texts(DeepWordBug(), list, ["a"], [1], at_once=0), "at_once=0"),
        (lambda: attack_texts(DeepWordBug(), lambda t: [], ["a"], [1]), "victim returned 0 scores"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_the_cache_saves_queries_and_a_victim_with_new_noise_has_none(wordnet, detector):
    attack = PWWS(wordnet=wordnet)
    (plain,), (cached,) = (
        attack_texts(attack, detector, [AI], [1], cache=cache) for cache in (False, True)
    )
    assert cached.queries < plain.queries
    assert replace(cached, queries=plain.queries) == plain
    noisy = FreshNoise(lambda texts, seed: detector(texts))
    assert attack_texts(attack, noisy, [AI], [1]) == [plain]
    (limited,) = attack_texts(PWWS(wordnet=wordnet, max_queries=7), detector, [AI], [1])
    assert limited.queries == 7


def test_a_search_continues_to_its_goal(detector):
    text = f"{AI} tapestry"  # log-odds 3.5; without the first two markers the score is 0.5
    at_threshold, beyond, never = (
        attack_texts(DeepWordBug(), detector, [text], [1], goal=goal)[0] for goal in (None, 0.7, 1)
    )
    assert at_threshold.status == beyond.status == "succeeded"
    assert at_threshold.score == pytest.approx(0.5)
    assert beyond.score <= 0.3
    assert never.status == "failed"
    with pytest.raises(ValueError, match="goal=0: expected a probability"):
        attack_texts(DeepWordBug(), detector, [AI], [1], goal=0)
