"""One test for all LightningModules: checkpoints are plain data, and hostile ones are refused."""

import os
import pickle

import pytest
import torch
from lightning.pytorch import Trainer
from marker_corpus import SMALL_SCRN, TINY, MarkerData

from lightning_plugins import litmodels
from lightning_plugins.__main__ import main
from lightning_plugins.datamodules import (
    ChangeCaptionDataModule,
    DigitsDataModule,
    InductionMixtureDataModule,
    InteractionDataModule,
    ManifoldDataModule,
    MarkovChainDataModule,
    RepeatedSequenceDataModule,
    TokenDataModule,
)


def letters(tmp_path):
    for part in ("train", "val"):
        (tmp_path / f"{part}.txt").write_text("to be or not to be " * 40)
    return TokenDataModule(str(tmp_path), context_length=8, data_dir=str(tmp_path / "tokens"))


def walks(tmp_path):
    rows = [f"{user},{item},{item}" for user in range(4) for item in range(6)]
    (tmp_path / "walks.csv").write_text("\n".join(["user,item,timestamp", *rows]))
    source = str(tmp_path / "walks.csv")
    return InteractionDataModule(source, min_item_count=1, max_length=4, batch_size=2)


# A small instance of every public LightningModule and data that it trains on, if it trains.
SMALL = {
    "AITextDetector": (
        {"method_options": SMALL_SCRN, **TINY},
        lambda tmp_path: MarkerData(),
    ),
    "CausalLM": (
        {
            "context_length": 8,
            "config": {
                "hidden_size": 8,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
            },
        },
        letters,
    ),
    "ChangeCaptioner": (
        {"max_new_tokens": 2},
        lambda tmp_path: ChangeCaptionDataModule(
            batch_size=2, num_train=4, num_val=1, num_test=1, data_dir=str(tmp_path)
        ),
    ),
    "InContextMarkov": (
        {"dim": 8},
        lambda tmp_path: MarkovChainDataModule(length=8, batch_size=4),
    ),
    "InContextRepeats": (
        {"dim": 8},
        lambda tmp_path: RepeatedSequenceDataModule(length=12, max_period=8, batch_size=4),
    ),
    "InductionMixture": (
        {"stage": "joint", "sigma_init": 0.1},
        lambda tmp_path: InductionMixtureDataModule(length=8, batch_size=4),
    ),
    "InductionRegression": (
        {"dim": 2, "width": 8},
        lambda tmp_path: InductionMixtureDataModule(length=8, dim=2, batch_size=4),
    ),
    "ImageClassifier": (
        {"network": "mlp", "in_channels": 1, "image_size": 8},
        lambda tmp_path: DigitsDataModule(),
    ),
    "SequentialRecommender": (
        {"dim": 4, "layers": 1, "max_length": 4},
        walks,
    ),
    "InfluencePathPlanner": ({"backbone": "a.ckpt", "evaluators": {"e": "b.ckpt"}}, None),
    "MoERegressor": (
        {"in_features": 4, "num_experts": 3, "hidden_features": 4, "top_k": 2},
        lambda tmp_path: ManifoldDataModule(ambient_dim=4, batch_size=8, evaluation_samples=8),
    ),
}

# Arguments that name files, which a checkpoint may not.
FILES = {"InfluencePathPlanner": ("backbone", "evaluators")}


@pytest.fixture(params=litmodels.__all__)
def case(request, tmp_path):
    """(class, path of a checkpoint of a run with it)."""
    arguments, data = SMALL[request.param]
    cls = getattr(litmodels, request.param)
    module = cls(**arguments)
    trainer = Trainer(
        default_root_dir=tmp_path,
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if data is None:
        trainer.strategy.connect(module)
    else:
        trainer.fit(module, datamodule=data(tmp_path))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    return cls, module, tmp_path / "run.ckpt"


def test_it_saves_and_loads_with_weights_only(case):
    cls, module, path = case
    torch.load(path, weights_only=True)
    given = {name: module.hparams[name] for name in FILES.get(cls.__name__, ())}
    loaded = cls.load_from_checkpoint(path, map_location="cpu", **given)
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert dict(loaded.hparams) == dict(module.hparams)


@pytest.mark.parametrize("path", ["os.system", "posixpath.join", "builtins.exec"])
def test_a_checkpoint_with_an_instantiator_of_its_own_is_refused(case, path):
    cls, _, checkpoint_path = case
    checkpoint = torch.load(checkpoint_path, weights_only=True)
    checkpoint["hyper_parameters"]["_instantiator"] = path
    torch.save(checkpoint, checkpoint_path)
    with pytest.raises(ValueError, match="not in the allowlist"):
        cls.load_from_checkpoint(checkpoint_path)


class Exploit:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(case, tmp_path):
    cls, _, checkpoint_path = case
    checkpoint = torch.load(checkpoint_path, weights_only=True)
    checkpoint["extra"] = Exploit(str(tmp_path / "owned"))
    torch.save(checkpoint, checkpoint_path)
    with pytest.raises(pickle.UnpicklingError):
        cls.load_from_checkpoint(checkpoint_path)
    assert not (tmp_path / "owned").exists()


def test_the_command_line_refuses_it_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "extra": Exploit(str(tmp_path / "owned"))}, "evil.ckpt")
    arguments = ["--config", "image/digits", "--trainer.logger=false"]
    code = main(["fit", *arguments, "--ckpt_path=evil.ckpt"])
    assert code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "owned").exists()
