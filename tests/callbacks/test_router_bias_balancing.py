"""RouterBiasBalancing: its rule, its counts, and a collapsed router that recovers."""

import warnings
from functools import partial
from itertools import pairwise

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from lightning_plugins.callbacks import RouterBiasBalancing, RoutingStats
from lightning_plugins.datamodules import TokenDataModule
from lightning_plugins.litmodels import CausalLM
from lightning_plugins.nn.moe import routers
from lightning_plugins.nn.moe.routers import find_routers, selection_bias
from lightning_plugins.optimizers import WarmupStableDecay
from lightning_plugins.recipes import load_recipe
from lightning_plugins.strategies import SimulatedDecentralizedStrategy

DEEPSEEK = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 16,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 8,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}
TOKENS = torch.randint(64, (64, 17), generator=torch.Generator().manual_seed(0))


def language_model(**changes):
    torch.manual_seed(0)
    module = CausalLM("deepseek_v3", 64, 16, {**DEEPSEEK, **changes})
    module.configure_model()
    return module


def no_training(parameters):
    return torch.optim.SGD(parameters, lr=0.0)


def fitted(module, *callbacks, batch_size=8, ckpt_path=None, **options):
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        **{"max_steps": 1, "log_every_n_steps": 1, **dict.fromkeys(quiet, False), **options},
    )
    trainer.fit(module, DataLoader(TOKENS, batch_size), ckpt_path=ckpt_path)
    return trainer


def biases(module):
    found = [selection_bias(module, name) for name in find_routers(module)]
    return [bias for bias in found if bias is not None]


def loads_before_training(module, tokens):
    with torch.no_grad():
        routings = module.routings(tokens)
    return [torch.bincount(r.experts.flatten(), minlength=16).float() for r in routings]


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_step_moves_each_bias_by_the_sign_of_the_missing_load(accumulate):
    module = language_model()
    tokens = TOKENS[: 8 * accumulate]
    expected = [
        0.01 * (load.mean() - load).sign() for load in loads_before_training(module, tokens)
    ]
    trainer = fitted(module, RouterBiasBalancing(0.01), accumulate_grad_batches=accumulate)
    (own,) = biases(module)
    torch.testing.assert_close(own, expected[0])
    assert trainer.callback_metrics["routing/max_violation"] > 0


def test_in_half_precision_small_steps_add_up_also_after_resuming(tmp_path):
    def run(steps, bias=0.6, **options):
        balancing = RouterBiasBalancing(0.001)
        torch.manual_seed(0)
        module = CausalLM("deepseek_v3", 64, 16, DEEPSEEK, optimizer=no_training)

        class Start(Callback):
            def on_train_start(self, trainer, pl_module):
                if bias is not None:
                    biases(pl_module)[0].fill_(bias)

        options = {"precision": "bf16-true", "max_steps": steps, "max_epochs": 99, **options}
        trainer = fitted(module, Start(), balancing, batch_size=64, **options)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return biases(module)[0]

    moved = run(16)
    assert moved.dtype == torch.bfloat16  # whose next numbers above and below 0.6 are 0.004 away
    assert (moved != torch.tensor(0.6).bfloat16()).sum() >= 8
    run(8)
    assert torch.equal(run(16, bias=None, ckpt_path=tmp_path / "last.ckpt"), moved)


def test_the_speed_falls_to_0_at_the_end_of_the_run():
    module, seen = language_model(), []

    class Moves(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(biases(pl_module)[0].clone())

    fitted(module, RouterBiasBalancing(0.1, decay=0.5), Moves(), max_steps=8)
    moves = [(b - a).abs().max() for a, b in pairwise([torch.zeros(16), *seen])]
    assert moves == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.075, 0.05, 0.025, 0], abs=1e-6)
    with pytest.raises(ValueError, match=r"decay=0.5 is a fraction of a run without an end"):
        fitted(module, RouterBiasBalancing(decay=0.5), max_steps=-1, max_epochs=-1)
    with pytest.raises(ValueError, match="decay=2: expected a fraction"):
        RouterBiasBalancing(decay=2)


def test_a_validation_is_not_counted():
    one, other = language_model(), language_model()
    fitted(one, RouterBiasBalancing())
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[RouterBiasBalancing()],
        max_steps=1,
        **dict.fromkeys(quiet, False),
    )
    trainer.fit(other, DataLoader(TOKENS, 8), DataLoader(TOKENS, 8))
    assert torch.equal(*(biases(module)[0] for module in (one, other)))


class Violation(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if "routing/max_violation" in trainer.callback_metrics:
            self.seen.append(float(trainer.callback_metrics["routing/max_violation"]))


@pytest.mark.slow
def test_a_router_collapsed_on_two_of_16_experts_recovers_without_an_auxiliary_loss():
    module = language_model()
    (bias,) = biases(module)
    bias[:2] += 1  # scores are between 0 and 1
    violation = Violation()
    fitted(
        module, RouterBiasBalancing(0.005), violation, max_steps=300, batch_size=64, max_epochs=-1
    )
    assert violation.seen[0] == pytest.approx(7)
    assert max(violation.seen[-10:]) <= 0.2


@pytest.mark.slow
def test_a_collapsed_router_recovers_on_the_data_of_the_tiny_recipe(tmp_path):
    init = load_recipe("language_model/tiny")["model"]["init_args"]
    config = {**DEEPSEEK, **init["config"], "moe_intermediate_size": 32}
    config |= {"qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 32}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    torch.manual_seed(0)
    module = CausalLM(
        "deepseek_v3",
        256,
        128,
        config,
        optimizer=lambda p: torch.optim.AdamW(p, **init["optimizer"]["init_args"]),
        lr_scheduler=partial(WarmupStableDecay, **init["lr_scheduler"]["init_args"]),
    )
    module.configure_model()
    (bias,) = biases(module)
    bias[:2] += 1
    violation = Violation()
    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = Trainer(
        accelerator="cpu",
        max_steps=300,
        limit_val_batches=50,
        val_check_interval=300,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        default_root_dir=tmp_path,
        callbacks=[RouterBiasBalancing(0.01, decay=0.3), RoutingStats(), violation],
        **dict.fromkeys(names, False),
    )
    trainer.fit(module, datamodule=TokenDataModule())
    assert violation.seen[0] > 6
    found = trainer.callback_metrics
    windows = found["routing/max_violation"], found["routing/max_violation_batch"]
    print(f"last 50 steps {windows[0]:.3f}, last step {windows[1]:.3f}")
    print(f"validation (MaxVio_global) {found['routing/max_load_0'] - 1:.3f}")
    assert violation.seen[-1] <= 0.2
    assert found["routing/max_load_0"] - 1 <= 0.2


def test_the_violation_is_that_of_all_steps_since_the_last_logged_one():
    module = language_model()
    expected = sum(
        load for n in range(4) for load in loads_before_training(module, TOKENS[8 * n : 8 * n + 8])
    )
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=1e-12)
    trainer = fitted(module, RouterBiasBalancing(1e-12), max_steps=4, log_every_n_steps=4)
    found = trainer.callback_metrics["routing/max_violation"]
    torch.testing.assert_close(found, expected.max() / expected.mean() - 1)
    (last,) = loads_before_training(module, TOKENS[24:32])
    found = trainer.callback_metrics["routing/max_violation_batch"]
    torch.testing.assert_close(found, last.max() / last.mean() - 1)


def test_a_checkpoint_contains_the_biases():
    module = language_model()
    fitted(module, RouterBiasBalancing())
    other = language_model()
    other.load_state_dict(module.state_dict())
    assert torch.equal(*(biases(one)[0] for one in (module, other)))
    assert biases(other)[0].any()


def test_training_without_any_balancing_warns_once():
    def texts(*callbacks):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted(language_model(), *callbacks, max_steps=3)
        return [str(w.message) for w in caught if "balances the experts" in str(w.message)]

    assert len(texts()) == 1
    assert texts(RouterBiasBalancing()) == []


def test_routers_without_a_bias_are_refused():
    config = {"hidden_size": 16, "num_local_experts": 4, "num_hidden_layers": 1}
    module = CausalLM("mixtral", 64, 16, config)
    with pytest.raises(MisconfigurationException, match="no router of CausalLM has a selection"):
        fitted(module, RouterBiasBalancing())


def test_a_router_whose_output_has_an_unknown_form_is_refused_at_the_first_step(monkeypatch):
    module = language_model()
    (name,) = find_routers(module)
    monkeypatch.setattr(routers, "routing_of", lambda router, output: None)
    with pytest.raises(MisconfigurationException, match=f"no selection of the router '{name}'"):
        fitted(module, RouterBiasBalancing())


def test_agents_of_decentralized_training_are_refused():
    trainer = Trainer(accelerator="cpu", strategy=SimulatedDecentralizedStrategy(2), logger=False)
    with pytest.raises(MisconfigurationException, match="SimulatedDecentralizedStrategy"):
        RouterBiasBalancing().check(trainer)


def test_a_speed_of_zero_is_refused():
    with pytest.raises(ValueError, match="speed=0"):
        RouterBiasBalancing(0)
