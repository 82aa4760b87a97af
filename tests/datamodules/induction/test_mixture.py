import pytest
import torch

from lightning_plugins.datamodules import InductionMixtureDataModule
from lightning_plugins.nn.induction import bilinear, four_gram, in_context_n_gram


def small(**arguments):
    return InductionMixtureDataModule(
        **{"length": 9, "batch_size": 4, "steps_per_epoch": 3} | arguments
    )


@pytest.mark.parametrize(("dim", "n"), [(1, 2), (3, 2), (2, 3)])
def test_a_batch_contains_tokens_and_both_parts_of_the_target(dim, n):
    data = small(dim=dim, n=n, alpha=3.0)
    tokens, target = next(iter(data.train_dataloader()))
    assert tokens.shape == (4, 9, dim)
    assert target.shape == (4, 2, dim)
    torch.testing.assert_close(target[:, 0], 0.75 * four_gram(tokens))
    induction = in_context_n_gram(tokens, bilinear(data.similarity_weight), n)
    torch.testing.assert_close(target[:, 1], 0.25 * induction)


def test_the_similarity_is_w_star_squared_times_a_rotation():
    weight = small(dim=3, w_star=0.6).similarity_weight / 0.36
    torch.testing.assert_close(weight @ weight.T, torch.eye(3), atol=1e-5, rtol=0)
    assert small(w_star=0.6).similarity_weight.item() == pytest.approx(0.36)


def test_tokens_are_standard_normal():
    tokens = small(batch_size=20_000).draw()[0]
    assert tokens.mean().abs() < 0.02
    assert (tokens.std() - 1).abs() < 0.02


def test_training_batches_differ_and_depend_on_seed_and_epoch_alone():
    def batches(seed, epoch):
        loader = small(seed=seed).train_dataloader()
        loader.set_epoch(epoch)
        return torch.stack([tokens for tokens, _ in loader])

    assert torch.equal(batches(0, 1), batches(0, 1))
    several = torch.cat([batches(0, 0), batches(0, 1), batches(1, 0)])
    flat = several.flatten(1)
    assert (torch.cdist(flat, flat) + 10 * torch.eye(len(flat))).min() > 1


def test_an_interrupted_epoch_resumes_at_the_next_batch():
    loader = small(steps_per_epoch=5).train_dataloader()
    whole = [tokens for tokens, _ in loader]
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    again = small(steps_per_epoch=5).train_dataloader()
    again.load_state_dict(loader.state_dict())
    rest = [tokens for tokens, _ in again]
    assert len(rest) == 3
    assert all(torch.equal(*pair) for pair in zip(rest, whole[2:], strict=True))


def test_validation_repeats_the_same_batches_and_differs_from_the_test():
    data = small(eval_batches=2)
    loaders = [data.val_dataloader(), data.val_dataloader(), data.test_dataloader()]
    loaders[1].set_epoch(3)
    first, later, test = [torch.stack([tokens for tokens, _ in loader]) for loader in loaders]
    assert torch.equal(first, later)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, test)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"length": 3}, "length=3: expected at least 4"),
        ({"length": 5, "n": 5}, "length=5: expected at least 6"),
        ({"n": 1}, "n=1"),
        ({"dim": 0}, "dim=0"),
        ({"alpha": 0}, "alpha=0"),
        ({"w_star": -1.0}, r"w_star=-1\.0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"steps_per_epoch": 0}, "steps_per_epoch=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_errors_name_the_invalid_argument(arguments, named):
    with pytest.raises(ValueError, match=named):
        small(**arguments)
