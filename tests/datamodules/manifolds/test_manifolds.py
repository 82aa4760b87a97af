"""Points lie on the manifold, depend only on the seed, and are embedded without loss."""

import math

import pytest
import torch

from lightning_plugins.datamodules import ManifoldDataModule
from lightning_plugins.datamodules.manifolds.manifolds import Embedding, build_manifold

MANIFOLDS = [("circle", 1), ("torus", 2), ("sphere", 2), ("swiss_roll", 2), ("cube", 3)]
EMBEDDINGS = ("zero_pad", "rotated", "nonlinear")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def data(**changes):
    settings = {"batch_size": 32, "batches_per_epoch": 5, "evaluation_samples": 100}
    return ManifoldDataModule(**(settings | changes))


def stream(module, epoch=0):
    loader = module.train_dataloader()
    loader.set_epoch(epoch)
    return list(loader)


def same(one, other):
    pairs = [pair for both in zip(one, other, strict=True) for pair in zip(*both, strict=True)]
    return all(torch.equal(a, b) for a, b in pairs)


def test_points_lie_on_their_manifold():
    points = {
        name: build_manifold(name, dim, 3.0).sample(500, generator()) for name, dim in MANIFOLDS
    }
    ones = torch.ones(500)
    torch.testing.assert_close(points["circle"].norm(dim=1), ones)
    torch.testing.assert_close(points["torus"].view(500, 2, 2).norm(dim=2), ones.expand(2, 500).T)
    torch.testing.assert_close(points["sphere"].norm(dim=1), ones)
    assert points["cube"].min() >= 0
    assert 2.8 < points["cube"].max() <= 3
    roll = build_manifold("swiss_roll", 2, 1.0)
    x, h, z = points["swiss_roll"].unbind(1)
    angle = 4.5 * math.pi * torch.stack([x, z]).norm(dim=0)
    torch.testing.assert_close(angle.cos(), x * 4.5 * math.pi / angle, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        roll.chart(points["swiss_roll"]), torch.stack([angle, h], 1), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("name", "dim"), MANIFOLDS)
def test_charts_have_two_coordinates(name, dim):
    manifold = build_manifold(name, dim, 1.0)
    points = manifold.sample(50, generator())
    assert points.shape == (50, manifold.features)
    assert manifold.chart(points).shape == (50, 2)


@pytest.mark.parametrize("name", EMBEDDINGS)
@pytest.mark.parametrize("ambient_dim", [7, 16])
def test_an_embedding_is_invertible(name, ambient_dim):
    embedding = Embedding(name, 3, ambient_dim, generator())
    points = torch.rand(40, 3, generator=generator(1))
    inputs = embedding(points)
    assert inputs.shape == (40, ambient_dim)
    torch.testing.assert_close(embedding.natural(inputs), points, rtol=0, atol=1e-5)


def test_only_the_nonlinear_embedding_spans_the_space():
    points = build_manifold("circle", 1, 1.0).sample(500, generator())
    rank = {}
    for name in EMBEDDINGS:
        inputs = Embedding(name, 2, 12, generator())(points)
        rank[name] = int(torch.linalg.matrix_rank(inputs - inputs.mean(dim=0), rtol=1e-6))
    assert rank == {"zero_pad": 2, "rotated": 2, "nonlinear": 12}


def test_a_rotation_preserves_distances_and_uses_every_coordinate():
    points = torch.rand(40, 3, generator=generator())
    inputs = Embedding("rotated", 3, 16, generator())(points)
    torch.testing.assert_close(inputs @ inputs.T, points @ points.T)
    assert inputs.abs().mean(dim=0).min() > 0.01


def test_streams_depend_on_seed_and_epoch_alone():
    torch.manual_seed(5)
    first = stream(data(seed=1), epoch=2)
    before = torch.get_rng_state()
    assert same(first, stream(data(seed=1), epoch=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert not same(first, stream(data(seed=1), epoch=3))
    assert not same(first, stream(data(seed=2), epoch=2))


def test_samples_never_repeat_and_differ_between_ranks():
    module = data(manifold="cube", intrinsic_dim=2, target="smooth")
    inputs = torch.cat([x for epoch in range(3) for x, _ in stream(module, epoch)])
    assert len(inputs.unique(dim=0)) == len(inputs) == 3 * 5 * 32

    class TwoProcesses:
        world_size, global_rank = 2, 1

    own = stream(module)
    module.trainer = TwoProcesses()
    other = stream(module)
    assert len(other) == 5
    assert not same(own, other)


def test_validation_and_test_are_fixed_and_distinct():
    module = data()
    parts = {
        name: torch.cat([x for x, _ in getattr(module, f"{name}_dataloader")()])
        for name in ("val", "test", "predict")
    }
    assert {len(part) for part in parts.values()} == {100}
    assert torch.equal(parts["test"], parts["predict"])
    assert not torch.equal(parts["test"], parts["val"])
    again = torch.cat([x for x, _ in data().val_dataloader()])
    assert torch.equal(again, parts["val"])


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_target_and_points_do_not_depend_on_the_ambient_dimension(embedding):
    low, high = (
        data(manifold="torus", intrinsic_dim=2, ambient_dim=dim, target="smooth", seed=3)
        for dim in (8, 64)
    )
    for (x, y), (wide, same_y) in zip(stream(low), stream(high), strict=True):
        assert torch.equal(y, same_y)
        torch.testing.assert_close(
            low.embedding.natural(x), high.embedding.natural(wide), rtol=0, atol=1e-5
        )


def test_embedded_inputs_have_the_regions_of_their_points():
    module = data(
        manifold="cube",
        intrinsic_dim=2,
        ambient_dim=8,
        embedding="nonlinear",
        target="shells",
        pieces=3,
    )
    points = module.manifold.sample(200, generator())
    found = module.regions(module.embedding(points))
    assert (found == module.target_function.regions(points)).float().mean() > 0.99  # rounding
    assert module.manifold.side == 3
    assert data().regions(torch.rand(5, 16)) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"manifold": "klein_bottle"}, "manifold='klein_bottle': expected 'circle', 'torus'"),
        ({"manifold": "cube", "intrinsic_dim": 20}, "intrinsic_dim=20: expected at most ambient"),
        ({"manifold": "torus", "intrinsic_dim": 9}, "ambient_dim=16: .* at least 18"),
        ({"ambient_dim": 3, "embedding": "nonlinear"}, "ambient_dim=3: .* at least 4"),
        ({"intrinsic_dim": 2}, "intrinsic_dim=2: manifold='circle' requires intrinsic_dim=1"),
        ({"manifold": "sphere", "intrinsic_dim": 0}, "intrinsic_dim=0: expected at least 1"),
        ({"embedding": "fourier"}, "embedding='fourier': expected 'zero_pad', 'rotated'"),
        ({"target": "shells"}, "target='shells' is defined on a cube: set manifold='cube'"),
        ({"target": "sine"}, "target='sine': expected 'smooth'"),
        ({"manifold": "cube", "target": "jumps", "pieces": 0}, "pieces=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_invalid_arguments_are_refused_at_construction(changes, message):
    with pytest.raises(ValueError, match=message):
        data(**changes)
