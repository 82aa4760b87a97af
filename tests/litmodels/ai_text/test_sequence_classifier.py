"""Sequence classifiers of transformers as victims and as encoders of a detector."""

import json

import pytest
import torch

from lightning_plugins.attacks.text import DeepWordBug, attack_texts
from lightning_plugins.litmodels.ai_text import AITextDetector, SequenceClassifier

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random BERT with two classes, AI first, in bfloat16, and a tokenizer of letters."""
    path = tmp_path_factory.mktemp("classifier")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    vocabulary += [f"##{letter}" for letter in "abcdefgh"]
    (path / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizerFast(vocab=str(path / "vocab.txt")).save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        id2label={0: "ChatGPT", 1: "Human"},
        label2id={"ChatGPT": 0, "Human": 1},
    )
    network = transformers.BertForSequenceClassification(config)
    network.to(torch.bfloat16).save_pretrained(path)
    return path


def renamed(folder, tmp_path, names):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = dict(enumerate(names))
    config["label2id"] = {name: place for place, name in enumerate(names)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


def test_the_order_of_the_classes_is_read_from_the_configuration(folder, tmp_path):
    classifier = SequenceClassifier(str(folder))
    assert classifier.network.dtype == torch.float32
    text = "a b c d"
    inputs = classifier._tokenizer._tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        expected = classifier.network(**inputs).logits.softmax(-1)[0, 0].item()
    assert classifier.score([text]) == [pytest.approx(expected)]
    swapped = SequenceClassifier(renamed(folder, tmp_path, ["Real", "Fake"]))
    assert swapped.score([text]) == [pytest.approx(1 - expected)]


def test_classes_without_a_meaning_require_labels(folder, tmp_path):
    unnamed = renamed(folder, tmp_path, ["LABEL_0", "LABEL_1"])
    with pytest.raises(ValueError, match=r"LABEL_0, LABEL_1 do not state which is human.*labels"):
        SequenceClassifier(unnamed)
    labels = {"LABEL_0": "ai", "LABEL_1": "human"}
    text = ["a b c d"]
    stated = SequenceClassifier(unnamed, labels=labels).score(text)
    assert stated == SequenceClassifier(str(folder)).score(text)
    with pytest.raises(ValueError, match="for each of LABEL_0, LABEL_1"):
        SequenceClassifier(unnamed, labels={"LABEL_0": "ai"})


def test_scores_of_long_texts_cover_all_windows_and_do_not_depend_on_the_batch(folder):
    classifier = SequenceClassifier(str(folder), batch_size=2)
    texts = ["a b c", "a b c d e f g h " * 5, ""]
    alone = [classifier.score([text])[0] for text in texts]
    assert classifier.score(texts) == pytest.approx(alone, abs=1e-6)
    assert alone[1] != classifier.score(["a b c d e f g h " * 5 + "a a a a"])[0]
    assert classifier.score([]) == []


def test_a_classifier_is_a_victim_and_its_encoder_starts_a_detector(folder):
    classifier = SequenceClassifier(str(folder))
    (result,) = attack_texts(DeepWordBug(max_queries=9), classifier.score, ["abc def gab"], [1])
    assert result.queries > 0
    detector = AITextDetector(str(folder), "plain", max_length=16)
    detector.configure_model()
    found = dict(detector.network.encoder.named_parameters())
    for name, weight in classifier.network.base_model.named_parameters():
        if "pooler" not in name:
            torch.testing.assert_close(found[name], weight)
