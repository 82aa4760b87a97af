"""The losses and the network, compared with closed forms on small numbers."""

import math
from types import SimpleNamespace

import pytest
import torch

from lightning_plugins.nn.ai_text import (
    METHODS,
    SCRN,
    DetectorNetwork,
    Flooding,
    MaxPoolHead,
    Plain,
    RanMask,
    RDrop,
    ReconstructionNetwork,
)
from lightning_plugins.nn.ai_text.detector_network import Output, masked_mean

LOG3 = math.log(3)
# P(AI) of the two texts is 3/4 and 1/2 in the first pass, 1/4 and 1/2 in the second.
TWO_PASSES = torch.tensor([[0.0, LOG3], [0, 0], [LOG3, 0], [0, 0]])
LABELS = torch.tensor([1, 0])
# The probabilities of the labels are 3/4, 1/2 and 1/4, 1/2.
CLASSIFICATION = (math.log(4 / 3) + math.log(2) + math.log(4) + math.log(2)) / 4
# KL of (1/4, 3/4) and (3/4, 1/4) is log(3) / 2 in both directions, that of the second text is 0.
CALIBRATION = LOG3 / 4


def one_dimensional(noise="scalar", beta=0.5, latent_dim=1):
    network = ReconstructionNetwork(1, latent_dim, 1, beta, noise)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    return network


def test_plain_is_the_cross_entropy():
    loss = Plain().loss(Output(TWO_PASSES[:2], None), LABELS)["loss"]
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


@pytest.mark.parametrize(("level", "expected"), [(0.1, None), (2.0, "reflected")])
def test_flooding_reflects_the_loss_below_its_level(level, expected):
    terms = Flooding(level).loss(Output(TWO_PASSES[:2], None), LABELS)
    entropy = (math.log(4 / 3) + math.log(2)) / 2
    assert terms["classification_loss"].item() == pytest.approx(entropy)
    reflected = entropy if expected is None else 2 * level - entropy
    assert terms["loss"].item() == pytest.approx(reflected)


def test_r_drop_adds_the_mean_of_both_divergences():
    terms = RDrop(2.0).loss(Output(TWO_PASSES, None), LABELS)
    assert terms["classification_loss"].item() == pytest.approx(CLASSIFICATION)
    assert terms["calibration_loss"].item() == pytest.approx(CALIBRATION)
    assert terms["loss"].item() == pytest.approx(CLASSIFICATION + 2 * CALIBRATION)


def test_the_calibration_loss_is_the_mean_of_both_directions():
    # KL is not symmetric here: 0.5 [KL(p||q) + KL(q||p)] = (p - q) (logit p - logit q) / 2 differs
    # from KL in one direction.
    a, b = 2.0, -0.5
    p, q = torch.sigmoid(torch.tensor([a, b])).tolist()
    logits = torch.tensor([[0, a], [0, b]])
    terms = RDrop().loss(Output(logits, None), torch.tensor([1]))
    assert terms["calibration_loss"].item() == pytest.approx((p - q) * (a - b) / 2)


def test_the_calibration_loss_has_gradients_in_both_passes():
    a, b = (torch.tensor(x, requires_grad=True) for x in (1.0, -1.0))
    logits = torch.stack([torch.stack([a * 0, a]), torch.stack([b * 0, b])])
    RDrop().loss(Output(logits, None), torch.tensor([1]))["calibration_loss"].backward()
    assert a.grad.item() == pytest.approx(-b.grad.item())
    assert a.grad.item() > 0


def test_scrn_weights_its_terms_as_published():
    terms = SCRN().loss(Output(TWO_PASSES, torch.tensor(3.0)), LABELS)
    expected = CLASSIFICATION + 0.5 * CALIBRATION + 0.01 * (3.0 + 3.0)
    assert terms["loss"].item() == pytest.approx(expected)


def test_each_ablation_removes_one_term():
    without_calibration = SCRN(calibration_weight=0)
    loss = without_calibration.loss(Output(TWO_PASSES, torch.tensor(3.0)), LABELS)["loss"]
    assert loss.item() == pytest.approx(CLASSIFICATION + 0.06)
    without_reconstruction = SCRN(reconstruct=False)
    assert without_reconstruction.reconstruction(4) is None
    loss = without_reconstruction.loss(Output(TWO_PASSES, None), LABELS)["loss"]
    assert loss.item() == pytest.approx(CLASSIFICATION + 0.5 * CALIBRATION)


def test_ranmask_votes_or_averages():
    copies = torch.tensor([[0.9, 0.1], [0.6, 0.2], [0.3, 0.9]])
    torch.testing.assert_close(RanMask().combined(copies), torch.tensor([2 / 3, 1 / 3]))
    torch.testing.assert_close(RanMask(ensemble="mean").combined(copies), torch.tensor([0.6, 0.4]))
    torch.testing.assert_close(RanMask().combined(copies[:1]), copies[0])


def test_the_reconstruction_loss_equals_its_formula():
    # With unit weights and h = 2: s = mu = v = 2, z = 2 + e, h' = 2 + e exp(1).
    network = one_dimensional(beta=0.5)
    restored, loss = network(torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), 0.25))
    error = 0.25 * math.e
    assert restored.item() == pytest.approx(2 + error)
    assert loss.item() == pytest.approx(error**2 + 0.5 * (4 + math.exp(2) - 2))


def test_without_noise_the_mean_is_decoded():
    network = one_dimensional(latent_dim=3)
    restored, _ = network(torch.full((1, 1, 1), 2.0), None)
    assert restored.item() == pytest.approx(6.0)


@pytest.mark.parametrize(("noise", "dim"), [("scalar", 1), ("vector", 3)])
def test_scalar_noise_is_equal_in_all_latent_dimensions(noise, dim):
    network = one_dimensional(noise, latent_dim=3)
    assert network.noise_dim == dim
    epsilon = torch.arange(1.0, dim + 1).view(1, 1, dim) / 10
    restored, _ = network(torch.zeros(1, 1, 1), epsilon)  # mu = v = 0
    total = 3 * 0.1 if noise == "scalar" else 0.1 + 0.2 + 0.3
    assert restored.item() == pytest.approx(total)


def test_gradients_flow_to_the_representation_that_is_reconstructed():
    # With beta = 0 and h' = 0 the loss is h^2, whose gradient is 2 h.
    network = one_dimensional(beta=0.0)
    with torch.no_grad():
        network.restore.weight.zero_()
    hidden = torch.tensor([[[1.5]]], requires_grad=True)
    network(hidden, None)[1].sum().backward()
    assert hidden.grad.item() == pytest.approx(3.0)


def test_the_numbers_of_parameters_equal_the_released_code():
    assert sum(p.numel() for p in SCRN().reconstruction(768).parameters()) == 1_313_537
    assert sum(p.numel() for p in MaxPoolHead(768).parameters()) == 592_130


def test_padding_is_excluded_from_the_mean_and_the_maximum():
    values = torch.tensor([[1.0, 3.0], [5.0, math.nan]])
    mask = torch.tensor([[1, 1], [1, 0]])
    assert masked_mean(values, mask).item() == pytest.approx(3.0)
    head = MaxPoolHead(1, dropout=0.0)
    tokens = torch.tensor([[[-2.0], [-3.0], [7.0]]])
    masked = head(tokens, torch.tensor([[1, 1, 0]]))
    torch.testing.assert_close(masked, head(tokens[:, :2], None))
    assert not torch.allclose(masked, head(tokens, None))


class Embedding(torch.nn.Module):
    """An encoder without interaction between tokens."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(10, 4)
        self.table.weight.data[0] = 5.0  # padding has the maximum

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


def seeded_network(reconstruction, mask_padding=True):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DetectorNetwork(
            Embedding(), 4, reconstruction(4), dropout=0.0, mask_padding=mask_padding
        )
        return network, torch.randn(2, 5, 1)


@pytest.mark.parametrize("reconstruct", [False, True])
def test_padding_changes_logits_and_loss_only_without_mask_padding(reconstruct):
    method = SCRN(reconstruct=reconstruct, latent_dim=3, width=3)
    ids, mask = torch.tensor([[1, 2, 3, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]])
    for mask_padding in (True, False):
        network, noise = seeded_network(method.reconstruction, mask_padding)
        padded = network(ids, mask, noise[:1])
        alone = network(ids[:, :3], mask[:, :3], noise[:1, :3])
        assert torch.allclose(padded.logits, alone.logits) == mask_padding
        if reconstruct:
            same = torch.allclose(padded.reconstruction_loss, alone.reconstruction_loss)
            assert same == mask_padding
        else:
            assert padded.reconstruction_loss is None


def test_the_loss_of_two_concatenated_copies_is_the_mean_of_their_losses():
    network, noise = seeded_network(SCRN(latent_dim=3, width=3).reconstruction)
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    one = torch.ones_like(ids)
    both = network(ids.repeat(2, 1), one.repeat(2, 1), noise)
    first, second = (network(ids, one, noise[i : i + 1]) for i in range(2))
    torch.testing.assert_close(both.logits, torch.cat([first.logits, second.logits]))
    torch.testing.assert_close(
        both.reconstruction_loss, (first.reconstruction_loss + second.reconstruction_loss) / 2
    )
    assert not torch.allclose(first.logits, second.logits)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("flooding", {"level": -1}, "level=-1"),
        ("r_drop", {"calibration_weight": -1}, "calibration_weight=-1"),
        ("ranmask", {"masked_share": 1}, "masked_share=1"),
        ("ranmask", {"ensemble": "votes"}, "ensemble='votes'"),
        ("scrn", {"reconstruction_weight": -1}, "reconstruction_weight=-1"),
        ("scrn", {"latent_dim": 0}, "latent_dim=0"),
        ("scrn", {"noise": "both"}, "noise='both'"),
        ("scrn", {"beta": -1}, "beta=-1"),
    ],
)
def test_the_error_names_an_option_outside_its_range(method, options, message):
    with pytest.raises(ValueError, match=message):
        METHODS[method](**options)
