"""Phases in runs whose number of optimizer steps Lightning does not estimate correctly."""

import warnings

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.utils.data import DataLoader, IterableDataset

from lightning_plugins.callbacks import LateSAM


class Stream(IterableDataset):
    """Samples without a length."""

    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        return zip(*self.samples, strict=True)


def active_steps(task, folder, *, is_stream=False, callbacks=(), trainer=None, **phase):
    """Return the first step of SAM, the number of SAM steps, and the number of steps of the run."""
    sam = LateSAM(**phase)
    run = task.trainer(folder, [sam, *callbacks], **{"max_epochs": 4, **(trainer or {})})
    loader = DataLoader(Stream(task.samples()), 5) if is_stream else task.batches()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        run.fit(task.Classifier(), loader)
    return sam.first_active_step, sam.sam_steps, run.global_step


@pytest.mark.parametrize(
    "phase",
    [
        {"start": 0.75},
        {"start": 0.5, "end": 0.9},
        {"start": 0, "end": 0.5},
        {"start": 3, "unit": "epoch"},
        {"start": 0, "end": 2, "unit": "epoch"},
    ],
)
def test_a_start_that_needs_the_length_of_the_loader_is_refused(task, tmp_path, phase):
    with pytest.raises(ValueError, match="the training loader has no length") as told:
        active_steps(task, tmp_path, is_stream=True, **phase)
    assert "unit='step'" in str(told.value)
    assert "trainer.max_steps" in str(told.value)
    refused = "end" if phase["start"] == 0 else "start"
    assert str(told.value).startswith(f"{refused}={phase[refused]}, unit=")


@pytest.mark.parametrize("unit", ["fraction", "epoch", "step"])
def test_a_phase_of_the_whole_run_needs_no_length(task, tmp_path, unit):
    assert active_steps(task, tmp_path, is_stream=True, start=0, unit=unit) == (0, 24, 24)


def test_a_fraction_of_zero_needs_no_end_of_the_run(task, tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step == 7

    endless = {"max_epochs": -1}
    found = active_steps(task, tmp_path, callbacks=[Stop()], trainer=endless, start=0)
    assert found == (0, 7, 7)
    with pytest.raises(ValueError, match=r"end=0\.5 is a fraction of a run without an end"):
        active_steps(task, tmp_path, trainer=endless, start=0, end=0.5)


@pytest.mark.parametrize(
    ("phase", "trainer", "first"),
    [
        ({"start": 0.75}, {"max_steps": 20}, 15),
        ({"start": 0.75}, {"max_steps": 20, "max_epochs": -1}, 15),
        ({"start": 0.75}, {"limit_train_batches": 5}, 15),
        ({"start": 3, "unit": "epoch"}, {"limit_train_batches": 5}, 15),
        ({"start": 15, "unit": "step"}, {"max_steps": 20}, 15),
    ],
)
def test_each_remedy_for_a_loader_without_a_length_works(task, tmp_path, phase, trainer, first):
    found = active_steps(task, tmp_path, is_stream=True, trainer=trainer, **phase)
    assert found == (first, 5, 20)


# With 6 batches per epoch, the epochs have 6, 6, 2 and 1 steps, or 2 steps each.
CHANGES, CONSTANT = {2: 3, 3: 6}, {0: 4}


@pytest.mark.parametrize(
    ("factors", "phase", "active"),
    [
        (CONSTANT, {"start": 0.5}, (4, 4, 8)),
        (CONSTANT, {"start": 1.5, "unit": "epoch"}, (3, 5, 8)),
        (CHANGES, {"start": 0.8}, (12, 3, 15)),
        (CHANGES, {"start": 2.5, "unit": "epoch"}, (13, 2, 15)),
        (CHANGES, {"start": 0, "end": 3, "unit": "epoch"}, (0, 14, 15)),
    ],
)
def test_steps_are_counted_with_the_accumulation_factor_of_each_epoch(
    task, tmp_path, factors, phase, active
):
    accumulation = GradientAccumulationScheduler(dict(factors))
    assert active_steps(task, tmp_path, callbacks=[accumulation], **phase) == active


def test_max_steps_limits_a_run_whose_accumulation_factor_changes(task, tmp_path):
    accumulation = GradientAccumulationScheduler(dict(CHANGES))
    found = active_steps(
        task, tmp_path, callbacks=[accumulation], trainer={"max_steps": 10}, start=0.5
    )
    assert found == (5, 5, 10)


@pytest.mark.parametrize(
    ("start", "unit", "limits"),
    [(12, "step", {}), (2.5, "epoch", {}), (12, "step", {"max_epochs": -1, "max_steps": 12})],
)
def test_a_start_at_or_beyond_a_known_end_is_refused(task, tmp_path, start, unit, limits):
    with pytest.raises(ValueError, match=rf"start={start}.*never begin"):
        task.train(tmp_path, [LateSAM(start=start, unit=unit)], **limits)
    late = LateSAM(start=11, unit="step")
    task.train(tmp_path, [late])
    assert late.sam_steps == 1


@pytest.mark.parametrize(
    "trial", [{"fast_dev_run": 2}, {"limit_train_batches": 2}, {"limit_train_batches": 1}]
)
@pytest.mark.parametrize(("start", "unit"), [(150, "epoch"), (150, "step"), (0.75, "fraction")])
def test_a_trial_run_only_warns_of_a_phase_beyond_its_end(task, tmp_path, trial, start, unit):
    late = LateSAM(start=start, unit=unit)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        _, trainer = task.train(tmp_path, [late], **trial)
    assert trainer.global_step == (
        2 if "fast_dev_run" in trial else 2 * trial["limit_train_batches"]
    )
    has_warned = any("never became active" in str(warning.message) for warning in told)
    assert has_warned == (late.sam_steps == 0)
