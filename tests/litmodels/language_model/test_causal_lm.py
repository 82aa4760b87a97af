import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from small_language_models import GPT2, GPT_OSS, MIXTRAL, MOE, SMALL, made
from torch.nn.functional import cross_entropy

from lightning_plugins.callbacks import LateSAM, RoutingStats
from lightning_plugins.datamodules import ResumableDataLoader, TokenDataModule
from lightning_plugins.litmodels import CausalLM
from lightning_plugins.litmodels.language_model import causal_lm


@pytest.fixture
def data(tmp_path):
    for part in ("train", "val", "test"):
        (tmp_path / f"{part}.txt").write_text("to be or not to be, that is the question\n" * 60)
    return TokenDataModule(
        str(tmp_path), context_length=16, batch_size=8, data_dir=str(tmp_path / "tokens")
    )


def fitted(tmp_path, data, module, **arguments):
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 4, "log_every_n_steps": 5, **arguments},
    )
    trainer.fit(module, datamodule=data)
    return trainer


@pytest.mark.parametrize(
    ("architecture", "config"), [("llama", SMALL), ("gpt2", GPT2), ("qwen2_moe", MOE)]
)
def test_each_architecture_learns(tmp_path, data, architecture, config):
    module = made(architecture, config)
    trainer = fitted(tmp_path, data, module)
    metrics = trainer.callback_metrics
    assert metrics["val/loss"] < 0.8 * math.log(256)
    assert metrics["val/perplexity"] == pytest.approx(metrics["val/loss"].exp().item())
    bits = metrics["val/loss"] / math.log(2) / data.bytes_per_token["val"]
    assert metrics["val/bits_per_byte"] == pytest.approx(bits.item())
    assert metrics["train/tokens_per_second"] > 0
    if architecture == "qwen2_moe":
        assert metrics["train/auxiliary_loss"] > 0
        assert 1 <= metrics["train/router_max_load"] <= 4


def test_the_loss_is_the_cross_entropy_of_the_next_token():
    module = made()
    windows = torch.randint(256, (3, 17), generator=torch.Generator().manual_seed(0))
    logits = module(windows[:, :-1])
    expected = sum(cross_entropy(logits[:, i], windows[:, i + 1]) for i in range(16)) / 16
    torch.testing.assert_close(module.loss(windows), expected)


def test_the_loss_of_drawn_targets_counts_them_and_is_the_entropy_on_average():
    module = made("llama", SMALL).eval()
    torch.manual_seed(0)
    tokens = torch.randint(256, (2, 9))
    labels = tokens.masked_fill(torch.arange(9) > 5, -100)
    positions = torch.arange(9).expand(2, -1)
    batch = {"input_ids": tokens, "position_ids": positions, "labels": labels}
    assert module.sampled_loss(tokens)[1] == 16
    assert module.sampled_loss(batch)[1] == 10
    logits = module(tokens[:, :-1]).log_softmax(-1)
    entropy = -(logits.exp() * logits).sum(-1).mean()
    drawn = torch.stack([module.sampled_loss(tokens)[0].detach() for _ in range(200)]).mean()
    assert drawn == pytest.approx(entropy.item(), rel=2e-3)


def test_a_token_does_not_attend_to_later_tokens():
    module = made().eval()
    tokens = torch.randint(256, (1, 16), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 10:] = 7
    torch.testing.assert_close(module(tokens)[0, :10], module(changed)[0, :10])


def test_initial_weights_follow_the_papers():
    config = {**SMALL, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 8}
    module = made(config=config)
    deviations = {name: p.std().item() for name, p in module.network.named_parameters()}
    for name, deviation in deviations.items():
        if "norm" in name:
            continue
        scaled = name.endswith(("o_proj.weight", "down_proj.weight"))
        assert deviation == pytest.approx(0.02 / (4 if scaled else 1), rel=0.05), name


HIDDEN = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
RESIDUAL_PROJECTIONS = {
    "llama": (SMALL, ("self_attn.o_proj.weight", "mlp.down_proj.weight")),
    "qwen2_moe": (
        MOE,
        ("self_attn.o_proj.weight", "experts.down_proj", "shared_expert.down_proj.weight"),
    ),
    "mixtral": (MIXTRAL, ("self_attn.o_proj.weight", "experts.down_proj")),
    "gpt2": (GPT2, ()),  # transformers has scaled them
    "gpt_bigcode": (GPT2, ()),
    "nanochat": ({**SMALL, "num_key_value_heads": 2}, ("mlp.fc2.weight",)),
    "gpt_neox": (SMALL, ("attention.dense.weight", "mlp.dense_4h_to_h.weight")),
    "opt": (
        {**HIDDEN, "ffn_dim": 32, "word_embed_proj_dim": 16},
        ("self_attn.out_proj.weight", ".fc2.weight"),
    ),
    "phi": (SMALL, ("self_attn.dense.weight", "mlp.fc2.weight")),
    "gpt_neo": (
        {
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "attention_types": [[["global", "local"], 1]],
        },
        ("attn.attention.out_proj.weight", "mlp.c_proj.weight"),
    ),
    "gptj": (
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "rotary_dim": 4},
        ("attn.out_proj.weight", "mlp.fc_out.weight"),
    ),
    "bloom": (
        {"hidden_size": 16, "n_layer": 2, "n_head": 2},
        ("self_attention.dense.weight", "mlp.dense_4h_to_h.weight"),
    ),
    "starcoder2": (
        {**SMALL, "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0},
        ("self_attn.o_proj.weight", "mlp.c_proj.weight"),
    ),
}


@pytest.mark.parametrize("architecture", RESIDUAL_PROJECTIONS)
def test_residual_scaling_changes_only_the_projections(architecture):
    config, endings = RESIDUAL_PROJECTIONS[architecture]
    scaled = made(architecture, config).network.state_dict()
    plain = made(architecture, config, residual_scaling=False).network.state_dict()
    for ending in endings:
        assert sum(name.endswith(ending) for name in plain) == 2, f"{ending}: one a layer"
    for name, weights in plain.items():
        expected = weights / math.sqrt(4) if name.endswith(endings) else weights
        assert torch.equal(scaled[name], expected), name


def test_residual_scaling_warns_about_unknown_projections():
    with pytest.warns(UserWarning, match=r"no attention and no feed-forward projection of Rwkv"):
        made("rwkv", {"hidden_size": 16, "num_hidden_layers": 2})
    config = {**SMALL, "num_key_value_heads": 2}
    with pytest.warns(UserWarning, match="no feed-forward projection"):
        made("lfm2", {**config, "layer_types": ["full_attention", "full_attention"]})


class EachLoggedThroughput(Callback):
    """The clock advances one second per batch and four more per optimizer step."""

    def __init__(self, monkeypatch):
        self.now, self.seen = 0.0, []
        monkeypatch.setattr(causal_lm, "time", SimpleNamespace(monotonic=lambda: self.now))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.now += 1

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.now += 4

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if "train/tokens_per_second" in trainer.callback_metrics:
            self.seen.append(float(trainer.callback_metrics["train/tokens_per_second"]))


@pytest.mark.parametrize("callbacks", [[], [LateSAM()]], ids=["plain", "two passes"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_throughput_covers_whole_steps(tmp_path, data, monkeypatch, accumulate, callbacks):
    clock = EachLoggedThroughput(monkeypatch)
    fitted(
        tmp_path,
        data,
        made(),
        callbacks=[clock, *callbacks],
        accumulate_grad_batches=accumulate,
        log_every_n_steps=1,
        max_steps=4,
    )
    expected = accumulate * 8 * 16 / (accumulate + 4)
    assert clock.seen == pytest.approx([expected] * len(clock.seen))
    assert clock.seen


@pytest.mark.parametrize("option", ["activation_checkpointing", "compile"])
def test_memory_and_compile_options_do_not_change_the_gradients(option, monkeypatch):
    # The C++ compiler of the default backend may not be there.
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: None)
    plain, other = made(), made(**{option: True})
    windows = torch.randint(256, (2, 17), generator=torch.Generator().manual_seed(0))
    for module in (plain, other):
        module.train()
        module.loss(windows).backward()
    for one, two in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_grouped_experts_match_the_eager_loop():
    losses, gradients = [], []
    for implementation in ("eager", "grouped_mm"):
        module = made("qwen2_moe", MOE)
        module.network.set_experts_implementation(implementation)
        windows = torch.randint(256, (2, 17), generator=torch.Generator().manual_seed(0))
        loss = module.loss(windows)
        loss.backward()
        losses.append(loss)
        gradients.append([p.grad for p in module.parameters()])
    torch.testing.assert_close(*losses)
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "config", "gate"),
    [
        ("qwen2_moe", {**MOE, "norm_topk_prob": False}, "gate"),
        ("qwen2_moe", {**MOE, "norm_topk_prob": True}, "gate"),
        ("mixtral", MIXTRAL, "gate"),
        ("gpt_oss", GPT_OSS, "router"),
    ],
)
def test_the_routing_matches_the_gates(architecture, config, gate):
    module = made(architecture, config).eval()
    said = []
    for layer in module.network.model.layers:
        getattr(layer.mlp, gate).register_forward_hook(lambda *call: said.append(call[2]))
    windows = torch.randint(256, (2, 17), generator=torch.Generator().manual_seed(0))
    assert len(module.routings(windows)) == len(said) == 2
    said.clear()
    for routing, (logits, weights, experts) in zip(module.routings(windows), said, strict=True):
        assert torch.equal(routing.experts, experts)
        torch.testing.assert_close(routing.logits, logits)
        torch.testing.assert_close(routing.weights, weights)


MIXTURES = [("qwen2_moe", MOE), ("mixtral", MIXTRAL), ("gpt_oss", GPT_OSS)]


@pytest.mark.parametrize(("architecture", "config"), MIXTURES)
def test_experts_are_balanced_and_their_routing_is_available(tmp_path, data, architecture, config):
    data.mask_documents = True
    module = made(architecture, config)
    trainer = fitted(
        tmp_path, data, module, callbacks=[RoutingStats()], max_epochs=1, log_every_n_steps=1
    )
    metrics = trainer.callback_metrics
    assert metrics.keys() >= {"routing/max_load_0", "routing/entropy_1"}
    assert metrics["train/auxiliary_loss"] > 0
    assert 1 <= metrics["train/router_max_load"] <= 4


def test_the_configuration_can_disable_the_auxiliary_loss_but_not_the_routing(tmp_path, data):
    module = made("mixtral", {**MIXTRAL, "output_router_logits": False})
    assert len(module.routings(torch.zeros(1, 17, dtype=torch.long))) == 2
    with pytest.warns(UserWarning, match="nothing balances the experts of mixtral"):
        trainer = fitted(tmp_path, data, module, max_steps=1)
    assert "train/auxiliary_loss" not in trainer.callback_metrics


@pytest.mark.parametrize(
    ("architecture", "config", "expected"),
    [
        ("llama", {"hidden_size": 64}, {"intermediate_size": 176, "num_attention_heads": 1}),
        ("gpt2", {"n_embd": 192}, {"n_head": 3}),
        ("opt", {"hidden_size": 96}, {"ffn_dim": 384}),
        ("qwen2_moe", {"hidden_size": 256}, {"moe_intermediate_size": 176}),
        ("mixtral", {"hidden_size": 512, "num_attention_heads": 8}, {"num_key_value_heads": 2}),
        ("llama", {"hidden_size": 64, "intermediate_size": 40}, {"intermediate_size": 40}),
    ],
)
def test_sizes_that_are_not_given_keep_their_ratio_to_the_hidden_size(
    architecture, config, expected
):
    found = CausalLM(architecture, config=config).config
    assert {name: getattr(found, name) for name in expected} == expected


def test_the_end_of_a_document_is_the_end_of_text_also_of_a_loaded_checkpoint(tmp_path, data):
    module = made()
    trainer = fitted(tmp_path, data, module, max_steps=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = CausalLM.load_from_checkpoint(tmp_path / "last.ckpt")
    for one in (module, loaded):
        for part in (one.config, one.network.config, one.network.generation_config):
            assert (part.bos_token_id, part.eos_token_id) == (0, 0)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_an_exported_model_generates_the_same_text_and_stops(tmp_path, tokenizer):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        for number in range(8):
            text = "to be or not to be, café " * 20
            (tmp_path / part / f"{number}.txt").write_text(text[: 100 + number], "utf-8")
    folder = str(tmp_path)
    data = TokenDataModule(folder, tokenizer, 264, 16, data_dir=f"{folder}/tokens")
    module = made(vocab_size=280)
    fitted(tmp_path, data, module, max_steps=2)
    out = tmp_path / "exported"
    module.export(out)
    data.save_tokenizer(out)
    assert not module.network.config.use_cache

    loaded, words = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    tokens = data.val_dataset[0][None, :-1]
    module.eval()
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, module(tokens))
    text = "to be, café"
    end = data.end_of_document
    assert words.eos_token_id == loaded.generation_config.eos_token_id == end
    own = words.encode(text, add_special_tokens=False)
    if tokenizer == "bytes":
        assert own == list(text.encode())
    assert words.decode(own) == text
    with torch.no_grad():
        loaded.lm_head.weight.zero_()  # all logits are equal, and the first token is the end
        generated = loaded.generate(torch.tensor([own]), max_new_tokens=5, do_sample=False)
    assert generated[0].tolist() == [*own, end]


def test_a_model_with_an_unknown_end_of_document_is_not_exported(tmp_path):
    with pytest.raises(ValueError, match="unknown which token ends a document"):
        made().export(tmp_path)


def test_another_end_of_text_than_that_of_the_data_is_refused(tmp_path, data):
    module = made(config={**SMALL, "eos_token_id": 5})
    with pytest.raises(ValueError, match=r"eos_token_id=5: a document .* ends with the token 0"):
        fitted(tmp_path, data, module)


def test_no_token_is_a_padding_token_without_gradient():
    network = made("opt", {**HIDDEN, "ffn_dim": 32, "word_embed_proj_dim": 16}).network
    assert network.get_input_embeddings().padding_idx is None


class SeenWindows(Callback):
    def __init__(self):
        self.windows = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.windows += batch[:, 0].tolist()


@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 1), (2, 2), (6, 1)])
def test_a_run_resumes_with_another_batch_size_at_the_next_window(tmp_path, batch_size, accumulate):
    numbered = torch.randint(200, (40, 17))
    numbered[:, 0] = torch.arange(40)

    def run(size, ckpt_path=None, **options):
        seen = SeenWindows()
        saves = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3, save_top_k=-1)
        quiet = ("logger", "enable_progress_bar", "enable_model_summary")
        trainer = Trainer(
            accelerator="cpu", callbacks=[seen, saves], **dict.fromkeys(quiet, False), **options
        )
        loader = ResumableDataLoader(numbered, size, shuffle=True, seed=1)
        trainer.fit(made(), loader, ckpt_path=ckpt_path)
        return seen.windows

    first = run(4, max_steps=3)
    checkpoint = tmp_path / "step=3.ckpt"
    rest = run(batch_size, checkpoint, max_epochs=2, accumulate_grad_batches=accumulate)
    windows = first + rest
    assert sorted(windows[:40]) == sorted(windows[40:]) == list(range(40))


def test_data_with_more_tokens_than_the_network_has_is_refused(tmp_path, data):
    module = CausalLM(vocab_size=100, context_length=16, config=SMALL)
    with pytest.raises(ValueError, match="vocab_size=100: TokenDataModule has 256 tokens"):
        fitted(tmp_path, data, module)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"vocab_size": 1}, "vocab_size=1"),
        ({"context_length": 1}, "context_length=1"),
        ({"initializer_range": 0}, "initializer_range=0"),
        ({"architecture": "llamma"}, "llamma"),
        ({"architecture": "gpt_neo", "config": {"num_layers": 2}}, "config: gpt_neo .*num_layers"),
    ],
)
def test_errors_name_the_invalid_argument(arguments, named):
    with pytest.raises(ValueError, match=named):
        CausalLM(**arguments)


@pytest.mark.parametrize("architecture", ["bert", "electra"])
def test_an_encoder_that_attends_to_later_tokens_is_refused(architecture):
    sizes = {**SMALL, "num_hidden_layers": 1}
    with pytest.raises(ValueError, match=f"'{architecture}'.*later tokens.*is_decoder: true"):
        CausalLM(architecture, 64, 16, sizes).configure_model()
    CausalLM(architecture, 64, 16, {**sizes, "is_decoder": True}).configure_model()


def test_windows_longer_than_the_context_are_refused(tmp_path, data):
    module = CausalLM(context_length=8, config=SMALL)
    with pytest.raises(ValueError, match=r"context_length=8: the windows have 16 targets"):
        fitted(tmp_path, data, module)
    with pytest.raises(ValueError, match=r"context_length=16: the windows have 32 targets"):
        made().loss(torch.zeros(2, 33, dtype=torch.int64))
