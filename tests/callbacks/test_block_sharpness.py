import math

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader

from lightning_plugins.callbacks import BlockSharpness
from lightning_plugins.curvature import sampled_cross_entropy


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(6, 6, bias=False))

    def forward(self, x):
        scores = self.q_proj(x) @ self.k_proj(x).transpose(1, 2)
        return self.o_proj(scores.softmax(-1) @ self.v_proj(x))


class Transformer(LightningModule):
    rate = 0.1

    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(9, 6)
        self.norm = nn.LayerNorm(6)
        self.self_attn = Attention()
        self.lm_head = nn.Linear(6, 9)

    def forward(self, tokens):
        return self.lm_head(self.self_attn(self.norm(self.embed_tokens(tokens[:, :-1]))))

    def loss(self, tokens):
        return nn.functional.cross_entropy(self(tokens).flatten(0, 1), tokens[:, 1:].flatten())

    def sampled_loss(self, tokens):
        return sampled_cross_entropy(self(tokens))

    def training_step(self, tokens, batch_idx):
        return self.loss(tokens)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def batches(count=6, size=4):
    torch.manual_seed(1)
    return [torch.randint(9, (size, 8)) for _ in range(count)]


def fit(callback, tmp_path, logger=False, **arguments):
    torch.manual_seed(0)
    model = Transformer()
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        callbacks=[callback] if callback else None,
        **arguments,
    )
    trainer.fit(model, DataLoader(batches(), batch_size=None))
    return model, trainer


def expected(samples, batch_size):
    """B·‖g‖²/n of the untrained model."""
    torch.manual_seed(0)
    model = Transformer()
    torch.stack([model.loss(batch) for batch in samples]).mean().backward()
    squares = {name: p.grad.double().square() for name, p in model.named_parameters()}
    return {block: batch_size * value for block, value in block_means(squares).items()}


def gauss_newton_diagonal(tokens):
    """The exact mean diagonal entries: the mean over tokens of Σ_c p_c (∂ log p_c)²."""
    torch.manual_seed(0)
    model = Transformer()
    logs = model(tokens).flatten(0, 1).log_softmax(-1)
    parameters = dict(model.named_parameters())
    diagonal = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for log in logs.flatten():
        found = torch.autograd.grad(log, list(parameters.values()), retain_graph=True)
        for entry, gradient in zip(diagonal.values(), found, strict=True):
            entry += log.detach().exp() * gradient.square() / len(logs)
    return block_means(diagonal)


def block_means(entries):
    blocks = {"embedding": "embed", "norm": "norm", "head": "lm_head", "qk": ("q_", "k_")}
    blocks["vo"] = ("v_", "o_")
    result = {}
    for block, names in blocks.items():
        chosen = [
            one for n, one in entries.items() if n.removeprefix("self_attn.").startswith(names)
        ]
        result[block] = float(torch.cat([one.flatten() for one in chosen]).double().mean())
    return result


def test_the_estimate_is_the_mean_squared_gradient_times_the_batch(tmp_path):
    callback = BlockSharpness(every_n_steps=2)
    fit(callback, tmp_path, gradient_clip_val=1e-3)
    assert callback.steps == [0, 2, 4]
    wanted = expected(batches()[:1], 4)
    assert {k: v[0] for k, v in callback.values.items()} == pytest.approx(wanted, rel=1e-5)


def test_accumulated_batches_count_as_one(tmp_path):
    callback = BlockSharpness(every_n_steps=1)
    fit(callback, tmp_path, accumulate_grad_batches=3)
    wanted = expected(batches()[:3], 12)
    assert {k: v[0] for k, v in callback.values.items()} == pytest.approx(wanted, rel=1e-5)


def test_labels_of_the_model_give_the_gauss_newton_diagonal_off_the_optimum(tmp_path, monkeypatch):
    """The same batch, weights and 400 draws: labels of the data are wrong by a factor here."""
    monkeypatch.setattr(Transformer, "rate", 0.0)
    tokens = torch.arange(8).repeat(4, 1)  # the data is far from the predictions
    monkeypatch.setitem(globals(), "batches", lambda: [tokens] * 400)
    exact = gauss_newton_diagonal(tokens)
    drawn, given = (BlockSharpness(every_n_steps=1, labels=one) for one in ("model", "data"))
    fit(drawn, tmp_path)
    for block, values in drawn.values.items():
        assert sum(values) / 400 == pytest.approx(exact[block], rel=0.15), block
    monkeypatch.setitem(globals(), "batches", lambda: [tokens])
    fit(given, tmp_path)
    # Divided by the 7 labels of a sequence, as B counts sequences.
    assert 7 * given.values["head"][0] > 2 * exact["head"]


def test_labels_of_the_model_need_a_loss_that_draws_them(tmp_path, monkeypatch):
    monkeypatch.delattr(Transformer, "sampled_loss")
    with pytest.raises(MisconfigurationException, match=r"needs Transformer.sampled_loss\("):
        fit(BlockSharpness(labels="model"), tmp_path)
    with pytest.raises(ValueError, match="labels='mine'"):
        BlockSharpness(labels="mine")


@pytest.mark.scale(plugin="BlockSharpness", strategy="one device")
@pytest.mark.parametrize("labels", ["data", "model"])
def test_the_run_equals_the_run_without_it(tmp_path, labels):
    with_it, _ = fit(BlockSharpness(every_n_steps=1, labels=labels), tmp_path)
    without, _ = fit(None, tmp_path)
    assert all(map(torch.equal, with_it.parameters(), without.parameters()))


def test_values_are_logged_and_drawn(tmp_path):
    logger = CSVLogger(tmp_path, name="log")
    _, trainer = fit(BlockSharpness(every_n_steps=3), tmp_path, logger=logger)
    rows = (tmp_path / "log" / "version_0" / "metrics.csv").read_text().splitlines()
    assert sorted(rows[0].split(",")) == sorted(
        [f"block_sharpness/{b}" for b in ("embedding", "qk", "vo", "norm", "head")] + ["step"]
    )
    assert [row.split(",")[-1] for row in rows[1:]] == ["0", "3"]
    assert (tmp_path / "log" / "version_0" / "block_sharpness.png").stat().st_size > 1000
    assert trainer.callback_metrics["block_sharpness/qk"] > 0


def test_suggested_multipliers_follow_the_sharpness_and_are_near_the_published_ones():
    callback = BlockSharpness()
    # Read off the chart of the paper's repository for LLaMA 0.25B.
    chart = {"embedding": 9e-7, "qk": 1.5e-6, "ffn": 3e-6, "vo": 5.5e-6, "norm": 3e-5}
    callback.values = {block: [math.nan] * 10 + [value] * 10 for block, value in chart.items()}
    suggested = callback.suggested_multipliers()
    published = {"embedding": 10, "qk": 8, "ffn": 6, "vo": 4, "norm": 1}
    assert suggested["norm"] == 1
    assert all(abs(math.log(suggested[b] / published[b])) < 0.25 for b in published)


@pytest.mark.parametrize("late", [1, 9])
def test_nothing_is_suggested_from_few_measurements(late):
    callback = BlockSharpness()
    callback.values = {"norm": [1.0] * 2 * late, "qk": [0.1] * 2 * late}
    assert callback.suggested_multipliers() == callback.suggestion_intervals() == {}


def test_suggestions_have_an_interval_and_limits():
    callback = BlockSharpness()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, generator=generator).mul(0.5).exp().tolist()
    callback.values = {
        "norm": [1.0] * 4000,
        "qk": [0.1 * factor for factor in noise],
        "vo": [1e-9] * 4000,
        "ffn": [1e9] * 4000,
    }
    suggested, intervals = callback.suggested_multipliers(), callback.suggestion_intervals()
    assert intervals["qk"][0] < 10**0.7 < intervals["qk"][1]
    assert intervals["qk"][1] - intervals["qk"][0] < 0.4
    assert (suggested["vo"], suggested["ffn"]) == (30, 0.1)


def test_a_resumed_run_continues_the_curve(tmp_path):
    first, second = BlockSharpness(every_n_steps=2), BlockSharpness(every_n_steps=2)
    fit(first, tmp_path)
    second.load_state_dict(first.state_dict())
    assert (second.steps, second.values) == (first.steps, first.values)


def test_an_unknown_block_is_named_before_the_first_step(tmp_path):
    class Odd(Transformer):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1))

    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[BlockSharpness()],
    )
    with pytest.raises(ValueError, match=r"BlockSharpness .*gain.*patterns"):
        trainer.fit(Odd(), DataLoader(batches(), batch_size=None))


def test_a_network_without_norms_has_curves_and_no_suggestions(tmp_path):
    class Plain(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def training_step(self, batch, batch_idx):
            return self.layer(batch).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    sharpness = BlockSharpness(every_n_steps=1, patterns={r"layer": "ffn"})
    Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_steps=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[sharpness],
    ).fit(Plain(), DataLoader(torch.randn(12, 4), batch_size=4))
    assert len(sharpness.values["ffn"]) == 3
    assert sharpness.suggested_multipliers() == sharpness.suggestion_intervals() == {}


def test_a_frequency_below_one_is_refused():
    with pytest.raises(ValueError, match="every_n_steps=0"):
        BlockSharpness(every_n_steps=0)
