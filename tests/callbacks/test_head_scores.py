import builtins
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from recording_callbacks import RecordRandomState
from small_transformers import transformer
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_plugins.callbacks import HeadScores
from lightning_plugins.datamodules import ResumableDataLoader
from lightning_plugins.litmodels import CausalLM
from lightning_plugins.nn.induction.transformer import TokenTransformer

TABLE = Path(__file__).with_name("transformer_lens_scores.npz")
VOCABULARY, LENGTH = 24, 16


class Language(LightningModule):
    """Trains a network on random tokens; dropout draws from the global generator."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.dropout = nn.Dropout(0.2)

    def forward(self, tokens):
        found = self.network(tokens)
        return getattr(found, "logits", found)

    def training_step(self, tokens, batch_idx):
        logits = self.dropout(self(tokens))
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class PytorchsOwn(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.unembed = nn.Linear(16, VOCABULARY)

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.unembed(self.encoder(self.embed(tokens), mask=mask))


def own():
    torch.manual_seed(3)
    return TokenTransformer(VOCABULARY, LENGTH, dim=16)


def scores(**arguments):
    return HeadScores(**{"period": 8, "num_sequences": 3, "every_n_steps": 2} | arguments)


def fit(folder, callbacks, module=None, ckpt_path=None, **arguments):
    defaults = {
        "max_steps": 6,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    tokens = torch.randint(VOCABULARY, (40, LENGTH), generator=torch.Generator().manual_seed(1))
    data = ResumableDataLoader(tokens, 4)
    trainer = Trainer(**defaults | arguments, callbacks=callbacks)
    torch.manual_seed(5)
    module = module or Language(own())
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return module, trainer


@pytest.mark.parametrize("kind", ["random", "trained"])
def test_it_agrees_with_transformer_lens_on_the_same_weights(kind):
    """benchmarks/transformer_lens_table.py made the table."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with np.load(TABLE, allow_pickle=False) as table:
        weights = {
            name.split("/")[2]: torch.from_numpy(table[name] / 4096).float()
            for name in table.files
            if name.startswith(f"{kind}/weights")
        }
        expected = {
            name.split("/")[2]: table[name]
            for name in table.files
            if name.startswith(f"{kind}/scores")
        }
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 16, "n_positions": 32}
    network = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0))
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}  # tied
    callback = HeadScores(period=8, num_sequences=4, rows="all")
    measured = callback.measure(Language(network))
    assert set(expected) == set(measured) - {"in_context"}
    for name, values in expected.items():
        np.testing.assert_allclose(measured[name], values, atol=1e-5, rtol=0, err_msg=name)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_it_scores_models_of_transformers_and_leaves_their_attention_as_it_was(
    architecture, attention
):
    network = transformer(architecture)
    network.set_attn_implementation(attention)
    measured = scores().measure(Language(network))
    assert network.config._attn_implementation == attention
    heads = {"gpt2": 2, "llama": 4}[architecture]
    for name in ("previous_token", "duplicate_token", "induction", "copying", "ablation"):
        assert [len(layer) for layer in measured[name]] == [heads, heads]
    # Nearly uniform attention: the mean of 1/t over the tokens t that have a token to attend to.
    uniform = np.mean([1 / t for t in range(2, LENGTH + 1)])
    assert measured["previous_token"][0][0] == pytest.approx(uniform, rel=0.02)


def test_linear_projections_with_gpt2s_names_score_as_its_transposed_ones():
    """As in nanoGPT and minGPT."""

    def linear(projection):
        inputs, outputs = projection.weight.shape
        layer = nn.Linear(inputs, outputs)
        with torch.no_grad():
            layer.weight.copy_(projection.weight.T)
            layer.bias.copy_(projection.bias)
        return layer

    network = transformer("gpt2")
    with torch.no_grad():  # random weights of GPT-2's scale hardly say which head is which
        for parameter in network.transformer.h.parameters():
            parameter.mul_(5)
    expected = scores().measure(Language(network))
    for block in network.transformer.h:
        block.attn.c_attn, block.attn.c_proj = (
            linear(block.attn.c_attn),
            linear(block.attn.c_proj),
        )
    measured = scores().measure(Language(network))
    for name in ("copying", "ablation"):
        np.testing.assert_allclose(measured[name], expected[name], atol=1e-5, rtol=0, err_msg=name)
    assert np.ptp(expected["ablation"]) > 1e-3


@pytest.mark.parametrize("multi_query", [True, False])
def test_fused_projections_of_another_order_are_left_out_with_a_warning(tmp_path, multi_query):
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": VOCABULARY, "n_positions": 16}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    network = GPTBigCodeForCausalLM(GPTBigCodeConfig(**shape, **ends, multi_query=multi_query))
    callback = scores()
    with pytest.warns(UserWarning, match="'copying' and 'ablation' are left out"):
        fit(tmp_path, [callback], Language(network), max_steps=1)
    assert not {"copying", "ablation"} & set(callback.scores[0])


def test_it_scores_our_language_models():
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    module = CausalLM(
        vocab_size=VOCABULARY, context_length=LENGTH, config=shape | {"num_attention_heads": 2}
    )
    module.configure_model()
    measured = scores().measure(module)
    assert {len(layers) for name, layers in measured.items() if name != "in_context"} == {2}


def test_it_scores_pytorchs_own_attention_with_the_weights_that_it_uses():
    torch.manual_seed(0)
    module = Language(PytorchsOwn())
    measured = scores(vocab_size=VOCABULARY).measure(module)
    assert [len(layer) for layer in measured["induction"]] == [4, 4]
    assert not any(math.isnan(v) for layer in measured["ablation"] for v in layer)
    assert torch.backends.mha.get_fastpath_enabled()


def test_taking_a_head_out_is_what_a_network_without_it_computes():
    module = Language(own())
    callback = scores()
    measured = callback.measure(module)
    attention = module.network.stack.layers[1].attention
    with torch.no_grad():
        attention.v_proj.weight[:8] = 0  # the first of two heads now writes nothing
    without = callback.measure(module)
    for name in ("previous_token", "induction"):
        assert without[name] == measured[name]
    assert without["ablation"][1][0] == 0
    assert measured["ablation"][1][0] != 0


def test_a_head_that_is_built_to_copy_has_a_copying_score_of_one():
    network = own()
    with torch.no_grad():
        network.unembed.weight.copy_(network.embed.weight)
        for layer in network.stack.layers:
            layer.attention.v_proj.weight.copy_(torch.eye(16))
            layer.attention.o_proj.weight.copy_(torch.eye(16))
        network.stack.layers[1].attention.o_proj.weight.neg_()
    measured = scores().measure(Language(network))["copying"]
    assert measured[0] == pytest.approx([1, 1], abs=1e-3)
    assert measured[1] == pytest.approx([-1, -1], abs=1e-3)


@pytest.mark.scale(plugin="HeadScores", strategy="one device")
def test_the_run_is_bit_for_bit_the_run_without_it(tmp_path):
    ends, states = [], []
    for callbacks in ([], [scores()]):
        end = RecordRandomState()
        module, _ = fit(tmp_path, [*callbacks, end], Language(transformer("gpt2")))
        ends.append([p.detach().clone() for p in module.parameters()])
        states.append(end.state)
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))
    assert torch.equal(*states)


def test_it_measures_before_the_run_at_the_steps_asked_for_and_at_the_end(tmp_path):
    callback = scores(every_n_steps=4)
    _, trainer = fit(tmp_path, [callback], logger=CSVLogger(tmp_path))
    assert callback.steps == [0, 4, 6]
    largest = max(max(layer) for layer in callback.scores[-1]["induction"])
    assert trainer.callback_metrics["heads/induction"] == pytest.approx(largest)
    text = next(tmp_path.rglob("metrics.csv")).read_text()
    for name in ("previous_token", "duplicate_token", "induction", "copying", "ablation"):
        assert f"heads/{name}" in text
    assert "heads/in_context" in text
    assert list(callback.curves()["induction"]) == ["0.0", "0.1", "1.0", "1.1"]
    assert len(callback.curves()["induction"]["1.1"]) == 3


def test_accumulated_batches_are_not_measured_twice(tmp_path):
    callback = scores(every_n_steps=2)
    fit(tmp_path, [callback], accumulate_grad_batches=2, max_steps=4)
    assert callback.steps == [0, 2, 4]


def test_a_resumed_run_has_the_whole_curves(tmp_path):
    def run(max_steps, ckpt_path=None):
        callback = scores()
        keep = ModelCheckpoint(tmp_path / str(max_steps), save_last=True, every_n_train_steps=1)
        module = Language(own())
        module.dropout.p = 0.0  # its random numbers do not come back without ExactResume
        arguments = {"enable_checkpointing": True, "max_steps": max_steps}
        fit(tmp_path, [callback, keep], module, ckpt_path, **arguments)
        return callback

    whole = run(8)
    run(5)
    checkpoint = tmp_path / "5" / "last.ckpt"
    torch.load(checkpoint, weights_only=True)
    resumed = run(8, checkpoint)
    assert resumed.steps == whole.steps == [0, 2, 4, 6, 8]
    assert resumed.scores == whole.scores


def test_a_new_run_begins_anew(tmp_path):
    callback = scores()
    for _ in range(2):
        fit(tmp_path, [callback])
        assert callback.steps == [0, 2, 4, 6]


@pytest.mark.parametrize("logger", [CSVLogger, TensorBoardLogger])
def test_the_heat_map_goes_where_pictures_are_taken_else_to_a_file(tmp_path, logger):
    fit(tmp_path, [scores()], logger=logger(tmp_path))
    assert bool(list(tmp_path.rglob("head_scores.png"))) == (logger is CSVLogger)


def test_without_matplotlib_the_scores_stay(tmp_path, monkeypatch):
    original = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    callback = scores()
    with pytest.warns(UserWarning, match=r'pip install "matplotlib'):
        fit(tmp_path, [callback])
    assert len(callback.scores) == 4


def test_a_module_without_attention_is_refused_with_what_would_do(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"no attention.*attention_patterns"):
        fit(tmp_path, [scores()], Language(nn.Embedding(VOCABULARY, VOCABULARY)))


def test_attention_without_weights_names_the_setting(monkeypatch):
    network = transformer("llama")
    # As where the implementation cannot be changed after loading.
    monkeypatch.setattr(type(network), "set_attn_implementation", lambda self, name: None)
    with pytest.raises(MisconfigurationException, match=r"'sdpa': load it with attn_impl.*'eager'"):
        scores().measure(Language(network))


def test_a_probe_longer_than_the_context_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"period=9: two copies.*16 tokens.*reduce it to 8"):
        fit(tmp_path, [scores(period=9)])


def test_an_unknown_vocabulary_is_asked_for():
    with pytest.raises(MisconfigurationException, match="give HeadScores a vocab_size"):
        scores().measure(Language(PytorchsOwn()))


def test_unknown_projections_leave_out_what_needs_them_with_a_warning(tmp_path):
    class Foreign(nn.Module):
        vocab_size = VOCABULARY

        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(VOCABULARY, VOCABULARY)

        def forward(self, tokens):
            return self.table(tokens)

        def attention_patterns(self, tokens):
            size = tokens.shape[1]
            return [torch.eye(size).roll(-1, 1).expand(len(tokens), 3, size, size)]

    callback = scores()
    with pytest.warns(UserWarning, match="'copying' and 'ablation' are left out"):
        fit(tmp_path, [callback], Language(Foreign()))
    assert set(callback.scores[0]) == {
        *("previous_token", "duplicate_token", "induction", "in_context")
    }


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"every_n_steps": 0}, "every_n_steps=0"),
        ({"period": 1}, "period=1"),
        ({"num_sequences": 0}, "num_sequences=0"),
        ({"vocab_size": 1}, "vocab_size=1"),
        ({"rows": "some"}, "rows='some'"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        HeadScores(**arguments)
