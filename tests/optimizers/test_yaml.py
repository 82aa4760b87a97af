"""Optimizers in YAML work with every common way of configuring a LightningModule."""

import functools
import sys

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI

from lightning_plugins.__main__ import main
from lightning_plugins.callbacks import ParameterNames
from lightning_plugins.cli import PluginCLIMixin
from lightning_plugins.optimizers import BlockwiseAdamW, GradPower

STRANGER = """
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import nn
from torch.utils.data import DataLoader


class Data(LightningDataModule):
    def train_dataloader(self):
        generator = torch.Generator().manual_seed(1)
        return DataLoader(torch.randint(9, (12, 6), generator=generator), batch_size=4)


class Model(LightningModule):
    "Of somebody who does not know this package; its optimizer is the command line's."

    def __init__(self, unusual: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.embed_tokens = nn.Embedding(9, 4)
        self.norm = nn.LayerNorm(4)
        self.unusual = nn.Linear(4, 4) if unusual else nn.Identity()
        self.lm_head = nn.Linear(4, 9, bias=False)

    def training_step(self, tokens, batch_idx):
        logits = self.lm_head(self.unusual(self.norm(self.embed_tokens(tokens[:, :-1]))))
        return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


class TakesOptimizer(Model):
    def __init__(self, optimizer: OptimizerCallable = torch.optim.AdamW):
        super().__init__()
        self.optimizer = optimizer

    def configure_optimizers(self):
        return self.optimizer(self.parameters())


class TakesPartial(Model):
    "As the templates for Hydra have it."

    def __init__(self, optimizer):
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["optimizer"])
        self.optimizer = optimizer

    def configure_optimizers(self):
        return {"optimizer": self.optimizer(params=self.trainer.model.parameters())}


class MakesList(TakesOptimizer):
    def configure_optimizers(self):
        return self.optimizer([p for p in self.parameters() if p.requires_grad])
"""

QUIET = {
    "accelerator": "cpu",
    "max_steps": 3,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
NAMES = "lightning_plugins.callbacks.ParameterNames"
BLOCKWISE = {
    "class_path": "lightning_plugins.optimizers.BlockwiseAdamW",
    "init_args": {"lr": 0.01, "multipliers": {"head": 2.0}},
}
BOTH = {
    "class_path": "lightning_plugins.optimizers.GradPower",
    "init_args": {"p": 1.3, "base": BLOCKWISE},
}
OPTIMIZERS = {"blockwise": BLOCKWISE, "gradpower of blockwise": BOTH}


def factory_of(config):
    """The Python equivalent of the YAML."""
    blockwise = functools.partial(BlockwiseAdamW, **BLOCKWISE["init_args"])
    return functools.partial(GradPower, base=blockwise, p=1.3) if config is BOTH else blockwise


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """The current directory, with a module ``stranger``."""
    (tmp_path / "stranger.py").write_text(STRANGER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    import stranger

    return stranger


class OurCLI(PluginCLIMixin, LightningCLI):
    pass


def fitted(cli_class, config, **trainer):
    """Return the module trained by ``fit --config``, and its optimizer."""
    with open("config.yaml", "w") as file:
        yaml.safe_dump({**config, "data": "stranger.Data", "trainer": {**QUIET, **trainer}}, file)
    cli = cli_class(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=None,
        args=["fit", "--config", "config.yaml"],
    )
    return cli.model, cli.trainer.optimizers[0]


def is_as_written_in_python(model, optimizer, stranger, config):
    """Check that groups, rates and all weights equal those of a loop without Lightning."""
    reference = stranger.Model()
    by_hand = factory_of(config)(reference.named_parameters())
    for tokens in stranger.Data().train_dataloader():
        by_hand.zero_grad()
        reference.training_step(tokens, 0).backward()
        by_hand.step()
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {"embedding": 0.1, "norm": 0.01, "head": 0.02}
    pairs = zip(model.parameters(), reference.parameters(), strict=True)
    return type(optimizer) is type(by_hand) and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("config", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("cli_class", [OurCLI, LightningCLI])
def test_the_optimizer_of_a_command_line(stranger, cli_class, config):
    model = {"class_path": "stranger.Model"}
    found = fitted(cli_class, {"model": model, "optimizer": config})
    assert is_as_written_in_python(*found, stranger, config)


@pytest.mark.parametrize("config", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("cli_class", [OurCLI, LightningCLI])
def test_an_optimizer_callable_of_a_third_party_module(stranger, cli_class, config):
    model = {"class_path": "stranger.TakesOptimizer", "init_args": {"optimizer": config}}
    assert is_as_written_in_python(*fitted(cli_class, {"model": model}), stranger, config)


@pytest.mark.parametrize("config", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_partial_created_by_hydra(stranger, tmp_path, config):
    model = stranger.TakesPartial(factory_of(config))
    trainer = Trainer(default_root_dir=tmp_path, **QUIET)
    trainer.fit(model, stranger.Data())
    assert is_as_written_in_python(model, trainer.optimizers[0], stranger, config)


@pytest.mark.scale(plugin="ParameterNames", strategy="one device")
@pytest.mark.parametrize("config", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_one_callback_is_enough_for_a_module_that_passes_a_list(stranger, config):
    model = {"class_path": "stranger.MakesList", "init_args": {"optimizer": config}}
    with pytest.raises(ValueError, match=ParameterNames.__name__):
        fitted(LightningCLI, {"model": model})
    found = fitted(LightningCLI, {"model": model}, callbacks=[{"class_path": NAMES}])
    assert is_as_written_in_python(*found, stranger, config)


POWER = ["--optimizer=AdamWPower"]
BLOCKS = ["--optimizer=BlockwiseAdamW"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([*POWER, "--optimizer.p=0"], "p=0.0: expected a finite exponent > 0"),
        ([*POWER, "--optimizer.p=x"], "optimizer.p: expected a number, got 'x'"),
        ([*POWER, "--optimizer.floor=-1"], "floor=-1.0: expected a finite number >= 0"),
        (["--optimizer=AdamWPowr"], "did you mean AdamWPower"),
        (
            ["--optimizer=GradPower", "--optimizer.p=2", "--optimizer.base=torch.optim.LBFGS"],
            "base_cls=LBFGS evaluates its closure more than once per step",
        ),
        (
            [*BLOCKS, "--optimizer.multipliers={embeddings: 3}"],
            "multipliers has 'embeddings', which is not a block: expected embedding, ",
        ),
        (
            [*BLOCKS, "--optimizer.multipliers={qk: 3}"],
            "multipliers has 'qk', but BlockwiseAdamW received no such parameter; it has ",
        ),
        (
            [*BLOCKS, "--optimizer.multipliers={norm: 0}"],
            "multipliers['norm']=0.0: expected a finite number > 0",
        ),
        (
            [*BLOCKS, "--optimizer.patterns={expert: ffn}"],
            "patterns['expert'] matches none of the 4 parameters, such as 'embed_tokens.weight'",
        ),
        (
            [*BLOCKS, "--model.unusual=true"],
            "does not know the block of 2 parameters: unusual.weight, unusual.bias; name it, for",
        ),
        (
            ["--model=stranger.MakesList", "--model.optimizer=BlockwiseAdamW"],
            "add lightning_plugins.callbacks.ParameterNames to the Trainer's callbacks",
        ),
        (
            [*BLOCKS, "--lr_scheduler=BlockwiseSchedule", "--lr_scheduler.floor=1"],
            "floor=1.0 is above the optimizer's lr=0.001",
        ),
    ],
)
def test_a_user_error_is_reported_in_one_line(stranger, capsys, options, told):
    quiet = [f"--trainer.{name}={str(value).lower()}" for name, value in QUIET.items()]
    code = main(["fit", "--model=stranger.Model", "--data=stranger.Data", *options, *quiet])
    said = capsys.readouterr().err
    assert told in said
    assert said.startswith("lightning-plugins: ")
    assert said.count("\n") == 1
    assert code == 2


def test_the_pattern_suggested_by_an_error_works(stranger):
    model = stranger.Model(unusual=True)
    with pytest.raises(ValueError, match=r"patterns=\{'unusual\\\\.weight': 'ffn'\}"):
        BlockwiseAdamW(model.parameters())
    optimizer = BlockwiseAdamW(model.parameters(), patterns={"unusual": "ffn"})
    names = {group["name"]: group["param_names"] for group in optimizer.param_groups}
    assert names["ffn"] == ["unusual.weight", "unusual.bias"]
