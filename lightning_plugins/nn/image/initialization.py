"""Initial weights for networks of convolutions and rectifiers."""

from torch import nn


def initialize_convolutions(network: nn.Module) -> None:
    """Draw convolution weights from N(0, 2 / fan_out), which keeps the variance of gradients.

    Uses torch's global generator, as ``torch.nn`` does when it builds a layer.

    Source: He et al., Delving Deep into Rectifiers, arXiv 1502.01852, equation 14.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
