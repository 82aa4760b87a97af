"""Training on Markov chains, repeats and vectors: results and order of the phases."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn.functional import cross_entropy

from lightning_plugins.callbacks import HeadScores, PhaseDetector
from lightning_plugins.callbacks.phase_detector import running_median
from lightning_plugins.cli import PluginCLI
from lightning_plugins.datamodules import (
    InductionMixtureDataModule,
    MarkovChainDataModule,
    RepeatedSequenceDataModule,
)
from lightning_plugins.litmodels import InContextMarkov, InContextRepeats, InductionRegression
from lightning_plugins.nn.induction.ngrams import in_context_ngram
from lightning_plugins.recipes import load_recipe


def fit(folder, module, data, steps=3, **arguments):
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )
    trainer.fit(module, datamodule=data)
    return trainer


def run_recipe(name, folder, **trainer):
    """Run the recipe in ``folder`` without plots; return (module, callbacks by class)."""
    config = load_recipe(f"induction_heads/{name}")
    config["trainer"] |= {"enable_progress_bar": False, "logger": False, **trainer}
    config["trainer"] |= {"default_root_dir": str(folder), "enable_checkpointing": False}
    config["trainer"]["callbacks"] = [
        one for one in config["trainer"]["callbacks"] if "ModelCheckpoint" not in one["class_path"]
    ]
    cli = PluginCLI(
        run=False,
        args=config,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=None,
    )
    cli.trainer.fit(cli.model, cli.datamodule)
    return cli.model, {type(one): one for one in cli.trainer.callbacks}


@pytest.mark.slow
def test_on_chains_the_unigram_is_learned_before_the_bigram(tmp_path):
    _, callbacks = run_recipe("markov", tmp_path)
    detector = callbacks[PhaseDetector]
    unigram, bigram = (
        running_median(detector.values[f"train/kl_{name}"], 9) for name in ("unigram", "bigram")
    )
    nearest = min(range(len(unigram)), key=unigram.__getitem__)
    crossing = next(place for place in range(1, len(unigram)) if bigram[place] < unigram[place])
    assert 0 < nearest < crossing
    assert unigram[nearest] < 0.5 * unigram[0]
    assert bigram[-1] < 0.5 * bigram[nearest]


def test_on_repeats_an_induction_head_forms_gradually(tmp_path):
    model, callbacks = run_recipe("repeats", tmp_path, max_steps=300)
    scores = callbacks[HeadScores]
    curve = [max(max(layer) for layer in one["induction"]) for one in scores.scores]
    assert curve[0] < 0.1
    assert curve[-1] >= 0.9
    assert len([value for value in curve if 0.15 < value < 0.85]) >= 2
    causal = max(max(layer) for layer in scores.scores[-1]["ablation"])
    assert causal > 1
    assert model.trainer.callback_metrics["train/repeat_accuracy"] > 0.8


@pytest.mark.slow
def test_a_second_order_chain_is_learned_past_the_bigram(tmp_path):
    data = MarkovChainDataModule(num_states=2, order=2, length=64)
    module = InContextMarkov(2, 64, order=2, heads=2)
    trainer = fit(tmp_path, module, data, steps=4000, log_every_n_steps=100, limit_val_batches=4)
    trainer.validate(module, datamodule=data)
    found = trainer.callback_metrics
    assert found["val/kl_trigram"] < found["val/kl_bigram"] < found["val/kl_unigram"]


@pytest.mark.slow
def test_vectors_with_a_matrix_are_learned_lazy_before_rich(tmp_path):
    data = InductionMixtureDataModule(length=20, dim=2, w_star=1.5, batch_size=128)
    detector = PhaseDetector(progress="train/induction_explained")
    fit(
        tmp_path,
        InductionRegression(2, 20),
        data,
        steps=5000,
        log_every_n_steps=50,
        callbacks=[detector],
        limit_val_batches=0,
    )
    assert detector.phases.partial_learning_end < detector.phases.emergence


def test_what_chains_log_is_the_divergence_from_counting(tmp_path):
    data = MarkovChainDataModule(order=2, length=12, batch_size=4, eval_batches=1)
    module = InContextMarkov(3, 12, order=2, dim=8)
    trainer = fit(tmp_path, module, data)
    trainer.validate(module, datamodule=data, verbose=False)
    tokens = next(iter(data.val_dataloader()))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    model = module(inputs).log_softmax(-1)
    for order, name in enumerate(("unigram", "bigram", "trigram")):
        baseline = in_context_ngram(inputs, order, 3)
        divergence = torch.nn.functional.kl_div(
            model, baseline, log_target=True, reduction="none"
        ).sum(-1)
        loss = cross_entropy(baseline.flatten(0, 1), targets.flatten())
        found = trainer.callback_metrics
        assert found[f"val/kl_{name}"].item() == pytest.approx(divergence.mean().item(), rel=1e-4)
        assert found[f"val/loss_{name}"].item() == pytest.approx(loss.item(), rel=1e-4)


def test_repeats_are_split_after_the_first_token_that_comes_again(tmp_path):
    """A network that always continues an earlier copy is right on all that counts as a repeat."""
    module = InContextRepeats(64, 48, dim=8)

    def continued(tokens):
        same = (tokens[:, :, None] == tokens[:, None, :]).tril(-1)
        after = torch.nn.functional.one_hot(tokens, 64).float().roll(-1, 1)
        return 50 * (same.float() @ after)

    module.network.forward = continued
    data = RepeatedSequenceDataModule(vocab_size=64, batch_size=50, eval_batches=1)
    trainer = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    trainer.validate(module, datamodule=data, verbose=False)
    found = trainer.callback_metrics
    assert found["val/repeat_accuracy"] > 0.8  # tokens may come twice within a period
    tokens, period = next(iter(data.val_dataloader()))
    losses = cross_entropy(
        continued(tokens[:, :-1]).transpose(1, 2), tokens[:, 1:], reduction="none"
    )
    repeats = torch.cat([row[p:] for row, p in zip(losses, period.tolist(), strict=True)])
    assert found["val/repeat_loss"].item() == pytest.approx(repeats.mean().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("module", "data", "named"),
    [
        (
            InContextMarkov(2),
            MarkovChainDataModule(3),
            "num_states=2: Markov.* has num_states=3",
        ),
        (
            InContextMarkov(order=2),
            MarkovChainDataModule(),
            "order=2: Markov.* has order=1",
        ),
        (
            InContextRepeats(8),
            RepeatedSequenceDataModule(9),
            "vocab_size=8: .* has vocab_size=9",
        ),
        (InductionRegression(2), InductionMixtureDataModule(dim=3), "dim=2: Ind.* has dim=3"),
        (InContextMarkov(max_length=20), MarkovChainDataModule(), "length=63.*max_length=20"),
    ],
)
def test_errors_name_the_mismatch_between_model_and_data(tmp_path, module, data, named):
    with pytest.raises(ValueError, match=named):
        fit(tmp_path, module, data)


@pytest.mark.parametrize(
    ("arguments", "named"), [({"order": 0}, "order=0"), ({"dim": 33, "heads": 2}, "dim=33")]
)
def test_errors_name_the_invalid_argument(arguments, named):
    with pytest.raises(ValueError, match=named):
        InContextMarkov(**arguments)


@pytest.mark.parametrize(
    ("module", "data"),
    [
        (InContextMarkov(), MarkovChainDataModule()),
        (InContextRepeats(), RepeatedSequenceDataModule()),
        (InductionRegression(1), InductionMixtureDataModule()),
    ],
)
def test_the_logged_training_loss_is_the_minimized_one(tmp_path, module, data):
    minimized = []
    step = module.training_step
    module.training_step = lambda *args: minimized.append(step(*args)) or minimized[-1]
    trainer = fit(tmp_path, module, data, steps=1, limit_val_batches=0)
    assert trainer.callback_metrics["train/loss"] == minimized[0].detach()
