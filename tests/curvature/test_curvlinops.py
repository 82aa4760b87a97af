"""The largest eigenvalue compared with an independent library."""

import pytest
import torch
from torch import nn

from lightning_plugins.curvature import HessianOperator, largest_eigenvalues

curvlinops = pytest.importorskip("curvlinops", reason="curvlinops-for-pytorch is not installed")


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5))


def small_convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5)
    )


@pytest.mark.parametrize("make", [mlp, small_convolutional])
def test_the_largest_eigenvalue_agrees_to_four_digits(make):
    from scipy.sparse.linalg import eigsh

    torch.manual_seed(0)
    network = make().double().eval()
    images, labels = torch.randn(40, 1, 8, 8).double(), torch.randint(5, (40,))
    loss = nn.CrossEntropyLoss()
    batches = [(images[:24], labels[:24]), (images[24:], labels[24:])]
    parameters = list(network.parameters())
    theirs = curvlinops.HessianLinearOperator(network, loss, parameters, batches).to_scipy()
    operator = HessianOperator(lambda x, y: loss(network(x), y), parameters, batches)
    ours = largest_eigenvalues(operator, operator.dimension, 2, tolerance=1e-7, dtype=torch.float64)
    expected = eigsh(theirs, k=2, which="LA", return_eigenvectors=False)[::-1]
    assert ours.values.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
