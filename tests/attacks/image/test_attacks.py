"""FGSM and PGD compared with closed forms, and the set of allowed results."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_plugins.attacks.image import ThreatModel, fgsm, pgd, random_search

EVERYWHERE = (-math.inf, math.inf)
MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.2, 0.1]


def images(count=4, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, 5, 5, generator=generator)


def weight(seed=1, channels=3):
    return torch.randn(channels, 5, 5, generator=torch.Generator().manual_seed(seed))


def normalized(pixels):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std


def attacks(**arguments):
    return [
        lambda loss, inputs: fgsm(loss, inputs, 0.1, **arguments),
        lambda loss, inputs: pgd(loss, inputs, 0.1, steps=40, **arguments),
        lambda loss, inputs: pgd(loss, inputs, 0.1, random_start=False, **arguments),
    ]


@pytest.mark.parametrize("attack", [0, 1, 2])
def test_the_linf_attack_of_a_linear_loss_is_eps_times_the_sign_of_its_weights(attack):
    w, x = weight(), images()
    found = attacks(clamp=EVERYWHERE)[attack](lambda x: (x * w).sum(dim=(1, 2, 3)), x)
    torch.testing.assert_close(found, x + 0.1 * w.sign())


@pytest.mark.parametrize("attack", [0, 1, 2])
@pytest.mark.parametrize("size", [1.0, 1e-25])
def test_the_l2_attack_of_a_linear_loss_is_eps_along_its_weights(attack, size):
    w, x = weight() * size, images()
    found = attacks(norm="l2", clamp=EVERYWHERE)[attack](lambda x: (x * w).sum(dim=(1, 2, 3)), x)
    # From a random point of the ball it approaches the optimum without reaching it.
    tolerance = {"rtol": 0, "atol": 1e-6} if attack != 1 else {"rtol": 0, "atol": 1e-4}
    torch.testing.assert_close(found, x + 0.1 * weight() / weight().norm(), **tolerance)


def test_pixels_at_the_bounds_of_the_range_stay_in_the_range():
    w, x = weight(), images().round()
    found = fgsm(lambda x: (x * w).sum(), x, 0.1)
    torch.testing.assert_close(found, (x + 0.1 * w.sign()).clamp(0, 1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_a_normalized_network_is_attacked_in_pixel_units(norm, attack):
    w, pixels = weight(), images()

    def of_pixels(x):
        return (normalized(x) * w).sin().sum(dim=(1, 2, 3))

    def of_normalized(x):
        return (x * w).sin().sum(dim=(1, 2, 3))

    if attack == "fgsm":
        expected = fgsm(of_pixels, pixels, 0.1, norm=norm)
        found = fgsm(of_normalized, normalized(pixels), 0.1, norm=norm, mean=MEAN, std=STD)
    else:
        start = {"norm": norm, "random_start": False, "steps": 5}
        expected = pgd(of_pixels, pixels, 0.1, **start)
        found = pgd(of_normalized, normalized(pixels), 0.1, mean=MEAN, std=STD, **start)
    torch.testing.assert_close(found, normalized(expected), rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    eps=st.floats(0, 1),
    step_size=st.floats(0.01, 3),
    norm=st.sampled_from(["linf", "l2"]),
    is_normalized=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    attack=st.sampled_from(["fgsm", "pgd", "random_search"]),
    seed=st.integers(0, 5),
)
def test_every_adversarial_image_is_in_the_ball_and_in_the_range(
    eps, step_size, norm, is_normalized, dtype, attack, seed
):
    arguments = {"norm": norm, **({"mean": MEAN, "std": STD} if is_normalized else {})}
    pixels = images(seed=seed).to(dtype)
    x = normalized(pixels) if is_normalized else pixels
    w = weight(seed).to(dtype)
    generator = torch.Generator().manual_seed(seed)

    def loss(x):
        return (x * w).sin().sum(dim=(1, 2, 3))

    if attack == "fgsm":
        found = fgsm(loss, x, eps, **arguments)
    elif attack == "pgd":
        options = {"steps": 3, "step_size": step_size, "restarts": 2, "generator": generator}
        found = pgd(loss, x, eps, **options, **arguments)
    else:
        found = random_search(loss, x, eps, queries=5, generator=generator, **arguments)
    assert found.dtype == dtype
    assert found.shape == x.shape
    assert not found.requires_grad
    threat = ThreatModel(eps, **arguments)
    assert (threat.distance(found, x) <= eps + 2e-6).all()
    threat.check(found)
    changed = found * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    restored = changed if is_normalized else found
    assert restored.min() >= -1e-6
    assert restored.max() <= 1 + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_radius_of_zero_changes_nothing(norm):
    x = images()
    found = pgd(lambda x: x.square().sum(), x, 0.0, norm=norm)
    assert torch.equal(found, x)


@pytest.mark.parametrize(("norm", "mean_distance"), [("linf", 0.05), ("l2", 0.1 * 4 / 5)])
def test_random_starts_fill_the_ball_uniformly(norm, mean_distance):
    x = torch.full((20_000, 1, 2, 2), 0.5)
    points = ThreatModel(0.1, norm).random_point(x, torch.Generator().manual_seed(0))
    change = points - x
    # Uniform on an interval: a mean absolute value of half the radius. In a ball of d dimensions
    # the mean distance from its centre is d / (d + 1) radii.
    found = change.abs().mean() if norm == "linf" else change.flatten(1).norm(dim=1).mean()
    assert found.item() == pytest.approx(mean_distance, rel=0.01)
    assert change.mean(dim=0).abs().max() < 0.002


def test_a_random_start_is_a_function_of_the_generator():
    def found(generator):
        return pgd(lambda x: x.sum(), images(), 0.1, steps=1, step_size=1e-3, generator=generator)

    one, same, other = (found(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    before = torch.get_rng_state()
    found(torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    from_global = found(None)
    torch.manual_seed(5)
    assert torch.equal(found(None), from_global)


def test_restarts_keep_the_highest_loss_of_each_sample():
    x = torch.full((6, 1, 1, 1), 0.5)

    def loss(x):  # two hills of height 1 and 2; gradients climb the nearer one
        x = x.flatten()
        return torch.exp(-300 * (x - 0.3) ** 2) + 2 * torch.exp(-300 * (x - 0.7) ** 2)

    def heights(restarts):
        generator = torch.Generator().manual_seed(0)
        options = {"steps": 20, "step_size": 0.02, "restarts": restarts, "generator": generator}
        return loss(pgd(loss, x, 0.3, **options))

    assert heights(1).min() < 1.1
    assert heights(12).min() > 1.9


def test_pgd_finds_higher_losses_than_one_step_and_more_steps_find_higher_ones(digits):
    def loss(x):
        return cross_entropy(digits.network(x), digits.labels, reduction="none")

    def mean(found):
        return loss(found).mean().item()

    once = mean(fgsm(loss, digits.images, 0.2))
    ten = mean(pgd(loss, digits.images, 0.2, random_start=False))
    assert mean(digits.images) < once < ten
    # Goodfellow et al. use the sign, not another direction of the same size.
    noise = ThreatModel(0.2).random_point(digits.images, torch.Generator().manual_seed(0))
    assert mean(noise) < once / 2


def test_a_mean_loss_gives_the_same_attack_as_losses_per_sample(digits):
    def attacked(reduction):
        return pgd(
            lambda x: cross_entropy(digits.network(x), digits.labels, reduction=reduction),
            digits.images,
            0.3,
            norm="l2",
            steps=3,
            generator=torch.Generator().manual_seed(0),
        )

    torch.testing.assert_close(attacked("mean"), attacked("none"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_only_the_inputs_get_a_gradient_in_every_autograd_mode(context, attack):
    network = nn.Sequential(nn.Flatten(), nn.Linear(75, 4))
    network[1].weight.grad = before = torch.full((4, 75), 3.0)
    with context():
        x = images()
        copy = x.clone()
        found = attack(lambda x: network(x).square().sum(), x, 0.1)
        assert torch.equal(x, copy)
    assert network[1].weight.grad is before
    assert torch.equal(before, torch.full((4, 75), 3.0))
    assert network[1].bias.grad is None
    assert not found.requires_grad
    assert not torch.equal(found, copy)


def test_an_undefined_gradient_does_not_change_the_image():
    x = images()
    assert torch.equal(fgsm(lambda x: (x * math.nan).sum(), x, 0.1), x)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"eps": -0.1}, r"eps=-0\.1"),
        ({"eps": 4.0}, r"eps=4\.0: pixel values in clamp=\(0\.0, 1\.0\)"),
        ({"eps": math.nan}, "eps=nan"),
        ({"eps": 9.0, "norm": "l2"}, r"eps=9\.0: two images of this size differ by at most 8\.66"),
        ({"norm": "l1"}, "norm='l1'"),
        ({"steps": 0}, "steps=0"),
        ({"restarts": 0}, "restarts=0"),
        ({"step_size": 0.0}, r"step_size=0\.0"),
        ({"restarts": 2, "random_start": False}, "restarts=2: without random_start"),
        ({"restarts": 2}, r"loss has shape \(\): several restarts"),
        ({"clamp": (1.0, 0.0)}, r"clamp=\(1\.0, 0\.0\)"),
        ({"mean": [0.5]}, "expected both or neither"),
        ({"mean": [0.5, 0.5], "std": [1.0]}, "expected one number of each per channel"),
        ({"mean": [0.5, 0.5], "std": [1.0, 1.0]}, "2 channels, inputs .* have 3"),
        ({"mean": [0.5], "std": [0.0]}, r"std=\[0\.0\]"),
        ({"mean": [math.inf], "std": [1.0]}, r"mean=\[inf\]"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        pgd(lambda x: x.sum(), images(), **{"eps": 0.1, **arguments})


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        (torch.zeros(2, 3, 5, 5, dtype=torch.uint8), "inputs are torch.uint8"),
        ([[0.5]], "inputs are list"),
        (torch.zeros(3), "expected \\(batch, channels"),
        (normalized(images()), "if they are normalized, pass mean and std"),
        (images() * 255, "are not pixel values"),
        (images() * math.nan, "are not pixel values"),
    ],
)
def test_inputs_that_are_not_images_are_refused(inputs, named):
    for attack in (fgsm, pgd):
        with pytest.raises(ValueError, match=named):
            attack(lambda x: x.sum(), inputs, 0.1)


def test_a_loss_without_a_gradient_or_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="not differentiable"):
        fgsm(lambda x: x.detach().sum(), images(), 0.1)
    with pytest.raises(ValueError, match=r"shape \(4, 3, 5, 5\): expected one number, or 4"):
        fgsm(lambda x: x, images(), 0.1)


@pytest.mark.parametrize(("norm", "share"), [("linf", 0.97), ("l2", 0.85)])
def test_random_search_approaches_the_optimum_of_a_linear_loss(norm, share):
    w, x = weight(), torch.full((4, 3, 5, 5), 0.5)

    def rise(queries):
        generator = torch.Generator().manual_seed(0)
        found = random_search(
            lambda x: (x * w).sum(dim=(1, 2, 3)),
            x,
            0.1,
            norm=norm,
            queries=queries,
            generator=generator,
        )
        return ((found - x) * w).sum(dim=(1, 2, 3)).min().item()

    optimum = 0.1 * (w.abs().sum() if norm == "linf" else w.norm()).item()
    assert share * optimum < rise(1500) <= optimum * (1 + 1e-5)
    assert rise(1) < 0.5 * optimum
