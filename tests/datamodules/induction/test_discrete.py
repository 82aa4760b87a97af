import pytest
import torch

from lightning_plugins.datamodules import MarkovChainDataModule, RepeatedSequenceDataModule
from lightning_plugins.datamodules.induction.markov import sample_sequences, stationary_distribution
from lightning_plugins.nn.induction.ngrams import context_numbers


def chain(order, num_states=3):
    generator = torch.Generator().manual_seed(order)
    rows = torch.rand(num_states**order, num_states, generator=generator, dtype=torch.float64)
    return (rows / rows.sum(dim=-1, keepdim=True))[None]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_stationary_distribution_is_invariant(order):
    probabilities = stationary_distribution(chain(order))[0]
    assert probabilities.sum().item() == pytest.approx(1)
    after = torch.zeros_like(probabilities)
    for context, probability in enumerate(probabilities):
        for token in range(3):
            after[(context * 3 + token) % 3**order] += probability * chain(order)[0, context, token]
    torch.testing.assert_close(after, probabilities)


@pytest.mark.parametrize("order", [1, 2])
def test_sequences_follow_their_chain_from_the_first_token(order):
    torch.manual_seed(0)
    chains = chain(order).expand(40_000, -1, -1)
    tokens = sample_sequences(chains, order + 3)
    for start in range(tokens.shape[1] - order):
        context = context_numbers(tokens[:, start : start + order], order, 3)[:, 0]
        seen = torch.bincount(context, minlength=3**order) / len(tokens)
        torch.testing.assert_close(
            seen.double(), stationary_distribution(chain(order))[0], atol=0.01, rtol=0
        )
        for number in range(3**order):
            following = tokens[context == number, start + order]
            shares = torch.bincount(following, minlength=3) / len(following)
            torch.testing.assert_close(shares.double(), chain(order)[0, number], atol=0.04, rtol=0)


def test_each_sequence_comes_from_a_new_chain():
    data = MarkovChainDataModule(concentration=0.5, length=40, batch_size=50)
    tokens = next(iter(data.train_dataloader()))
    assert tokens.shape == (50, 40)
    assert len({tuple(row) for row in tokens.tolist()}) > 45


def test_sequences_repeat_after_one_period():
    data = RepeatedSequenceDataModule(batch_size=200)
    tokens, period = next(iter(data.train_dataloader()))
    assert tokens.shape == (200, 48)
    assert (period.min(), period.max()) == (8, 24)
    for row, length in zip(tokens, period.tolist(), strict=True):
        assert torch.equal(row[length:], row[:-length])
    assert tokens.unique().tolist() == list(range(64))


@pytest.mark.parametrize(
    ("cls", "arguments", "named"),
    [
        (MarkovChainDataModule, {"num_states": 1}, "num_states=1"),
        (MarkovChainDataModule, {"order": 0}, "order=0"),
        (MarkovChainDataModule, {"length": 3, "order": 2}, "length=3: expected at least 4"),
        (MarkovChainDataModule, {"concentration": 0}, "concentration=0"),
        (RepeatedSequenceDataModule, {"vocab_size": 1}, "vocab_size=1"),
        (RepeatedSequenceDataModule, {"min_period": 1}, "min_period=1"),
        (RepeatedSequenceDataModule, {"min_period": 30}, "min_period=30"),
        (RepeatedSequenceDataModule, {"length": 25}, "length=25: expected at least max_period"),
    ],
)
def test_errors_name_the_invalid_argument(cls, arguments, named):
    with pytest.raises(ValueError, match=named):
        cls(**arguments)
