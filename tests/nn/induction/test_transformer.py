import pytest
import torch

from lightning_plugins.nn.induction.transformer import TokenTransformer, VectorTransformer

TOKENS = torch.randint(9, (3, 7), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("positions", ["relative", "learned"])
@pytest.mark.parametrize("mlp", [False, True])
def test_outputs_do_not_depend_on_later_tokens(positions, mlp):
    network = TokenTransformer(9, 8, dim=16, positions=positions, mlp=mlp)
    other = TOKENS.clone()
    other[:, 4:] = 0
    torch.testing.assert_close(network(TOKENS)[:, :4], network(other)[:, :4])
    assert not torch.allclose(network(TOKENS)[:, 4:], network(other)[:, 4:])


def test_patterns_are_causal_distributions_of_every_layer_and_head():
    network = TokenTransformer(9, 8, dim=16, layers=3, heads=4)
    patterns = network.attention_patterns(TOKENS)
    assert [tuple(pattern.shape) for pattern in patterns] == [(3, 4, 7, 7)] * 3
    for pattern in patterns:
        torch.testing.assert_close(pattern.sum(-1), torch.ones(3, 4, 7))
        assert not pattern.triu(1).any()


def test_a_distance_bias_creates_a_previous_token_head_at_every_length():
    network = TokenTransformer(9, 8, dim=16)
    with torch.no_grad():
        network.stack.layers[0].attention.distance_bias[0, 1] = 100.0
    for length in (2, 7):
        (pattern, _) = network.attention_patterns(TOKENS[:, :length])
        stripe = pattern[:, 0].diagonal(-1, dim1=-2, dim2=-1)
        torch.testing.assert_close(stripe, torch.ones_like(stripe))


def test_outputs_depend_on_the_order_with_both_kinds_of_positions():
    swapped = TOKENS[:, [1, 0, *range(2, 7)]]
    for positions in ("relative", "learned"):
        network = TokenTransformer(9, 8, dim=16, positions=positions)
        bias = network.stack.layers[0].attention.distance_bias
        if bias is not None:
            torch.nn.init.normal_(bias)
        assert not torch.allclose(network(TOKENS)[:, -1], network(swapped)[:, -1])


def test_vectors_are_read_at_the_last_position():
    network = VectorTransformer(3, outputs=2, max_length=8, dim=16)
    assert network(torch.randn(5, 7, 3)).shape == (5, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"vocab_size": 1}, "vocab_size=1"),
        ({"dim": 9}, "dim=9: expected a multiple of heads=2"),
        ({"layers": 0}, "layers=0"),
        ({"heads": 0}, "heads=0"),
        ({"positions": "none"}, "positions='none'"),
    ],
)
def test_errors_name_the_invalid_argument(arguments, named):
    with pytest.raises(ValueError, match=named):
        TokenTransformer(**{"vocab_size": 9, "max_length": 8} | arguments)


def test_a_longer_sequence_is_refused():
    with pytest.raises(ValueError, match="length=7: expected at most max_length=6"):
        TokenTransformer(9, 6)(TOKENS)
