"""The six-parameter transformer, its closed-form losses and its gradient flow."""

import builtins
import math

import numpy as np
import pytest
import torch

from lightning_plugins.nn.induction import (
    MixtureDynamics,
    MixtureTransformer,
    bilinear,
    four_gram,
    in_context_n_gram,
)


def by_the_formula(network, x):
    """Evaluate one sequence with explicit sums; tokens count from 1."""
    p1, w1, p2, v1, k, v2 = (
        getattr(network, name).item() for name in ("p1", "w1", "p2", "v1", "k", "v2")
    )
    length = len(x)
    x = dict(enumerate(x.tolist(), start=1))

    def average(weights):
        total = sum(weight for weight, _ in weights)
        return sum(weight * value for weight, value in weights) / total

    y = {
        s: w1 * average([(math.exp(-p1 * (j - 1)), x[s - j]) for j in range(1, s)])
        for s in range(2, length)
    }
    four = average([(math.exp(-p2 * (length - 1 - s)), y[s]) for s in y])
    induction = average([(math.exp(k**2 * x[length] * y[s]), x[s]) for s in y])
    return v1 * four, v2 * induction


@pytest.mark.parametrize("length", [4, 9])
def test_the_network_matches_the_formula(length):
    network = MixtureTransformer().double()
    with torch.no_grad():
        for place, parameter in enumerate(network.parameters(), start=1):
            parameter.fill_(0.2 * place)
    tokens = torch.randn(3, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.tensor([by_the_formula(network, x) for x in tokens], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(network(tokens), dim=1), expected)


def test_an_ideal_first_layer_returns_exactly_the_previous_token():
    network = MixtureTransformer()
    network.idealize_first_layer()
    with torch.no_grad():
        network.p2.fill_(60.0)
        network.v1.fill_(1.0)
    tokens = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(tokens)[0], tokens[:, -3])


def test_gradients_are_finite_at_the_limit_and_at_the_start():
    for prepare in (lambda network: None, MixtureTransformer.idealize_first_layer):
        network = MixtureTransformer()
        prepare(network)
        sum(part.square().sum() for part in network(torch.randn(4, 6))).backward()
        assert all(torch.isfinite(p.grad) for p in network.parameters())


def test_errors_name_invalid_arguments():
    with pytest.raises(ValueError, match="sigma_init=0"):
        MixtureTransformer(0)
    with pytest.raises(ValueError, match="length=3"):
        MixtureTransformer()(torch.zeros(1, 3))


STATES = [(0.3, 0.2, 0.05, 0.1), (1.0, 0.4, 0.2, 0.3), (2.0, 0.5, 0.35, 0.45)]


def monte_carlo(dynamics, p2, v1, k, v2, sequences=24_000):
    """Estimate the network's two losses on new sequences in float64, with standard errors."""
    network = MixtureTransformer().double()
    network.idealize_first_layer()
    with torch.no_grad():
        for name, value in {"p2": p2, "v1": v1, "k": k, "v2": v2}.items():
            getattr(network, name).fill_(value)
    generator = torch.Generator().manual_seed(1)
    weight = dynamics.w_star**2 * torch.eye(1, dtype=torch.float64)
    squares = []
    with torch.no_grad():
        for _ in range(sequences // 2000):
            tokens = torch.randn(2000, dynamics.length, generator=generator, dtype=torch.float64)
            found = network(tokens)
            c1, c2 = dynamics.weights
            induction = in_context_n_gram(tokens[..., None], bilinear(weight))[:, 0]
            targets = (c1 * four_gram(tokens), c2 * induction)
            pairs = zip(found, targets, strict=True)
            squares.append(torch.stack([0.5 * (one - other) ** 2 for one, other in pairs]))
    return torch.cat(squares, dim=1).mean(dim=1).tolist()


@pytest.mark.parametrize("state", STATES)
def test_closed_forms_match_the_losses_of_the_network_within_5_percent(state):
    dynamics = MixtureDynamics(length=200, alpha=1.0, w_star=0.49)
    p2, v1, k, v2 = state
    four_gram_loss, induction_loss = monte_carlo(dynamics, *state)
    assert four_gram_loss == pytest.approx(dynamics.four_gram_loss(p2, v1), rel=0.05)
    assert induction_loss == pytest.approx(dynamics.induction_loss(k, v2), rel=0.05)


@pytest.mark.parametrize("state", [*STATES, (1e-4, 1e-4, 1e-4, 1e-4), (30.0, 0.5, 0.48, 0.5)])
def test_the_flow_is_the_negative_gradient_of_the_losses(state):
    dynamics = MixtureDynamics(length=12, alpha=0.7, w_star=0.6)

    def loss(values):
        p2, v1, k, v2 = values
        return float(dynamics.four_gram_loss(p2, v1) + dynamics.induction_loss(k, v2))

    for place, slope in enumerate(dynamics.flow(*state)):
        step = 1e-5 * max(state[place], 0.01)
        up, down = list(state), list(state)
        up[place] += step
        down[place] -= step
        expected = -(loss(up) - loss(down)) / (2 * step)
        assert slope == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_the_flow_converges_to_the_learned_state_a_minimum():
    dynamics = MixtureDynamics(length=40, alpha=1.0, w_star=0.49)
    flow = dynamics.solve([0, 4000], sigma_init=0.01)
    assert flow.k[-1] == pytest.approx(0.49, abs=1e-4)
    assert flow.v2[-1] == pytest.approx(0.5, abs=1e-4)
    assert dynamics.induction_loss(0.49, 0.5) == pytest.approx(0, abs=1e-15)
    # Late, the positional head follows p2 = ½ ln(2 c1² t) with the loss 1/(4t).
    assert flow.p2[-1] == pytest.approx(0.5 * math.log(0.5 * 4000), rel=0.01)
    assert flow.four_gram_loss[-1] == pytest.approx(1 / 16_000, rel=0.03)


def half_time(length, sigma, w_star=0.49):
    """The time until k is w*/2, divided by N (1+α)² ln(w*/2σ) / 2w*²."""
    dynamics = MixtureDynamics(length, 1.0, w_star)
    times = np.linspace(0, 2 * dynamics.plateau_estimate(sigma), 4001)
    flow = dynamics.solve(times, sigma)
    return float(np.interp(w_star / 2, flow.k, times)) / dynamics.plateau_estimate(sigma)


def test_the_plateau_is_linear_in_length_and_in_log_sigma():
    ratios = [half_time(length, 1e-4) for length in (40, 400, 4000)]
    assert max(ratios) / min(ratios) < 1.02
    far, farther = half_time(400, 1e-2), half_time(400, 1e-8)
    assert abs(farther - 1) < 0.02 < abs(far - 1)


def test_the_plateau_follows_log_of_w_over_two_sigma_and_not_log_of_one_over_sigma():
    """Both laws of w* have the factor w*⁻²; they differ by ln(w*/2), which vanishes slowly."""
    change = half_time(40, 1e-2, 0.25) / half_time(40, 1e-2) - 1
    assert abs(change) < 0.06
    # The same times against log(1/σ)/w*², the law without w* in the logarithm.
    other = (1 + change) * math.log(0.25 / 0.02) / math.log(0.49 / 0.02) - 1
    assert -0.22 < other < -0.15
    assert abs(half_time(40, 1e-6, 0.25) / half_time(40, 1e-6) - 1) < 0.005


@pytest.mark.parametrize("w_star", [0.841, 1.0, 0.0, -0.1, math.nan])
def test_w_star_outside_the_closed_form_is_refused_with_the_bound(w_star):
    with pytest.raises(ValueError, match=r"w_star.*2\*\*-0\.25 = 0\.8409"):
        MixtureDynamics(40, 1.0, w_star)


def test_errors_name_half_precision_times_and_other_invalid_arguments():
    dynamics = MixtureDynamics(40, 1.0, 0.49)
    with pytest.raises(ValueError, match=r"float16.*float64"):
        dynamics.solve(np.arange(3, dtype=np.float16), 0.01)
    with pytest.raises(ValueError, match=r"bfloat16.*float64"):
        dynamics.solve(torch.arange(3, dtype=torch.bfloat16), 0.01)
    with pytest.raises(ValueError, match="nondecreasing"):
        dynamics.solve([0, 2, 1], 0.01)
    with pytest.raises(ValueError, match=r"sigma_init=0\.5"):
        dynamics.solve([0, 1], 0.5)
    with pytest.raises(ValueError, match="length=3"):
        MixtureDynamics(3, 1.0, 0.49)
    with pytest.raises(ValueError, match="alpha=0"):
        MixtureDynamics(40, 0, 0.49)


def test_a_missing_scipy_raises_an_error_with_the_install_command(monkeypatch):
    original = builtins.__import__

    def without_scipy(name, *args, **kwargs):
        if name.startswith("scipy"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(ImportError, match=r'pip install "scipy>=1\.13"'):
        MixtureDynamics(40, 1.0, 0.49).solve([0, 1], 0.01)
