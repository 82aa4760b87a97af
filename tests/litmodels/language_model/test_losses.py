"""Chunked loss, z-loss, and the losses that balance experts."""

import subprocess
import sys
import textwrap

import pytest
import torch
from lightning.pytorch import Trainer
from small_language_models import GPT2, MIXTRAL, MOE, SMALL, made
from torch.nn.functional import cross_entropy, softplus
from torch.utils.data import DataLoader

from lightning_plugins.litmodels import CausalLM
from lightning_plugins.litmodels.language_model import ExpertBalancing, losses
from lightning_plugins.nn.moe import Routing, load_balancing_loss
from lightning_plugins.nn.moe.routing_statistics import probabilities, sequence_balancing_loss

WINDOWS = torch.randint(256, (4, 17), generator=torch.Generator().manual_seed(0))
LABELS = WINDOWS.masked_fill(torch.arange(17) % 5 == 2, -100)
MASKED = {
    "input_ids": WINDOWS,
    "position_ids": torch.arange(17).expand(4, -1),
    "labels": LABELS,
}
GEMMA = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 3.0}
GRANITE = {**SMALL, "num_key_value_heads": 2, "logits_scaling": 4.0}


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(losses, "_LOGITS_PER_CHUNK", 256 * 10)
    monkeypatch.setattr(losses, "_FEWEST_TOKENS", 1)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("batch", [WINDOWS, MASKED], ids=["plain", "masked"])
@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("llama", {**SMALL, "tie_word_embeddings": True}),
        ("gpt2", GPT2),
        ("mixtral", MIXTRAL),
        ("gemma2", GEMMA),
        ("granite", GRANITE),
        ("cohere", {**SMALL, "logit_scale": 0.3}),
    ],
)
def test_the_chunked_loss_and_its_gradients_equal_the_plain_ones(architecture, config, batch):
    found = []
    for chunked in (False, True):
        network = made(architecture, config, chunked_loss=chunked).network.eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(3)  # logits for which a bound or a factor matters
        loss = losses.token_loss(network, batch, chunked, with_z=True)
        (loss.cross_entropy + 0.1 * loss.squared_log_partition).backward()
        found.append((loss, [p.grad for p in network.parameters()]))
    (plain, expected), (chunked, gradients) = found
    torch.testing.assert_close(chunked.cross_entropy, plain.cross_entropy)
    torch.testing.assert_close(chunked.squared_log_partition, plain.squared_log_partition)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    if architecture == "mixtral":
        torch.testing.assert_close(chunked.output.aux_loss, plain.output.aux_loss)


def test_an_unknown_operation_after_the_head_is_refused():
    network = made().network
    head = network.get_output_embeddings()
    require = losses.require_chunked_loss
    require(network)
    network.lm_head.register_forward_hook(lambda module, arguments, output: output)
    require(network)
    original = network.forward

    def doubled(*arguments, logits_to_keep=0, **options):
        output = original(*arguments, logits_to_keep=logits_to_keep, **options)
        output.logits = 2 * output.logits
        return output

    network.forward = doubled
    with pytest.raises(ValueError, match="in a way that is not known"):
        require(network)
    assert network.get_output_embeddings() is head


def test_the_z_loss_is_the_mean_squared_log_partition_of_the_targets():
    module = made(z_loss=0.5)
    logits = module(WINDOWS[:, :-1])
    wanted = LABELS[:, 1:]
    used = wanted >= 0
    squares = logits.logsumexp(-1).square()[used].mean()
    loss = cross_entropy(logits[used], wanted[used])
    found = losses.token_loss(module.network, MASKED, False, with_z=True)
    torch.testing.assert_close(found.squared_log_partition, squares)
    torch.testing.assert_close(found.cross_entropy, loss)
    module.log = lambda *arguments, **options: None
    torch.testing.assert_close(module.training_step(MASKED, 0), loss + 0.5 * squares)


def collapsed(layer, top_k=1, tokens=32, experts=4):
    """All tokens of a layer go to one expert of its own."""
    logits = torch.full((tokens, experts), -20.0)
    logits[:, layer] = 20.0
    weights, chosen = logits.softmax(-1).topk(top_k)
    return Routing(logits, chosen, weights)


def test_layers_that_each_collapsed_on_their_own_expert_are_not_balanced():
    routings = [collapsed(layer) for layer in range(4)]
    found = ExpertBalancing(load=1.0).losses(routings, 4)
    assert found["auxiliary_loss"] == pytest.approx(4.0)


def test_the_load_loss_of_one_layer_equals_that_of_transformers():
    config = {**MIXTRAL, "num_hidden_layers": 1}
    module = made("mixtral", config)
    output = module.network(WINDOWS[:, :-1])
    found = ExpertBalancing(load=1.0).losses(module.routings(WINDOWS), 4)
    torch.testing.assert_close(found["auxiliary_loss"], output.aux_loss)


def test_the_kind_of_scores_is_recognized_by_their_weights():
    logits = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    _, chosen = logits.topk(3)
    for score in (logits.softmax(-1), logits.sigmoid(), softplus(logits).sqrt()):
        weights = 2.5 * score.gather(1, chosen)
        expected = score / score.sum(-1, keepdim=True)
        torch.testing.assert_close(probabilities(Routing(logits, chosen, weights)), expected)


def test_the_sequence_loss_is_the_mean_of_the_loss_of_each_sequence():
    logits = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
    weights, chosen = logits.softmax(-1).topk(2)
    parts = [Routing(*(p[i : i + 8] for p in (logits, chosen, weights))) for i in (0, 8, 16)]
    expected = torch.stack([load_balancing_loss(part) for part in parts]).mean()
    found = sequence_balancing_loss(Routing(logits, chosen, weights), 3)
    torch.testing.assert_close(found, expected)


def quiet(folder, **arguments):
    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    usual = {"accelerator": "cpu", "default_root_dir": folder, **dict.fromkeys(names, False)}
    return Trainer(**{**usual, **arguments})


def test_all_balancing_losses_are_logged_and_added(tmp_path):
    balancing = ExpertBalancing(load=0.5, sequence=0.25, router_z=0.125)
    module = made("qwen2_moe", MOE, balancing=balancing)
    trainer = quiet(tmp_path, max_steps=1)
    trainer.fit(module, DataLoader(WINDOWS, 4))
    metrics = {name.removeprefix("train/"): v for name, v in trainer.callback_metrics.items()}
    names = ("auxiliary_loss", "sequence_balancing_loss", "router_z_loss")
    assert {*names, "router_max_load"} <= metrics.keys()
    total = 0.5 * metrics[names[0]] + 0.25 * metrics[names[1]] + 0.125 * metrics[names[2]]
    torch.testing.assert_close(balancing.total({n: metrics[n] for n in names}), total)


def test_a_coefficient_of_zero_is_warned_of(tmp_path):
    module = made("mixtral", {**MIXTRAL, "router_aux_loss_coef": 0.0})
    with pytest.warns(UserWarning, match="nothing balances the experts of mixtral"):
        quiet(tmp_path, max_steps=1).fit(module, DataLoader(WINDOWS, 4))


def test_a_compiled_network_is_balanced_and_not_compiled_again_in_each_step(tmp_path, monkeypatch):
    graphs, weights, logged = [], [], []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: original(self, backend=backend))
    for options in ({}, {"compile": True}):
        balancing = ExpertBalancing(load=0.5, sequence=0.25)
        module = made("qwen2_moe", MOE, balancing=balancing, **options)
        trainer = quiet(tmp_path, max_steps=4, limit_val_batches=1)
        trainer.fit(module, DataLoader(WINDOWS, 4), DataLoader(WINDOWS, 4))
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
        logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    torch.testing.assert_close(*weights)
    assert logged[1] == pytest.approx(logged[0])
    assert "train/sequence_balancing_loss" in logged[1]
    assert len(graphs) == 2  # validation and training
    assert len(module.routings(WINDOWS)) == 2
    assert len(graphs) == 2


def test_errors_name_the_option():
    with pytest.raises(ValueError, match=r"z_loss=-1"):
        CausalLM(z_loss=-1.0)
    with pytest.raises(ValueError, match=r"balancing.load=-1"):
        ExpertBalancing(load=-1)


PEAK = """
import resource, sys, torch
from lightning_plugins.litmodels import CausalLM
from lightning_plugins.litmodels.language_model.losses import token_loss
chunked = sys.argv[1] == "chunked"
config = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
module = CausalLM("llama", 50304, 256, config, chunked_loss=chunked)
module.configure_model()
windows = torch.randint(50304, (4, 257))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
token_loss(module.network, windows, chunked, False).cross_entropy.backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_large_vocabulary_needs_much_less_memory_with_the_chunked_loss():
    peaks = []
    for kind in ("plain", "chunked"):
        command = [sys.executable, "-c", textwrap.dedent(PEAK), kind]
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        peaks.append(int(run.stdout))
    assert peaks[1] < 0.6 * peaks[0], peaks


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("architecture", "config"), [("llama", SMALL), ("gpt2", GPT2)])
def test_embeddings_and_norms_stay_in_single_precision(tmp_path, architecture, config, tied):
    module = CausalLM(
        architecture,
        context_length=16,
        config={**config, "tie_word_embeddings": tied},
        float32_embeddings_and_norms=True,
        optimizer=lambda p: torch.optim.SGD(p, lr=1e-3),
    )
    trainer = quiet(tmp_path, max_steps=2, precision="bf16-true", gradient_clip_val=1.0)
    trainer.fit(module, DataLoader(WINDOWS, 4))
    for name, parameter in module.network.named_parameters():
        kept = any(part in name for part in ("norm", "ln_", "embed", "wte", "wpe"))
        assert parameter.dtype == (torch.float32 if kept else torch.bfloat16), name
    norms = [p for n, p in module.network.named_parameters() if "norm" in n or "ln_" in n]
    assert any(not torch.equal(p, p.bfloat16().float()) for p in norms)  # below bf16's resolution
    whole = made(architecture, {**config, "tie_word_embeddings": tied})
    whole.load_state_dict({n: value.float() for n, value in module.state_dict().items()})
    with torch.no_grad():
        logits = module.eval()(WINDOWS[:, :-1]).float()
        torch.testing.assert_close(logits, whole.eval()(WINDOWS[:, :-1]), atol=0.01, rtol=0.02)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = CausalLM.load_from_checkpoint(tmp_path / "last.ckpt").network.state_dict()
    for name, value in module.network.state_dict().items():
        assert torch.equal(loaded[name], value.to(loaded[name].dtype)), name
