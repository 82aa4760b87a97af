"""METEOR without Java against manual computation, and per segment against the original program."""

import gzip
import itertools
import random

import pytest
from caption_corpora import PUBLISHED, made_corpus, published_corpus

from lightning_plugins.metrics.captioning.english_stemmer import stem
from lightning_plugins.metrics.captioning.meteor import MatchStages, align, meteor, tokenized
from lightning_plugins.metrics.captioning.meteor_java import (
    _scorer,
    java_meteor,
    java_meteor_available,
)
from lightning_plugins.metrics.captioning.meteor_tables import read_paraphrases, wordnet_synonyms


def test_a_perfect_caption_scores_one_and_an_unrelated_one_zero():
    assert meteor(["house appears"], [["house appears"]]) == (pytest.approx(1), [pytest.approx(1)])
    assert meteor(["river"], [["house appears"]]) == (0, [0])
    assert meteor([""], [["house appears"]])[0] == 0


def test_the_score_equals_a_manual_computation():
    # "the" is a function word. "the" and "house" match, in 2 chunks, since "built" separates them.
    precision = (0.75 + 0.25) / (0.75 * 2 + 0.25)
    recall = (0.75 + 0.25) / (0.75 * 1 + 0.25)
    mean = 1 / (0.15 / precision + 0.85 / recall)
    expected = mean * (1 - 0.6 * (2 / 2) ** 0.2)
    assert meteor(["the built house"], [["the house"]])[0] == pytest.approx(expected)


def test_a_match_of_stems_has_weight_0_6_and_requires_stems():
    precision = recall = 0.6
    expected = 1 / (0.15 / precision + 0.85 / recall)  # one chunk: no penalty
    assert meteor(["houses"], [["house"]])[0] == pytest.approx(expected)
    assert meteor(["houses"], [["house"]], stems=False)[0] == 0


def test_a_synonym_has_weight_0_8_and_a_stem_comes_first():
    stages = MatchStages(synonyms=lambda one, other: {one, other} <= {"house", "houses", "home"})
    for caption, weight in (("home", 0.8), ("houses", 0.6), ("house", 1.0)):
        assert meteor([caption], [["house"]], stages=stages)[0] == pytest.approx(
            0 + (1 if weight == 1 else weight)
        )


def test_phrases_of_different_lengths_match_with_weight_0_6_as_one_chunk():
    stages = MatchStages(paraphrases=frozenset({("has vanished", "gone")}))
    found = align(["a", "house", "has", "vanished"], ["a", "house", "gone"], stages)
    assert [(m.place, m.reference_place, m.length, m.reference_length) for m in found.matches] == [
        (0, 0, 1, 1),
        (1, 1, 1, 1),
        (2, 2, 2, 1),
    ]
    assert found.chunks == 1
    backwards = align(["a", "house", "gone"], ["a", "house", "has", "vanished"], stages)
    assert backwards.matches[-1].reference_length == 2


def test_an_equal_word_is_matched_before_a_phrase_that_contains_it():
    stages = MatchStages(paraphrases=frozenset({("old house", "house")}))
    found = align(["old", "house"], ["house", "old"], stages)
    assert sum(match.weight * match.length for match in found.matches) == 2


def test_a_table_of_paraphrases_is_read_for_the_phrases_of_the_sentences(tmp_path):
    text = "0.1\nhas vanished\ngone\n0.2\nother\nphrase\n"
    (tmp_path / "plain").write_text(text)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("plain", "packed.gz"):
        found = read_paraphrases(tmp_path / name, ["a house has vanished", "it is gone", "other"])
        assert found == {("has vanished", "gone")}
    (tmp_path / "plain").write_text("0.1\nhas vanished\n")
    with pytest.raises(ValueError, match="is not a table of paraphrases"):
        read_paraphrases(tmp_path / "plain", ["a"])


def test_each_segment_uses_its_best_reference_and_the_corpus_sums_statistics():
    preds, references = ["house", "house"], [["river", "house"], ["a house and a river there"]]
    corpus, segments = meteor(preds, references)
    assert segments[0] == pytest.approx(1)
    assert corpus != pytest.approx(sum(segments) / 2, abs=1e-3)


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("A well-built House", "a well built house"),
        ("well - built", "well - built"),
        ("the road's end", "the road 's end"),
        ("roads' end", "roads ' end"),
        ("one, two and 1,000", "one , two and 1,000"),
        ('(a) & "b"; c: d!', '( a ) & " b " ; c : d !'),
        ("don't c_d", "don 't c _ d"),
    ],
)
def test_sentences_are_split_as_in_the_original(sentence, words):
    assert tokenized(sentence) == words.split()


def test_an_alignment_has_the_most_matches_and_then_the_fewest_chunks():
    draw = random.Random(0)
    for _ in range(150):
        caption, reference = ([draw.choice("abc") for _ in range(4)] for _ in range(2))
        found = align(caption, reference)
        assert (-len(found.matches), found.chunks) == best_of_all_alignments(caption, reference)


def best_of_all_alignments(caption, reference):
    places = range(len(caption))
    best = (0, 0)
    for choice in itertools.product([None, *places], repeat=len(reference)):
        used = [other for other in choice if other is not None]
        if len(set(used)) < len(used):
            continue
        if any(o is not None and caption[o] != reference[p] for p, o in enumerate(choice)):
            continue
        chunks = sum(
            other is not None
            and (place == 0 or choice[place - 1] is None or choice[place - 1] + 1 != other)
            for place, other in enumerate(choice)
        )
        best = min(best, (-len(used), chunks))
    return best


@pytest.mark.parametrize(
    ("words", "shared"),
    [
        ("house houses", "hous"),
        ("appear appears appeared appearing", "appear"),
        ("building buildings build", "build"),
        ("replaced replaces replace", "replac"),
        ("generously generous", "generous"),
        ("hopping hopped hop", "hop"),
        ("skies sky", "sky"),
        ("nationally national", "nation"),
    ],
)
def test_stems_of_known_words(words, shared):
    assert {stem(word) for word in words.split()} == {shared}


def test_stems_equal_those_of_snowball():
    snowball = pytest.importorskip("snowballstemmer").stemmer("english")
    draw = random.Random(0)
    endings = ["s", "es", "ed", "ing", "ingly", "edly", "ly", "ness", "fulness", "ational", "ies"]
    letters = "abcdefghiklmnoprstuvwy"
    words = [
        "".join(draw.choice(letters) for _ in range(draw.randint(1, 7))) + draw.choice(endings)
        for _ in range(5000)
    ]
    differing = [word for word in words if stem(word) != snowball.stemWord(word)]
    assert len(differing) <= 25, differing  # newer versions of Snowball differ in some endings


@pytest.mark.slow
@pytest.mark.skipif(not java_meteor_available(), reason="Java or pycocoevalcap is not installed")
# Real captions, and generated ones with many more inflections, a few of which differ.
@pytest.mark.parametrize(
    ("corpus", "equal_stems"), [(published_corpus, 0.995), (made_corpus, 0.99)]
)
def test_exact_and_stem_stages_equal_the_original_segment_by_segment(corpus, equal_stems):
    if (found := corpus()) is None:
        pytest.skip(f"set {PUBLISHED} to the published predictions")
    preds, references = found
    total, segments = java_meteor(preds, references, ["exact"])
    ours, of_ours = meteor(preds, references, stems=False)
    assert of_ours == pytest.approx(segments, abs=1e-9)
    assert ours == pytest.approx(total, abs=1e-9)
    total, segments = java_meteor(preds, references, ["exact", "stem"])
    ours, of_ours = meteor(preds, references)
    equal = sum(abs(a - b) < 1e-9 for a, b in zip(of_ours, segments, strict=True))
    assert equal >= equal_stems * len(preds)
    assert ours == pytest.approx(total, abs=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not java_meteor_available(), reason="Java or pycocoevalcap is not installed")
def test_all_stages_are_within_0_1_points_of_the_original_on_published_captions():
    if (found := published_corpus()) is None:
        pytest.skip(f"set {PUBLISHED} to the published predictions")
    try:
        synonyms = wordnet_synonyms()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    preds, references = found
    table = _scorer().parent / "data" / "paraphrase-en.gz"
    paraphrases = read_paraphrases(table, [*preds, *itertools.chain(*references)])
    for stages, names in (
        (MatchStages(synonyms=synonyms), ["exact", "stem", "synonym"]),
        (MatchStages(synonyms=synonyms, paraphrases=paraphrases), []),
    ):
        total, _ = java_meteor(preds, references, names)
        assert meteor(preds, references, stages=stages)[0] == pytest.approx(total, abs=1e-3)
