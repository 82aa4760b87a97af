"""A masked language model with known predictions, because its weights are set by hand."""

import json

import pytest
import torch

from lightning_plugins.attacks.text import MaskedLM, attack_texts
from lightning_plugins.attacks.text.masked_lm import MaskFiller, like
from lightning_plugins.attacks.text.words import Words

VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("besides", "also", "the", "##ly", "moreover", "river", "."),
]
# The first word is the most probable one at every position.
ORDER = ["the", "##ly", "moreover", "also", ".", "besides"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that always predicts ``ORDER``, because only the bias of its output is not zero."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("masked_lm")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1}
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY), num_attention_heads=1, max_position_embeddings=32, **sizes
    )
    network = transformers.BertForMaskedLM(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for rank, token in enumerate(ORDER):
            network.cls.predictions.bias[VOCABULARY.index(token)] = 10.0 - rank
    network.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == len(VOCABULARY)
    return str(folder)


def test_candidates_are_whole_words_by_decreasing_probability(model):
    filler = MaskFiller(model, max_length=16)
    words = Words.of("the river. moreover " * 20)
    found = filler.words(words, place=30, count=6, min_probability=0.0)
    assert found == ["the", "moreover", "also", ".", "besides"]
    assert like("moreover", found) == ["also", "besides"]
    assert like("Moreover", found) == ["Also", "Besides"]
    assert filler.words(words, 0, 6, min_probability=0.5) == ["the"]


def test_the_attack_replaces_the_marker_and_keeps_stop_words(model, detector):
    attack = MaskedLM(model=model, max_length=16)
    (result,) = attack_texts(attack, detector, ["The river: moreover the river"], [1])
    assert result.status == "succeeded"
    assert result.adversarial == "The river: also the river"
    (none,) = attack_texts(attack, detector, [""], [0])
    assert none.adversarial == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"candidates": 0}, "candidates=0"),
        ({"min_probability": 2}, "min_probability=2"),
        ({"max_length": 7}, "max_length=7"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaskedLM(**arguments)
