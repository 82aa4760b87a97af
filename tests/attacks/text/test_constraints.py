"""Constraints, and TextFooler, whose replacements meet them."""

import pytest
import torch

from lightning_plugins.attacks.text import (
    DeepWordBug,
    SamePartOfSpeech,
    SentenceSimilarity,
    TextFooler,
    attack_texts,
)
from lightning_plugins.attacks.text.words import Words

TEXT = "Moreover we delve into the tapestry of the river."
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "moreover", "furthermore", "delve", "dig"),
    *("tapestry", "arras", "river", "we", "into", "the", "of", "."),
]
ALIKE = {"furthermore": "moreover", "dig": "delve"}  # the encoder does not distinguish them


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """An encoder that returns a direction per word, the same for the pairs of ``ALIKE``."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    size = 32
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=size, intermediate_size=4, num_hidden_layers=1,
        num_attention_heads=1, max_position_embeddings=64,
    )  # fmt: skip
    network = transformers.BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        words = network.embeddings.word_embeddings.weight
        for place, word in enumerate(VOCABULARY):
            words[place, VOCABULARY.index(ALIKE.get(word, word))] = 1.0
        network.embeddings.LayerNorm.weight.fill_(1.0)
        layer = network.encoder.layer[0]
        layer.attention.output.LayerNorm.weight.fill_(1.0)
        layer.output.LayerNorm.weight.fill_(1.0)
    network.save_pretrained(folder)
    return str(folder)


def test_only_words_that_can_be_the_same_part_of_speech_are_allowed(wordnet):
    words = Words.of(TEXT)
    constraint = SamePartOfSpeech(wordnet)
    place = words.words.index("delve")
    assert constraint.allowed(words, words, place, ["dig", "arras", "xyz"]) == ["dig"]
    unknown = words.words.index("river")
    assert constraint.allowed(words, words, unknown, ["dig", "xyz"]) == ["xyz"]


def test_only_changes_with_a_similar_direction_are_allowed(encoder):
    words = Words.of(TEXT)
    place = words.words.index("delve")
    constraint = SentenceSimilarity(0.999, encoder)
    assert constraint.allowed(words, words, place, ["dig", "arras", "river"]) == ["dig"]
    assert constraint.allowed(words, words, place, []) == []
    # The direction is the mean over the window, so a change weighs more in a shorter window.
    loose = SentenceSimilarity(0.8, encoder)
    assert loose.allowed(words, words, place, ["arras"]) == ["arras"]
    narrow = SentenceSimilarity(0.8, encoder, window=1)
    assert narrow.allowed(words, words, place, ["dig", "arras"]) == ["dig"]


def test_text_fooler_uses_only_replacements_that_meet_both_constraints(detector, wordnet, encoder):
    attack = TextFooler(min_similarity=0.999, encoder=encoder, wordnet=wordnet)
    (result,) = attack_texts(attack, detector, [TEXT], [1])
    assert result.adversarial == "furthermore we dig into the tapestry of the river."
    assert result.status == "succeeded"
    # With a threshold that cannot be reached, every candidate is scored, "arras" among them.
    free = TextFooler(min_similarity=-1, encoder=encoder, wordnet=wordnet)
    strict, loose = (
        attack_texts(one, detector, [TEXT], [1], threshold=0.01)[0] for one in (attack, free)
    )
    assert strict.adversarial == result.adversarial
    assert "arras" in loose.adversarial
    assert loose.queries == strict.queries + 1


def test_a_constraint_of_the_user_holds_in_any_attack(detector):
    class NoChange:
        def allowed(self, original, current, place, candidates):
            return []

    (result,) = attack_texts(DeepWordBug(constraints=(NoChange(),)), detector, [TEXT], [1])
    assert result.adversarial == TEXT
    assert result.changed_words == 0


@pytest.mark.parametrize("wrong", [{"min_cosine": 2}, {"window": 0}, {"min_cosine": float("nan")}])
def test_a_wrong_argument_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SentenceSimilarity(**wrong)
