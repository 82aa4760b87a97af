"""Robust accuracy, AutoAttack, and the checks for masked gradients."""

import importlib.util

import pytest
import torch
from torch import nn

from lightning_plugins.attacks.image import (
    auto_attack_accuracy,
    check_gradient_masking,
    pgd,
    robust_accuracy,
)


class Margin(nn.Module):
    """Two classes by the sign of ``<w, x - 1/2>``; counts the images it classifies."""

    def __init__(self):
        super().__init__()
        self.w = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))
        self.asked = 0

    def forward(self, images):
        self.asked += len(images)
        score = ((images - 0.5) * self.w).sum(dim=(1, 2, 3))
        return torch.stack([-score, score], dim=1)


def samples(count=64):
    images = 0.5 + 0.2 * (
        torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1)) - 0.5
    )
    return images, (Margin()(images).argmax(dim=1))


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.01), ("l2", 0.04)])
def test_robust_accuracy_of_a_linear_classifier_is_the_share_of_larger_margins(norm, eps):
    network, (images, labels) = Margin(), samples()
    dual = network.w.abs().sum() if norm == "linf" else network.w.norm()
    margins = ((images - 0.5) * network.w).sum(dim=(1, 2, 3)).abs() / dual
    measured = robust_accuracy(network, [(images, labels)], eps, norm=norm, restarts=2)
    assert measured.natural == 1.0
    assert measured.num_samples == 64
    expected = (margins > eps).double().mean().item()
    assert 0.1 < expected < 0.9
    assert measured.robust == expected


def test_a_misclassified_sample_is_not_attacked_again():
    network, (images, labels) = Margin(), samples()
    robust_accuracy(network, [(images, labels)], 0.5, steps=5, restarts=10)
    assert network.asked == 64 + 64 * 6  # the images, 5 steps, the last iterate


def test_restarts_and_radius_never_raise_robust_accuracy(digits):
    batches = list(zip(digits.images.split(80), digits.labels.split(80), strict=True))

    def robust(eps=0.1, restarts=1):
        return robust_accuracy(digits.network, batches, eps, steps=4, restarts=restarts).robust

    for by_what in (
        [robust(restarts=n) for n in (1, 2, 4, 8)],
        [robust(e) for e in (0.0, 0.1, 0.2)],
    ):
        assert by_what == sorted(by_what, reverse=True)
    assert robust(0.0) == robust_accuracy(digits.network, batches, 0.1, steps=1).natural
    assert robust(0.2) < robust(0.1) < robust(0.0)


def test_robust_accuracy_is_reproducible_and_restores_the_network_and_generators(digits):
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), digits.network)
    network[1].eval()
    modes = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    random_state = torch.get_rng_state()
    batches = [(digits.images, digits.labels)]
    with torch.inference_mode():
        one = robust_accuracy(network, batches, 0.1, steps=3, restarts=3)
    assert one == robust_accuracy(network, batches, 0.1, steps=3, restarts=3)
    assert torch.equal(random_state, torch.get_rng_state())
    assert modes == [module.training for module in network.modules()]
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])
    assert all(parameter.grad is None or parameter.grad.any() for parameter in network.parameters())


def test_inputs_made_in_inference_mode_are_attacked(digits):
    expected = robust_accuracy(digits.network, [(digits.images, digits.labels)], 0.1, steps=3)
    with torch.inference_mode():
        batches = [(digits.images.clone(), digits.labels.clone())]
        assert robust_accuracy(digits.network, batches, 0.1, steps=3) == expected


def test_nan_logits_count_as_wrong():
    class Broken(nn.Module):
        def forward(self, images):
            return torch.full((len(images), 2), torch.nan) + images.sum()

    images, _ = samples()
    measured = robust_accuracy(Broken(), [(images, torch.zeros(64).long())], 0.1, steps=1)
    assert measured.natural == measured.robust == 0.0


def test_wrong_logits_and_missing_data_are_refused():
    images, labels = samples()
    with pytest.raises(ValueError, match="batches is empty"):
        robust_accuracy(Margin(), [], 0.1)
    with pytest.raises(ValueError, match=r"logits have shape \(64, 1, 4, 4\)"):
        robust_accuracy(lambda x: x, [(images, labels)], 0.1)


def test_a_sound_network_passes_every_check(digits):
    checked = check_gradient_masking(
        digits.network, digits.images, digits.labels, 0.1, surrogate=digits.surrogate
    )
    assert checked.accuracy_vanishes
    assert checked.loss_rises
    assert checked.white_box_is_strongest
    assert not checked.is_suspected
    assert checked.black_box_accuracy.keys() == {"random_search", "transfer"}
    assert checked.accuracy_by_eps[0][0] == 0.0
    assert checked.accuracy_by_eps[-1][0] == 1.0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_quantizing_layer_is_detected(digits, norm):
    masked = digits.Quantised(digits.network)
    eps = {"linf": 0.1, "l2": 0.5}[norm]
    checked = check_gradient_masking(
        masked, digits.images, digits.labels, eps, norm=norm, surrogate=digits.network
    )
    assert not checked.loss_rises
    assert not checked.white_box_is_strongest
    assert checked.is_suspected


def test_saturated_logits_are_detected(digits):
    class Saturated(nn.Module):
        def forward(self, images):
            return digits.network(images) * 1e4

    checked = check_gradient_masking(
        Saturated(), digits.images, digits.labels, 0.1, surrogate=digits.surrogate
    )
    assert checked.is_suspected


def test_checks_of_masking_require_a_radius_and_a_finite_range(digits):
    with pytest.raises(ValueError, match="eps=0"):
        check_gradient_masking(digits.network, digits.images, digits.labels, 0)
    with pytest.raises(ValueError, match="two finite pixel values"):
        check_gradient_masking(
            digits.network, digits.images, digits.labels, 0.1, clamp=(0.0, float("inf"))
        )


HAS_TOOLBOX = importlib.util.find_spec("art") is not None


@pytest.mark.skipif(HAS_TOOLBOX, reason="the toolbox is installed")
def test_without_the_toolbox_the_error_has_the_install_command(digits):
    with pytest.raises(ImportError, match="pip install adversarial-robustness-toolbox"):
        auto_attack_accuracy(digits.network, [(digits.images, digits.labels)], 0.1)


@pytest.mark.skipif(not HAS_TOOLBOX, reason="needs adversarial-robustness-toolbox")
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5)])
def test_auto_attack_and_pgd_agree_within_two_percent(digits, norm, eps):
    batches = [(digits.images, digits.labels)]
    before = [parameter.clone() for parameter in digits.network.parameters()]
    random_state = torch.get_rng_state()
    found = auto_attack_accuracy(digits.network, batches, eps, norm=norm, square_queries=50)
    own = robust_accuracy(digits.network, batches, eps, norm=norm)
    assert found.natural == own.natural
    assert found.robust == pytest.approx(own.robust, abs=0.02)
    normalized = [((digits.images - 0.3) / 0.4, digits.labels)]
    network = nn.Sequential(Unnormalized(), digits.network)
    again = auto_attack_accuracy(
        network, normalized, eps, norm=norm, square_queries=50, mean=[0.3], std=[0.4]
    )
    assert again.robust == pytest.approx(found.robust, abs=0.01)
    assert torch.equal(random_state, torch.get_rng_state())
    for parameter, value in zip(digits.network.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


class Unnormalized(nn.Module):
    def forward(self, inputs):
        return inputs * 0.4 + 0.3


def test_transfer_of_pgd_is_weaker_than_pgd(digits):
    batches = [(digits.images, digits.labels)]
    found = pgd(
        lambda x: nn.functional.cross_entropy(digits.surrogate(x), digits.labels),
        digits.images,
        0.1,
    )
    transferred = robust_accuracy(digits.network, [(found, digits.labels)], 0.0, steps=1).natural
    assert transferred > robust_accuracy(digits.network, batches, 0.1).robust
