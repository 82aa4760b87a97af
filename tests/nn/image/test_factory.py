import sys

import pytest
import torch

from lightning_plugins.nn.image import build_image_network


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "vgg", "groupnorm_cnn"])
def test_dropout_is_refused_for_architectures_without_it(name):
    with pytest.raises(ValueError, match=rf"dropout=0.1: '{name}' has no dropout.*wide_resnet"):
        build_image_network(name, num_classes=10, dropout=0.1)


def test_pretrained_is_refused_for_networks_of_this_package():
    with pytest.raises(ValueError, match=r"pretrained=True: .*'resnet18'"):
        build_image_network("resnet18", num_classes=10, pretrained=True)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("num_classes", 0), ("in_channels", 0), ("image_size", 0), ("dropout", 1.0)],
)
def test_errors_name_the_invalid_argument(argument, value):
    with pytest.raises(ValueError, match=f"{argument}={value}: expected"):
        build_image_network("mlp", **{"num_classes": 10, argument: value})


def test_the_error_of_vgg_gives_the_smallest_image_size():
    with pytest.raises(ValueError, match="image_size=16: 'vgg' requires at least 32"):
        build_image_network("vgg", num_classes=10, image_size=16)


def test_a_missing_timm_raises_an_error_with_the_install_command_and_similar_names(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r'resnet20.*pip install "timm>=1\.0\.3"'):
        build_image_network("resnet21", num_classes=10)


def test_the_error_of_an_unknown_name_suggests_similar_names_of_both_collections():
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"did you mean .*wide_resnet"):
        build_image_network("wide_resnett", num_classes=10)
    with pytest.raises(ValueError, match=r"did you mean .*vit_tiny_patch16_224"):
        build_image_network("vit_tiny_patch16_22", num_classes=10)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "resnet10t", "resnet18.a1_in1k", "mixer_s16_224"]
)
def test_models_of_timm_accept_classes_channels_size_and_dropout(name):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        network = build_image_network(
            name, num_classes=7, in_channels=1, image_size=64, dropout=0.25
        )
    assert network(torch.empty(2, 1, 64, 64, device="meta")).shape == (2, 7)
    if hasattr(network, "drop_rate"):
        assert network.drop_rate == 0.25
    assert type(network).__module__.startswith(timm.__name__)


def test_an_option_that_a_timm_model_does_not_support_is_refused(monkeypatch):
    timm = pytest.importorskip("timm")

    def without_dropout(name, pretrained, num_classes, in_chans):
        raise AssertionError("built although dropout could not be followed")

    monkeypatch.setattr(timm, "create_model", without_dropout)
    with pytest.raises(ValueError, match=r"dropout=0.5: timm's 'resnet10t' does not support this"):
        build_image_network("resnet10t", num_classes=10, dropout=0.5)
