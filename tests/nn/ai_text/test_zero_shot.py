"""The zero-shot criteria against their definitions, and the optimality of the calibration."""

import json
import math

import pytest
import torch

from lightning_plugins.nn.ai_text.length_calibration import LengthCalibration
from lightning_plugins.nn.ai_text.zero_shot import (
    CRITERIA,
    LogisticCalibration,
    auroc,
    token_criteria,
)


def criteria(probabilities, targets, mask=None):
    logits = torch.tensor(probabilities).log().unsqueeze(0)
    mask = [1] * len(targets) if mask is None else mask
    found = token_criteria(logits, torch.tensor([targets]), torch.tensor([mask]))
    return dict(zip(CRITERIA, found[0].tolist(), strict=True))


def test_the_criteria_of_two_tokens_equal_their_definitions():
    found = criteria([[0.5, 0.25, 0.25], [0.7, 0.2, 0.1]], [0, 2])
    assert found["log_likelihood"] == pytest.approx((math.log(0.5) + math.log(0.1)) / 2)
    assert found["rank"] == pytest.approx((1 + 3) / 2)
    assert found["log_rank"] == pytest.approx(math.log(3) / 2)
    entropies = [-sum(p * math.log(p) for p in row) for row in ([0.5, 0.25, 0.25], [0.7, 0.2, 0.1])]
    assert found["entropy"] == pytest.approx(sum(entropies) / 2)
    assert found["gltr_10"] == 1
    variances = [
        sum(p * (math.log(p) + h) ** 2 for p in row)
        for row, h in zip(([0.5, 0.25, 0.25], [0.7, 0.2, 0.1]), entropies, strict=True)
    ]
    above = math.log(0.5) + math.log(0.1) + sum(entropies)
    assert found["fast_detect_gpt"] == pytest.approx(above / math.sqrt(sum(variances)), rel=1e-5)


@pytest.mark.parametrize(
    ("rank", "bucket"),
    [
        (1, "10"),
        (10, "10"),
        (11, "100"),
        (100, "100"),
        (101, "1000"),
        (1000, "1000"),
        (1001, "rest"),
    ],
)
def test_ranks_fall_into_the_buckets_of_gltr(rank, bucket):
    probabilities = torch.arange(2000, 0, -1).double()
    found = criteria([(probabilities / probabilities.sum()).tolist()], [rank - 1])
    shares = {name: found[f"gltr_{name}"] for name in ("10", "100", "1000", "rest")}
    assert shares == {name: float(name == bucket) for name in shares}
    assert found["rank"] == rank


def test_all_criteria_equal_independent_formulas_on_random_logits_of_two_models():
    generator = torch.Generator().manual_seed(0)
    scoring, sampling = (3 * torch.randn(2, 7, 11, generator=generator) for _ in range(2))
    targets = torch.randint(11, (2, 7), generator=generator)
    for reference in (None, sampling):
        found = token_criteria(scoring, targets, torch.ones(2, 7), reference)
        for row in range(2):
            score = [0.0] * 6  # log p, log rank, E log p, Var log p, entropy
            for step in range(7):
                p = [math.exp(x) for x in scoring[row, step].double().tolist()]
                q = (
                    p
                    if reference is None
                    else [math.exp(x) for x in reference[row, step].double().tolist()]
                )
                log_p = [math.log(x / sum(p)) for x in p]
                q = [x / sum(q) for x in q]
                target = int(targets[row, step])
                mean = sum(a * b for a, b in zip(q, log_p, strict=True))
                score[0] += log_p[target]
                score[1] += math.log(1 + sum(x > log_p[target] for x in log_p))
                score[2] += mean
                score[3] += sum(a * (b - mean) ** 2 for a, b in zip(q, log_p, strict=True))
                score[4] -= sum(math.exp(x) * x for x in log_p)
            expected = {
                "log_likelihood": score[0] / 7,
                "log_rank": score[1] / 7,
                "entropy": score[4] / 7,
                "fast_detect_gpt": (score[0] - score[2]) / math.sqrt(score[3]),
                "lrr": -score[0] / score[1],
                "binoculars": score[0] / score[2],
            }
            values = dict(zip(CRITERIA, found[row].tolist(), strict=True))
            for name, value in expected.items():
                assert values[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name
    with pytest.raises(ValueError, match=r"reference of shape \(2, 7, 10\): expected \(2, 7, 11\)"):
        token_criteria(scoring, targets, torch.ones(2, 7), sampling[..., :10])


def test_auroc_counts_pairs_and_ties_as_half():
    scores, labels = torch.tensor([0.1, 0.4, 0.4, 0.9]), torch.tensor([0, 0, 1, 1])
    assert auroc(scores, labels) == pytest.approx(3.5 / 4)


def test_padding_is_excluded_and_a_text_without_tokens_has_zeros():
    alone = criteria([[0.5, 0.25, 0.25]], [1])
    padded = criteria([[0.5, 0.25, 0.25], [0.7, 0.2, 0.1]], [1, 2], mask=[1, 0])
    assert padded == pytest.approx(alone)
    assert set(criteria([[0.5, 0.5]], [1], mask=[0]).values()) == {0.0}


def test_a_token_of_probability_zero_gives_finite_criteria():
    found = criteria([[0.5, 0.5, 0.0]], [0])
    assert found["entropy"] == pytest.approx(math.log(2))
    assert all(math.isfinite(value) for value in found.values())


def test_the_curvature_is_standard_normal_for_tokens_sampled_from_the_model():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 50, 20, generator=generator)
    flat = logits.softmax(-1).flatten(0, 1)
    sampled = torch.multinomial(flat, 1, generator=generator).view(200, 50)
    found = token_criteria(logits, sampled, torch.ones(200, 50))[
        :, CRITERIA.index("fast_detect_gpt")
    ]
    assert abs(found.mean()) < 4 / 200**0.5  # four standard errors
    assert found.std() == pytest.approx(1, abs=0.15)


def test_the_calibration_fulfils_the_optimality_conditions():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (200,), generator=generator)
    features = torch.randn(200, 2, generator=generator) + labels.unsqueeze(1) * torch.tensor(
        [1.0, 0]
    )
    features[:, 1] = 3.0  # constant
    calibration = LogisticCalibration(features, labels)
    scores = calibration(features)
    # For the bias, the predicted sum equals the true sum; for the weight, the gradient equals w.
    assert scores.sum().item() == pytest.approx(labels.sum().item(), rel=1e-5)
    standard = (features[:, 0] - features[:, 0].mean()) / features[:, 0].std(correction=0)
    odds = scores.double().logit()
    weight = (odds[1] - odds[0]) / (standard[1] - standard[0])
    residual = (standard * (labels - scores)).sum()
    assert residual.item() == pytest.approx(weight.item(), rel=1e-3)


def test_separable_classes_give_finite_scores_and_one_class_raises_an_error():
    features = torch.tensor([[0.0], [1.0]])
    scores = LogisticCalibration(features, torch.tensor([0, 1]))(features)
    assert 0 < scores[0] < 0.5 < scores[1] < 1
    with pytest.raises(ValueError, match="one class"):
        LogisticCalibration(features, torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="expected finite values"):
        LogisticCalibration(features / 0, torch.tensor([0, 1]))


def test_probabilities_have_intervals_that_are_wider_for_short_texts():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(20, 400, (400,), generator=generator)
    labels = torch.arange(400) % 2
    noise = torch.randn(400, generator=generator) * 20 / lengths.sqrt()
    features = (labels + noise)[:, None]
    calibration = LengthCalibration(features, labels, lengths)
    assert len(calibration.ranges) == 3
    one = torch.ones(2, 1)
    (short, low, high), (long, *_) = calibration(one, torch.tensor([25, 390])).tolist()
    assert 0.5 < short < long
    assert low < short < high
    again = LengthCalibration.of_state(json.loads(json.dumps(calibration.state())))
    places = torch.tensor([25, 390])
    assert torch.equal(again(one, places), calibration(one, places))
    few = LengthCalibration(features[:60], labels[:60], lengths[:60])
    assert few.ranges == []  # fewer than 25 texts of a label in any part
    assert torch.equal(
        few(features[:9], lengths[:9])[:, 0],
        LogisticCalibration(features[:60], labels[:60])(features[:9]),
    )
    with pytest.raises(ValueError, match="a fit for each range"):
        LengthCalibration.of_state({"ranges": [5], "fits": []})
