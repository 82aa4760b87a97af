"""Names of parameters for every way of passing them to an optimizer."""

import gc

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from lightning_plugins.callbacks import ParameterNames
from lightning_plugins.optimizers import BlockwiseAdamW, register_names
from lightning_plugins.optimizers.parameter_names import named_parameters_of, plain_name


def model():
    return nn.ModuleDict({"norm": nn.LayerNorm(2), "lm_head": nn.Linear(2, 2)})


NAMES = ["norm.weight", "norm.bias", "lm_head.weight", "lm_head.bias"]


@pytest.mark.parametrize(
    "hand_over",
    [
        lambda m: m.named_parameters(),
        lambda m: m.parameters(),
        lambda m: list(m.named_parameters()),
        lambda m: iter(list(m.named_parameters())),
    ],
)
def test_names_are_found(hand_over):
    net = model()
    assert [one.name for one in named_parameters_of(hand_over(net), "Test")] == NAMES


def test_owners_are_found_with_the_module():
    net = model()
    for params in (net.parameters(), net.named_parameters()):
        owners = [one.owner for one in named_parameters_of(params, "Test")]
        assert owners == [net["norm"]] * 2 + [net["lm_head"]] * 2


def test_names_of_bare_parameters_are_found_after_registering_their_module():
    net = model()
    with pytest.raises(ValueError, match=r"named_parameters\(\).*ParameterNames"):
        named_parameters_of(list(net.parameters()), "Test")
    register_names(net)
    assert [one.name for one in named_parameters_of(list(net.parameters()), "Test")] == NAMES
    parameters = list(net.parameters())
    del net
    gc.collect()
    with pytest.raises(ValueError, match="requires parameter names"):
        named_parameters_of(parameters, "Test")


@pytest.mark.parametrize(
    ("wrapped", "plain"),
    [
        ("module.layer.weight", "layer.weight"),
        ("_orig_mod.module.layer.weight", "layer.weight"),
        ("a._fsdp_wrapped_module.b._checkpoint_wrapped_module.c", "a.b.c"),
        ("my_module.weight", "my_module.weight"),
        ("network.module_list.0", "network.module_list.0"),
    ],
)
def test_prefixes_of_wrappers_are_removed(wrapped, plain):
    assert plain_name(wrapped) == plain


def test_compiled_modules_keep_their_names():
    compiled = torch.compile(model())
    assert [one.name for one in named_parameters_of(compiled.parameters(), "Test")] == NAMES


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ([], "no parameters"),
        ([{"params": [nn.Parameter(torch.ones(1))]}], "its own parameter groups"),
        ([("a", nn.Parameter(torch.ones(1))), ("a", nn.Parameter(torch.ones(1)))], "named 'a'"),
    ],
)
def test_invalid_lists_raise_an_error(params, message):
    with pytest.raises(ValueError, match=message):
        named_parameters_of(params, "Test")


def test_a_parameter_given_twice_raises_an_error():
    weight = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=r"'b' twice.*tied"):
        named_parameters_of([("a", weight), ("b", weight)], "Test")


class Listed(LightningModule):
    """Passes a list, which has no names."""

    def configure_model(self):
        if not hasattr(self, "net"):
            self.net = model()

    def training_step(self, batch, batch_idx):
        return self.net["lm_head"](self.net["norm"](batch)).square().mean()

    def configure_optimizers(self):
        return BlockwiseAdamW([p for p in self.parameters() if p.requires_grad])


def fit(callbacks, tmp_path):
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_steps=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, callbacks=callbacks,
    )  # fmt: skip
    trainer.fit(Listed(), DataLoader(torch.randn(4, 2)))
    return trainer.optimizers[0]


def test_the_callback_registers_parameters_created_by_configure_model(tmp_path):
    with pytest.raises(ValueError, match="ParameterNames"):
        fit([], tmp_path)
    optimizer = fit([ParameterNames()], tmp_path)
    assert [group["name"] for group in optimizer.param_groups] == ["norm", "head"]
    assert optimizer.param_groups[0]["param_names"] == ["net.norm.weight", "net.norm.bias"]
