"""Zero-shot detection with a language model of known probabilities."""

import pytest
import torch
from torch.nn.functional import one_hot

from lightning_plugins.litmodels.ai_text.zero_shot_detector import BASELINES, ZeroShotDetector
from lightning_plugins.nn.ai_text.zero_shot import CRITERIA


def repeats(tokens):
    """A byte model that predicts the previous token again, and prefers small token ids."""
    return 4.0 * one_hot(tokens, 256).float() - 0.01 * torch.arange(256)


def encode(text):
    return list(text.encode())


LIKELY, UNLIKELY = ["aaaa", "bbbbbbb", "aabbb"], ["abcd", "xyzzy", "hello there"]


# Without entropy, which is nearly constant for this model, and those that need more texts.
@pytest.mark.parametrize("baseline", sorted(set(BASELINES) - {"entropy", "npr", "dna_gpt"}))
def test_each_baseline_separates_likely_from_unlikely_texts_after_fit(baseline):
    reference = repeats if baseline == "binoculars" else None
    detector = ZeroShotDetector(repeats, encode, baseline, reference=reference)
    detector.fit(LIKELY + UNLIKELY, [1, 1, 1, 0, 0, 0])
    scores = detector.score(["aaaaaa", "abcdef"])
    assert scores[0] > 0.5 > scores[1]


def test_criteria_do_not_depend_on_the_batch_or_on_padding():
    texts = [*LIKELY, "", "a", *UNLIKELY, "ünïcödé 🌍" * 20]
    together = ZeroShotDetector(repeats, encode, batch_size=4).criteria(texts)
    alone = [ZeroShotDetector(repeats, encode).criteria([text]) for text in texts]
    torch.testing.assert_close(together, torch.cat(alone))
    assert not together[3:5].any()


def test_only_the_first_max_length_tokens_are_read():
    short = ZeroShotDetector(repeats, encode, max_length=4)
    torch.testing.assert_close(short.criteria(["aaaabcd"]), short.criteria(["aaaa"]))


def test_npr_and_dna_gpt_equal_their_definitions():
    """Source: arXiv 2306.05540, and 2305.17359 with a mean per token; first half of the words."""
    text, perturbed, continuations = "aa bb abc dd", ["aa bc abc dd", "xx bb"], [" aaaa", " bbb"]
    asked = []
    detector = ZeroShotDetector(
        repeats,
        encode,
        perturb=lambda given: perturbed,
        regenerate=lambda first: asked.append(first) or continuations,
    )
    row = detector.table([text])[0]
    plain = ZeroShotDetector(repeats, encode)
    log_ranks = [one["log_rank"] for one in plain.table([text, *perturbed])]
    assert row["npr"] == pytest.approx(sum(log_ranks[1:]) / 2 / log_ranks[0])

    def per_token(first, rest):
        ids = torch.tensor(encode(first + rest))
        known = repeats(ids[:-1]).log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        return float(known[len(first) - 1 :].mean())

    assert asked == ["aa bb"]
    again = [per_token("aa bb", rest) for rest in continuations]
    assert row["dna_gpt"] == pytest.approx(per_token("aa bb", " abc dd") - sum(again) / 2)
    # A single word has no second half, and a text without tokens has no criteria.
    short = detector.table(["word", ""])
    assert [one["dna_gpt"] for one in short] == [0, 0]
    assert short[1]["npr"] == 0
    assert detector.names[-2:] == ("npr", "dna_gpt")
    assert plain.names == CRITERIA


def test_the_likelihood_is_computed_on_the_next_token():
    found = ZeroShotDetector(repeats, encode).criteria(["aab"])[0, CRITERIA.index("log_likelihood")]
    again = repeats(torch.tensor([97])).log_softmax(-1)[0]
    assert found.item() == pytest.approx((again[97] + again[98]).item() / 2)


def test_one_forward_pass_of_each_model_computes_all_criteria():
    calls = {"scoring": 0, "reference": 0}

    def counted(name):
        def network(tokens):
            calls[name] += 1
            return repeats(tokens)

        return network

    detector = ZeroShotDetector(
        counted("scoring"), encode, batch_size=2, reference=counted("reference")
    )
    rows = detector.table([*LIKELY, *UNLIKELY])
    assert calls == {"scoring": 3, "reference": 3}
    assert set(rows[0]) == set(CRITERIA)


def test_fit_chooses_the_baseline_that_is_best_on_held_out_texts():
    likely = [letter * length for letter in "abcdef" for length in (5, 9)]
    unlikely = ["abcde", "badge hi", "fedcba", "cafe bed", "face", "decaf abe", "beaded"]
    detector = ZeroShotDetector(repeats, encode)
    detector.fit(likely + unlikely, [1] * len(likely) + [0] * len(unlikely))
    aurocs = detector.held_out_auroc
    assert set(aurocs) == set(BASELINES) - {"binoculars", "npr", "dna_gpt"}
    assert aurocs[detector.baseline] == max(aurocs.values()) == pytest.approx(1.0)
    assert detector.score(["aaaaaa", "abcdef"])[0] > 0.5
    with pytest.raises(ValueError, match="3 texts have the label 0, expected at least 5"):
        ZeroShotDetector(repeats, encode).fit(LIKELY + UNLIKELY, [1, 1, 1, 0, 0, 0])


def test_a_calibration_is_kept_beside_the_model(tmp_path):
    detector = ZeroShotDetector(repeats, encode, "gltr")
    detector.fit(LIKELY + UNLIKELY, [1] * len(LIKELY) + [0] * len(UNLIKELY))
    texts = ["aab", "abcdef" * 3, ""]
    found = detector.probabilities(texts)
    assert all(one.low <= one.probability <= one.high for one in found)
    assert [one.tokens for one in found] == [3, 18, 0]
    assert [one.probability for one in found] == detector.score(texts)
    detector.save(tmp_path / "calibration.json")
    other = ZeroShotDetector(repeats, encode)
    other.load(tmp_path / "calibration.json")
    assert other.baseline == "gltr"
    assert other.probabilities(texts) == found
    with pytest.raises(
        ValueError, match=r"calibration for .*512.*this detector has .*max_length.*9"
    ):
        ZeroShotDetector(repeats, encode, max_length=9).load(tmp_path / "calibration.json")
    content = (tmp_path / "calibration.json").read_text()
    for old, new in (('"mean": [', '"mean": [1, '), ('"gltr"', '"npr"'), ("{", "[{}]")):
        (tmp_path / "other.json").write_text(content.replace(old, new, 1))
        with pytest.raises(ValueError, match=r"other.json is (not|a calibration)"):
            other.load(tmp_path / "other.json")


def test_errors_name_the_argument_or_the_missing_call():
    with pytest.raises(ValueError, match=r"baseline='gltr2'.*gltr"):
        ZeroShotDetector(repeats, encode, "gltr2")
    with pytest.raises(ValueError, match="max_length=1"):
        ZeroShotDetector(repeats, encode, max_length=1)
    with pytest.raises(ValueError, match="batch_size=0"):
        ZeroShotDetector(repeats, encode, batch_size=0)
    with pytest.raises(ValueError, match="reference=None: the baseline binoculars"):
        ZeroShotDetector(repeats, encode, "binoculars")
    with pytest.raises(ValueError, match="perturb=None: the baseline npr requires it"):
        ZeroShotDetector(repeats, encode, "npr")
    with pytest.raises(ValueError, match="call fit"):
        ZeroShotDetector(repeats, encode).score(["a"])
