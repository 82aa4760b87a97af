"""The abrupt transition: gradient descent follows the flow, and lazy precedes rich."""

from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from lightning_plugins.callbacks import PhaseDetector, phase_detector
from lightning_plugins.datamodules import InductionMixtureDataModule
from lightning_plugins.litmodels import InductionMixture

NUMBERS = ("p1", "w1", "p2", "v1", "k", "v2")


@pytest.fixture
def undrawn(monkeypatch):
    """Disable the plots of all runs."""
    monkeypatch.setattr(phase_detector, "log_picture", lambda *_: None)


pytestmark = pytest.mark.usefixtures("undrawn")


def train(
    folder, stage="second_layer", steps=20, length=40, batch_size=512, sigma_init=0.01, **arguments
):
    """Train on the reference setting or near it; return (detector of all parameters, module)."""
    detector = PhaseDetector(
        drawn=("train/induction_loss", *(f"parameters/{name}" for name in NUMBERS))
    )
    module = InductionMixture(
        stage,
        sigma_init,
        **{"optimizer": partial(torch.optim.SGD, lr=0.5)} | arguments,
    )
    trainer = Trainer(
        max_steps=steps,
        log_every_n_steps=25,
        accelerator="cpu",
        logger=False,
        callbacks=[detector],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = InductionMixtureDataModule(length=length, batch_size=batch_size)
    trainer.fit(module, datamodule=data)
    return detector, module


@pytest.mark.parametrize(
    "steps", [1000, pytest.param(4000, marks=pytest.mark.slow)], ids=["plateau", "emergence"]
)
def test_descent_follows_the_flow_in_all_parameters(tmp_path, steps):
    detector, module = train(tmp_path, steps=steps)
    reference = module.phase_reference(detector.steps)
    for name in ("p2", "v1", "k", "v2"):
        found = np.array(detector.values[f"parameters/{name}"])
        assert np.abs(found - reference[f"parameters/{name}"]).max() < 0.03, name
    phases, predicted = detector.phases, detector.predicted
    assert phases.partial_learning_end == pytest.approx(predicted.partial_learning_end, rel=0.15)
    if steps == 4000:
        assert module.network.k.item() == pytest.approx(0.49, abs=0.005)
        assert phases.partial_learning_end < phases.plateau_end
        assert phases.emergence == pytest.approx(predicted.emergence, rel=0.1)


@pytest.mark.slow
def test_the_emergence_is_linear_in_the_length(tmp_path):
    moments = [
        train(tmp_path, steps=steps, length=length)[0].phases.emergence / (length - 2)
        for length, steps in ((40, 3000), (80, 6000))
    ]
    assert moments[1] == pytest.approx(moments[0], rel=0.15)


@pytest.mark.slow
def test_lazy_precedes_rich_when_all_six_parameters_train(tmp_path):
    detector, module = train(tmp_path, "joint", steps=15_000)
    phases = detector.phases
    assert phases.partial_learning_end < phases.emergence < phases.convergence
    match = module.network.k**2 * module.network.w1
    assert match.item() == pytest.approx(0.49**2, rel=0.05)


@pytest.mark.slow
def test_adam_removes_the_separation_of_the_phases(tmp_path):
    """Adam takes equal steps for all parameters, also for those with small gradients."""
    adam = partial(torch.optim.Adam, lr=1e-3)
    detector, _ = train(tmp_path, "joint", steps=2000, optimizer=adam)
    assert detector.phases.emergence < detector.phases.partial_learning_end


@pytest.mark.parametrize("stage", ["first_layer", "second_layer", "joint"])
def test_each_stage_trains_only_its_parameters(tmp_path, stage):
    module = InductionMixture(stage)
    before = {name: p.item() for name, p in module.network.named_parameters()}
    _, module = train(tmp_path, stage)
    moved = {name for name, p in module.network.named_parameters() if p.item() != before[name]}
    assert (
        moved
        == {
            "first_layer": {"p1", "w1"},
            "second_layer": {"p2", "v1", "k", "v2"},
            "joint": set(NUMBERS),
        }[stage]
    )


def test_the_first_stage_learns_the_previous_token_and_the_second_continues_from_it(tmp_path):
    """With a second layer that already reads its input, p1 grows."""
    optimizer = partial(torch.optim.Adam, lr=0.05)
    _, module = train(tmp_path, "first_layer", steps=200, sigma_init=0.5, optimizer=optimizer)
    assert module.network.p1.item() > 2
    torch.save(
        {
            "state_dict": module.state_dict(),
            "hyper_parameters": dict(module.hparams),
            "pytorch-lightning_version": "2.6.6",
        },
        tmp_path / "first.ckpt",
    )
    second = InductionMixture.load_from_checkpoint(
        tmp_path / "first.ckpt", stage="second_layer", weights_only=True
    )
    assert torch.equal(second.network.p1, module.network.p1)
    assert not second.network.p1.requires_grad


@pytest.mark.parametrize(
    "arguments",
    [
        {"stage": "joint"},
        {"optimizer": partial(torch.optim.SGD, lr=0.5, momentum=0.9)},
        {"optimizer": torch.optim.Adam},
    ],
)
def test_there_is_no_prediction_outside_the_assumptions_of_the_flow(tmp_path, arguments):
    detector, module = train(tmp_path, **arguments)
    assert module.phase_reference(detector.steps) is None


def test_data_with_vectors_is_refused(tmp_path):
    trainer = Trainer(max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(ValueError, match="dim=2: InductionMixture requires dim=1"):
        trainer.fit(InductionMixture(), InductionMixtureDataModule(dim=2))


def test_a_wrong_stage_is_named():
    with pytest.raises(ValueError, match="stage='2': expected one of 'first_layer'"):
        InductionMixture(stage="2")
