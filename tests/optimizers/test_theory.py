"""Predictions of both papers' theory for solvable models."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn

from lightning_plugins.optimizers import AdamWPower, BlockwiseAdamW, sign_power_


def moments(mean, spread, p):
    """E[phi] and E[phi²] of phi = sign(g)|g|^p for g uniform on (mean - spread, mean + spread)."""
    low, high = mean - spread, mean + spread
    first = (abs(high) ** (p + 1) - abs(low) ** (p + 1)) / (p + 1)
    second = (np.sign(high) * abs(high) ** (2 * p + 1) - np.sign(low) * abs(low) ** (2 * p + 1)) / (
        2 * p + 1
    )
    return first / (2 * spread), second / (2 * spread)


def drift(mean, spread, p):
    """Adam's long-run step, in units of the learning rate: E[phi] / sqrt(E[phi²])."""
    first, second = moments(mean, spread, p)
    return first / np.sqrt(second)


def best_exponent(mean, spread):
    found = minimize_scalar(lambda p: -drift(mean, spread, p), bounds=(0.05, 6), method="bounded")
    return found.x


@pytest.mark.parametrize("p", [0.5, 1.0, 1.2, 2.0])
@pytest.mark.parametrize(("mean", "spread"), [(1.0, 0.5), (0.2, 1.0)])
def test_the_closed_form_equals_the_average_of_the_transform(mean, spread, p):
    generator = torch.Generator().manual_seed(0)
    gradient = mean + spread * (2 * torch.rand(10**6, generator=generator).double() - 1)
    sign_power_([gradient], p)
    sampled = float(gradient.mean()), float(gradient.square().mean())
    assert sampled == pytest.approx(moments(mean, spread, p), rel=5e-3)


def test_the_best_exponent_is_above_one_for_noise_and_below_one_for_signal():
    assert best_exponent(mean=0.05, spread=1.0) > 1.2
    assert best_exponent(mean=1.0, spread=0.5) < 1.0


@pytest.mark.parametrize(("mean", "spread"), [(0.05, 1.0), (1.0, 0.5)])
def test_the_drift_of_adam_equals_the_closed_form(mean, spread):
    generator = torch.Generator().manual_seed(1)
    distances = {}
    for p in (0.7, 1.4):
        weight = nn.Parameter(torch.zeros(4000, dtype=torch.float64))
        optimizer = AdamWPower([weight], lr=1.0, p=p, betas=(0.9, 0.999), eps=0.0, weight_decay=0.0)
        for step in range(1500):
            noise = 2 * torch.rand(4000, generator=generator).double() - 1
            weight.grad = mean + spread * noise
            if step == 1000:
                start = weight.detach().clone()
            optimizer.step()
        distances[p] = float((start - weight.detach()).mean()) / 500
    for p, distance in distances.items():
        assert distance == pytest.approx(drift(mean, spread, p), rel=0.05)
    assert (distances[1.4] > distances[0.7]) == (best_exponent(mean, spread) > 1)


def test_the_flat_block_is_faster_by_its_multiplier():
    """A quadratic with two curvatures, near the stability limit of the sharp one."""
    sharp, flat, factor = 100.0, 0.01, 10.0

    def steps_until_small(multiplier):
        model = nn.ModuleDict({"embed_tokens": nn.Embedding(1, 1), "norm": nn.LayerNorm(1)})
        embedding, norm = model["embed_tokens"].weight, model["norm"].weight
        nn.init.ones_(embedding)
        # Moments that forget at once and a huge epsilon make Adam gradient descent, step lr / eps.
        optimizer = BlockwiseAdamW(
            model.named_parameters(),
            lr=1.9 / sharp * 1e8,
            eps=1e8,
            betas=(0.0, 0.0),
            weight_decay=0.0,
            multipliers={"embedding": multiplier, "norm": 1.0},
        )
        for step in range(1, 200_000):
            optimizer.zero_grad()
            loss = flat / 2 * embedding.square().sum() + sharp / 2 * norm.square().sum()
            loss.backward()
            optimizer.step()
            if abs(float(embedding)) < 0.5:
                return step, abs(float(norm))
        raise AssertionError("did not converge")

    slow, _ = steps_until_small(1.0)
    fast, sharp_end = steps_until_small(factor)
    assert slow / fast == pytest.approx(factor, rel=0.02)
    assert sharp_end < 1e-6
