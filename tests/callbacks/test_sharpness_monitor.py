import builtins
import math
import random

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import SingleDeviceStrategy
from recording_callbacks import RecordRandomState
from torch.nn.functional import cross_entropy

from lightning_plugins.callbacks import ExactResume, LateSAM, SharpnessMonitor


def every_epoch(**arguments):
    return SharpnessMonitor(max_share=1, **arguments)


def exact_hessian(network, features, labels):
    shapes = [(name, p.shape) for name, p in network.named_parameters()]
    buffers = dict(network.named_buffers())

    def loss(flat):
        parts = flat.split([shape.numel() for _, shape in shapes])
        weights = {
            name: part.view(shape) for (name, shape), part in zip(shapes, parts, strict=True)
        }
        logits = torch.func.functional_call(network, {**weights, **buffers}, (features,))
        return cross_entropy(logits, labels)

    return torch.func.hessian(loss)(torch.cat([p.detach().flatten() for p in network.parameters()]))


def test_what_it_logs_is_the_spectrum_of_the_exact_hessian(task, tmp_path):
    module, trainer = task.train(tmp_path, [every_epoch(top_k=2, trace_probes=90)])
    hessian = exact_hessian(module.network.eval(), *task.samples())
    spectrum = torch.linalg.eigvalsh(hessian).flip(0)
    measured = trainer.callback_metrics
    assert measured["sharpness/lambda_max"] == pytest.approx(spectrum[0].item(), rel=1e-2)
    assert measured["sharpness/lambda_2"] == pytest.approx(spectrum[1].item(), rel=1e-2)
    error = measured["sharpness/trace"] - hessian.trace()
    assert abs(error) < 4 * measured["sharpness/trace_standard_error"] + 1e-3
    assert measured["sharpness/sam_gap"] > 0


def test_random_numbers_that_the_network_draws_are_put_back(task, tmp_path):
    class Drawing(task.Classifier):
        def forward(self, features):
            noise = random.random() + np.random.rand() + torch.rand(())
            return super().forward(features) * (1 + 1e-3 * noise)

    draws = []
    for callbacks in ([], [every_epoch()]):
        random.seed(0)
        np.random.seed(0)
        task.train(tmp_path, callbacks, Drawing())
        draws.append((random.random(), np.random.rand(), torch.rand(()).item()))
    assert draws[0] == draws[1]


@pytest.mark.scale(plugin="SharpnessMonitor", strategy="one device")
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_run_equals_the_run_without_it_bit_for_bit(task, tmp_path, mode):
    ends, states = [], []
    for callbacks in ([], [every_epoch(mode=mode, trace_probes=3)]):
        end = RecordRandomState()
        module, trainer = task.train(tmp_path, [*callbacks, end], max_epochs=3)
        ends.append(task.weights(module))
        states.append(end.state)
        assert trainer.callback_metrics["train/accuracy"] >= 0
        assert all(layer.training for layer in module.network)
        assert module.training_steps == 18
    task.assert_same_bits(*ends)
    assert torch.equal(*states)


def test_batch_statistics_give_another_hessian(task, tmp_path):
    found = []
    for mode in ("eval", "train"):
        monitor = every_epoch(mode=mode)
        task.train(tmp_path, [monitor])
        found.append(monitor.values["lambda_max"][-1])
    assert found[0] != pytest.approx(found[1], rel=1e-2)


def test_it_measures_at_the_epochs_asked_for_and_at_the_end(task, tmp_path):
    monitor = every_epoch(every_n_epochs=2)
    task.train(tmp_path, [monitor], max_epochs=5)
    assert monitor.steps == [12, 24, 30]
    assert len(monitor.values["lambda_max"]) == 3


def test_it_takes_no_more_than_its_share_but_measures_the_first_epoch_and_the_end(task, tmp_path):
    monitor = SharpnessMonitor(max_share=0.0)
    task.train(tmp_path, [monitor], max_epochs=6)
    assert monitor.steps == [6, 36]


def test_a_measurement_that_would_go_over_the_share_is_left_out(task, tmp_path, monkeypatch):
    """Epochs and measurements of 1 s each, with a limit of a third of the time."""
    clock = [0.0]

    class Second(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            clock[0] += 1.0

    def measure(*_, **__):
        clock[0] += 1.0
        return {"lambda_max": 1.0}

    module = "lightning_plugins.callbacks.sharpness_monitor"
    monkeypatch.setattr(f"{module}.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(f"{module}.measure_sharpness", measure)
    monitor = SharpnessMonitor(max_share=1 / 3)
    task.train(tmp_path, [monitor, Second()], max_epochs=9)
    # (spent + 2) / time is 3 / 9 after epoch 8, and more before.
    assert [step // 6 for step in monitor.steps] == [1, 8, 9]
    assert len(monitor.steps) / clock[0] <= 1 / 3


def test_a_resumed_run_has_the_complete_curve(task, tmp_path):
    def run(ckpt_path=None, **arguments):
        monitor = every_epoch()
        keep = ModelCheckpoint(tmp_path / "kept", save_last=True, every_n_epochs=1)
        trainer = task.trainer(
            tmp_path, [monitor, ExactResume(), keep], enable_checkpointing=True, **arguments
        )
        torch.manual_seed(11)
        trainer.fit(task.Classifier(), task.batches(), ckpt_path=ckpt_path)
        return monitor

    whole = run(max_epochs=4)
    run(max_epochs=2)
    resumed = run(tmp_path / "kept" / "last.ckpt", max_epochs=4)
    assert resumed.steps == whole.steps == [6, 12, 18, 24]
    assert resumed.values == whole.values


def test_the_subset_is_fixed_by_the_seed_and_its_batches_do_not_matter(task, tmp_path):
    def measured(**arguments):
        monitor = every_epoch(**arguments)
        task.train(tmp_path, [monitor], max_epochs=1)
        return monitor.values["lambda_max"]

    part = measured(num_samples=10)
    assert part == measured(num_samples=10)
    assert part != measured(num_samples=10, seed=1)
    assert part == pytest.approx(measured(num_samples=10, batch_size=4), rel=1e-4)


@pytest.mark.parametrize("loggers", [[], ["csv"], ["tensorboard"], ["csv", "tensorboard"]])
def test_the_picture_goes_where_pictures_are_taken_else_to_a_file(task, tmp_path, loggers):
    classes = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
    chosen = [classes[name](tmp_path / name) for name in loggers]
    task.train(tmp_path, [LateSAM(0.5), every_epoch()], logger=chosen or False)
    assert bool(list(tmp_path.rglob("sharpness.png"))) == ("tensorboard" not in loggers)
    if "tensorboard" in loggers:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(chosen[-1].log_dir)
        events.Reload()
        assert events.Tags()["images"] == ["sharpness"]
        assert [e.step for e in events.Scalars("sharpness/lambda_max")] == [6, 12]
    if "csv" in loggers:
        text = next((tmp_path / "csv").rglob("metrics.csv")).read_text()
        assert "sharpness/lambda_max" in text


def test_a_logger_like_that_of_weights_and_biases_gets_the_picture(task, tmp_path):
    taken = []

    class TakesImages(CSVLogger):
        def log_image(self, key, images):
            taken.append((key, images[0].shape))

    task.train(tmp_path, [every_epoch()], logger=TakesImages(tmp_path))
    ((key, shape),) = taken
    assert key == "sharpness"
    assert shape[2] == 3


def test_without_matplotlib_the_metrics_stay(task, tmp_path, monkeypatch):
    original = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.warns(UserWarning, match=r'pip install "matplotlib'):
        _, trainer = task.train(tmp_path, [every_epoch()])
    assert math.isfinite(trainer.callback_metrics["sharpness/lambda_max"])


def test_a_compiled_network_is_measured_too(task, tmp_path):
    module = task.Classifier()
    module.network.compile(backend="aot_eager")
    _, trainer = task.train(tmp_path, [every_epoch()], module)
    assert trainer.callback_metrics["sharpness/lambda_max"] > 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs=0"),
        ({"top_k": 0}, "top_k=0"),
        ({"trace_probes": 2}, "trace_probes=2"),
        ({"rho": -1}, "rho=-1"),
        ({"mode": "test"}, "mode='test'"),
        ({"max_share": -0.1}, r"max_share=-0\.1"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        SharpnessMonitor(**arguments)


class Recorded(Callback):
    """Records the gradients at the end of an epoch."""

    def __init__(self):
        self.gradients = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.gradients.append([p.grad.clone() for p in pl_module.parameters()])


def test_gradients_between_epochs_stay(task, tmp_path):
    found = []
    for callbacks in ([], [every_epoch()]):
        recorded = Recorded()
        task.train(tmp_path, [*callbacks, recorded])
        found.append([gradient for epoch in recorded.gradients for gradient in epoch])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
def test_whatever_the_precision_it_measures_the_weights_in_single_or_double(
    task, tmp_path, precision
):
    module, trainer = task.train(tmp_path, [every_epoch()], precision=precision)
    dtype = torch.float64 if precision == "64-true" else torch.float32
    features, labels = task.samples()
    if precision == "bf16-true":
        features = features.bfloat16()
    hessian = exact_hessian(module.network.to(dtype).eval(), features.to(dtype), labels)
    expected = torch.linalg.eigvalsh(hessian)[-1].item()
    assert trainer.callback_metrics["sharpness/lambda_max"] == pytest.approx(expected, rel=1e-2)


def test_a_parameter_that_is_not_in_the_loss_leaves_the_largest_eigenvalue_as_it_is(task, tmp_path):
    found = []
    for has_unused in (False, True):
        module = task.Classifier()
        if has_unused:
            module.unused = torch.nn.Parameter(torch.ones(2))
        _, trainer = task.train(tmp_path, [every_epoch()], module)
        found.append(trainer.callback_metrics["sharpness/lambda_max"].item())
    assert found[1] == pytest.approx(found[0], rel=1e-2)


def test_half_precision_weights_and_modes_are_restored(task, tmp_path):
    ends = []
    for callbacks in ([], [every_epoch(mode="train")]):
        module, _ = task.train(tmp_path, callbacks, precision="bf16-true")
        ends.append(task.weights(module))
    task.assert_same_bits(*ends)
    assert ends[0]["0.weight"].dtype == torch.bfloat16


def test_a_diverged_run_continues(task, tmp_path):
    class Diverging(task.Classifier):
        def training_step(self, batch, batch_idx):
            return math.inf * super().training_step(batch, batch_idx)

    monitor = every_epoch(trace_probes=3)
    task.train(tmp_path, [monitor], Diverging())
    assert monitor.steps == [6, 12]
    assert all(math.isnan(value) for curve in monitor.values.values() for value in curve)
    assert set(monitor.values) == {"lambda_max", "sam_gap", "trace", "trace_standard_error"}


def test_a_new_run_starts_a_new_curve(task, tmp_path):
    monitor = every_epoch()
    for _ in range(2):
        task.train(tmp_path, [monitor])
        assert monitor.steps == [6, 12]


def test_the_starts_of_two_phases_are_marked(task, tmp_path, monkeypatch):
    marked = []
    module = "lightning_plugins.callbacks.sharpness_monitor.curve_picture"
    monkeypatch.setattr(module, lambda steps, values, marks: marked.append(marks))
    task.train(tmp_path, [LateSAM(0, 0.5), LateSAM(0.5), every_epoch()])
    assert marked == [{"LateSAM": 0, "LateSAM (6)": 6}]


class OneOfTwo(SingleDeviceStrategy):
    """The first process stores the objects that it broadcasts; the second receives them."""

    def __init__(self, kept, is_first):
        super().__init__("cpu")
        self.kept, self.is_first = kept, is_first

    @property
    def is_global_zero(self):
        return self.is_first

    def broadcast(self, obj, src=0):
        if not self.is_first:
            return self.kept.pop(0)
        self.kept.append(obj)
        return obj


def test_every_process_takes_part_in_the_same_collective_operations(task, tmp_path):
    """The results of two real processes are tested in test_sharpness_ddp.py."""
    kept, monitors = [], [every_epoch(), every_epoch()]
    for monitor in monitors:
        strategy = OneOfTwo(kept, is_first=monitor is monitors[0])
        task.train(tmp_path, [monitor], accelerator="auto", strategy=strategy)
    assert kept == []
    assert monitors[0].state_dict() == monitors[1].state_dict()
