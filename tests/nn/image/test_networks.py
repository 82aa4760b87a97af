import pytest
import torch
from torch import nn

from lightning_plugins.nn.image import build_image_network
from lightning_plugins.nn.image.residual_networks import ZeroPaddedShortcut

COLOUR = {"in_channels": 3, "image_size": 32}
GREY = {"in_channels": 1, "image_size": 8}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def on_meta(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return build_image_network(name, num_classes=10, **options)


@pytest.mark.parametrize(
    ("name", "published_millions"),
    [("resnet20", 0.27), ("resnet18", 11.17), ("vgg", 14.73), ("wide_resnet", 10.96)],
)
def test_parameter_counts_match_the_published_ones(name, published_millions):
    assert round(count(on_meta(name, **COLOUR)) / 1e6, 2) == published_millions


@pytest.mark.parametrize(("name", "parameters"), [("mlp", 26_122), ("groupnorm_cnn", 14_458)])
def test_small_networks_have_the_documented_size(name, parameters):
    assert count(on_meta(name, **GREY)) == parameters


@pytest.mark.parametrize("image_size", [32, 64])
@pytest.mark.parametrize("name", ["resnet20", "resnet18", "vgg", "wide_resnet", "mlp"])
def test_logits_have_one_column_per_class_on_the_meta_device(name, image_size):
    network = on_meta(name, in_channels=3, image_size=image_size)
    assert network(torch.empty(2, 3, image_size, image_size, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("name", ["resnet20", "mlp", "groupnorm_cnn"])
def test_every_parameter_gets_a_gradient(name):
    torch.manual_seed(0)
    network = build_image_network(name, num_classes=4, **GREY)
    logits = network(torch.rand(8, 1, 8, 8))
    nn.functional.cross_entropy(logits, torch.arange(8) % 4).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_a_zero_padded_shortcut_keeps_every_second_pixel_and_adds_zero_channels():
    x = torch.randn(2, 16, 6, 6)
    y = ZeroPaddedShortcut(16, 32, stride=2)(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert y[:, :8].count_nonzero() == y[:, 24:].count_nonzero() == 0


def test_groupnorm_cnn_does_not_mix_samples_and_has_no_buffers():
    torch.manual_seed(0)
    network = build_image_network("groupnorm_cnn", num_classes=10, **GREY)
    images = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(network(images)[2:3], network(images[2:3]))
    assert not list(network.buffers())


def test_features_keep_their_scale_in_an_untrained_resnet():
    torch.manual_seed(0)
    network = build_image_network("resnet20", num_classes=10)
    assert 0.1 < network(torch.randn(16, 3, 32, 32)).std() < 10


@pytest.mark.parametrize("name", ["mlp", "wide_resnet"])
def test_dropout_is_set_in_every_dropout_layer(name):
    network = on_meta(name, dropout=0.3, **COLOUR)
    probabilities = [m.p for m in network.modules() if isinstance(m, nn.Dropout)]
    assert set(probabilities) == {0.3}
    assert len(probabilities) == {"mlp": 2, "wide_resnet": 6}[name]
