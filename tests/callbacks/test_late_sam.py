"""LateSAM compared with a manual loop that implements the papers' formulas."""

import csv
import warnings

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    ModelCheckpoint,
    OnExceptionCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from operation_count import operations_of_the_third_step
from recording_callbacks import RecordRandomState
from reference_sam import train_with_reference_sam

from lightning_plugins._lightning_compat import closures
from lightning_plugins.callbacks import LateSAM


def by_hand(task, optimizer_of, active, cosine_steps=None, **arguments):
    network = task.network()
    optimizer = optimizer_of(network.parameters())
    schedule = cosine_steps and torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, cosine_steps)
    return train_with_reference_sam(
        network, optimizer, task.batches, active, schedule=schedule, **arguments
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("accumulate", [1, 3, 4])
@pytest.mark.parametrize("clip", [None, "norm", "value"])
@pytest.mark.parametrize("mode", ["sam", "asam", "usam"])
def test_weights_equal_those_of_a_manual_loop(task, tmp_path, optimizer, accumulate, clip, mode):
    optimizer_of = getattr(task, optimizer)
    cosine_steps = 12 if optimizer == "adamw" else None
    steps = 2 * -(-task.steps_an_epoch // accumulate)
    module, _ = task.train(
        tmp_path,
        [LateSAM(start=0.5, rho=0.1, mode=mode)],
        task.Classifier(optimizer_of, cosine_steps),
        accumulate_grad_batches=accumulate,
        gradient_clip_val=0.1 if clip else None,
        gradient_clip_algorithm=clip,
    )
    expected = by_hand(
        task,
        optimizer_of,
        lambda step: step >= steps // 2,
        mode=mode,
        accumulate=accumulate,
        clip=clip,
        cosine_steps=cosine_steps,
    )
    task.assert_same_bits(task.weights(module), expected.state_dict())


@pytest.mark.parametrize(
    ("start", "end", "unit", "first", "last"),
    [
        (0, None, "fraction", 0, 12),
        (0.75, None, "fraction", 9, 12),
        (0.25, 0.5, "fraction", 3, 6),
        (1, None, "epoch", 6, 12),
        (0, 1.5, "epoch", 0, 9),
        (5, None, "step", 5, 12),
        (5, 7, "step", 5, 7),
    ],
)
def test_sam_is_active_from_start_to_end(task, tmp_path, start, end, unit, first, last):
    callback = LateSAM(start=start, end=end, unit=unit, rho=0.1)
    module, _ = task.train(tmp_path, [callback])
    assert callback.sam_steps == last - first
    assert callback.first_active_step == first
    expected = by_hand(task, task.sgd, lambda step: first <= step < last)
    task.assert_same_bits(task.weights(module), expected.state_dict())


@pytest.mark.parametrize(
    ("options", "hand"),
    [
        ({"interval": 3}, {"active": lambda step: step >= 4 and (step - 4) % 3 == 0}),
        ({"rho_warmup": 4}, {"rho": lambda step: 0.1 * min(1.0, (step - 3) / 4)}),
        ({"parameters": r"^network\.1\."}, {"chosen": lambda name: name.startswith("1.")}),
        ({"momentum": "reset"}, {"resets": (4,)}),
        ({"momentum": "reset", "end": 8}, {"resets": (4, 8), "active": lambda s: 4 <= s < 8}),
    ],
    ids=["interval", "rho_warmup", "parameters", "reset", "reset at both switches"],
)
def test_each_option_equals_that_of_a_manual_loop(task, tmp_path, options, hand):
    module, _ = task.train(tmp_path, [LateSAM(start=4, unit="step", rho=0.1, **options)])
    expected = by_hand(task, task.sgd, **{"active": lambda step: step >= 4, **hand})
    task.assert_same_bits(task.weights(module), expected.state_dict())
    plain, _ = task.train(tmp_path, [LateSAM(start=4, unit="step", rho=0.1)])
    assert not torch.equal(module.network[0].weight, plain.network[0].weight)


def test_a_reused_callback_repeats_its_result(task, tmp_path):
    callback = LateSAM(start=4, end=8, unit="step", rho=0.1, momentum="reset")
    (first, _), (second, _) = (task.train(tmp_path, [callback]) for _ in range(2))
    task.assert_same_bits(task.weights(first), task.weights(second))
    assert (callback.first_active_step, callback.sam_steps) == (4, 4)
    with pytest.warns(UserWarning, match="never became active"):
        task.train(tmp_path, [callback], limit_train_batches=1)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_micro_batches_are_perturbed_separately(task, tmp_path, optimizer):
    module, _ = task.train(
        tmp_path,
        [LateSAM(start=2, unit="step", rho=0.1, accumulation="micro-batch")],
        task.Classifier(getattr(task, optimizer)),
        accumulate_grad_batches=4,
    )
    expected = by_hand(
        task, getattr(task, optimizer), lambda s: s >= 2, accumulate=4, micro_batches=True
    )
    # Sums of gradients in another order than in the manual loop would differ in the last bits.
    task.assert_same_bits(task.weights(module), expected.state_dict())


def test_two_phases_one_after_the_other(task, tmp_path):
    callbacks = [LateSAM(0, 0.25, rho=0.1), LateSAM(0.75, rho=0.1)]
    module, _ = task.train(tmp_path, callbacks)
    assert [callback.sam_steps for callback in callbacks] == [3, 3]
    expected = by_hand(task, task.sgd, lambda step: step < 3 or step >= 9)
    task.assert_same_bits(task.weights(module), expected.state_dict())


def test_before_start_the_run_equals_the_run_without_it_bit_for_bit(task, tmp_path):
    def run(callbacks):
        end = RecordRandomState()
        short = {"max_epochs": 1, "limit_train_batches": 5}
        module, trainer = task.train(tmp_path, [*callbacks, end], **short)
        return task.weights(module), trainer.optimizers[0].state_dict()["state"], end.state

    plain, plain_state, plain_random_state = run([])
    with pytest.warns(UserWarning, match="never became active"):
        late, late_state, late_random_state = run([LateSAM(start=6, unit="step")])
    task.assert_same_bits(plain, late)
    assert torch.equal(plain_random_state, late_random_state)
    for key, buffers in plain_state.items():
        assert torch.equal(buffers["momentum_buffer"], late_state[key]["momentum_buffer"])


def test_the_random_stream_equals_that_of_the_run_without_sam(task, tmp_path):
    class DrawsMoreInTheSecondPass(task.Classifier):
        def training_step(self, batch, batch_idx):
            if self.training_steps > self.trainer.global_step:
                torch.rand(3)
            return super().training_step(batch, batch_idx)

    states = []
    for callbacks, module in (([], task.Classifier()), ([LateSAM(0)], DrawsMoreInTheSecondPass())):
        end = RecordRandomState()
        task.train(tmp_path, [*callbacks, end], module, max_steps=1)
        states.append(end.state)
    assert torch.equal(*states)


def test_batch_norm_and_metrics_see_each_batch_once(task, tmp_path):
    module, _ = task.train(tmp_path, [LateSAM(start=0)], max_epochs=1)
    assert module.network[1].num_batches_tracked == task.steps_an_epoch
    assert module.training_steps == task.steps_an_epoch
    assert len(module.passes.losses) == 2 * task.steps_an_epoch
    seen = []

    class Count(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen.append(int(pl_module.accuracy.tp.sum() + pl_module.accuracy.fn.sum()))

    task.train(tmp_path, [LateSAM(start=0), Count()], max_epochs=1)
    assert seen == [5, 10, 15, 20, 25, 30]


def test_the_loss_at_the_unperturbed_weights_is_reported_once(task, tmp_path):
    module, run = task.train(tmp_path, [LateSAM(start=0)], max_epochs=1, log_every_n_steps=3)
    first_losses = torch.tensor(module.passes.losses[::2])
    second_losses = torch.tensor(module.passes.losses[1::2])
    torch.testing.assert_close(run.callback_metrics["train/loss_epoch"], first_losses.mean())
    torch.testing.assert_close(
        run.callback_metrics["sam/loss_gap"], second_losses[-1] - first_losses[-1]
    )
    assert run.callback_metrics["sam/gradient_norm"] > 0


def test_global_step_and_schedule_advance_once_a_step(task, tmp_path):
    _, run = task.train(
        tmp_path, [LateSAM(start=0)], task.Classifier(cosine_steps=100), max_epochs=2
    )
    assert run.global_step == 12
    assert run.lr_scheduler_configs[0].scheduler.last_epoch == 12


def test_an_error_in_the_second_pass_leaves_the_weights_unperturbed(task, tmp_path):
    class Fails(task.Classifier):
        def training_step(self, batch, batch_idx):
            if len(self.passes.losses) == 3:  # the second pass of the second step
                raise RuntimeError("on purpose")
            return super().training_step(batch, batch_idx)

    module = Fails()
    with pytest.raises(RuntimeError, match="on purpose"):
        task.train(tmp_path, [LateSAM(start=0, rho=0.1)], module)
    expected, _ = task.train(tmp_path, [LateSAM(start=0, unit="step", rho=0.1)], max_steps=1)
    for name, parameter in module.network.named_parameters():
        assert torch.equal(parameter, dict(expected.network.named_parameters())[name])
    assert "log" not in module.__dict__


def test_the_trainer_is_restored_after_a_run(task, tmp_path):
    _, run = task.train(tmp_path, [LateSAM(start=0)])
    assert "_make_closure" not in vars(run.fit_loop.epoch_loop.automatic_optimization)


def test_a_batch_without_a_loss_is_skipped(task, tmp_path):
    class Skips(task.Classifier):
        def training_step(self, batch, batch_idx):
            return None if batch_idx % 2 else super().training_step(batch, batch_idx)

    callback = LateSAM(start=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*returned `None`.*")
        task.train(tmp_path, [callback], Skips(), max_epochs=1)
    assert callback.sam_steps == 3


def test_buffers_of_any_kind_keep_their_values_from_the_first_pass(task, tmp_path):
    class Counts(torch.nn.Module):
        """Replaces one buffer and changes another in place in every forward pass."""

        def __init__(self):
            super().__init__()
            self.register_buffer("replaced", torch.zeros(()))
            self.register_buffer("in_place", torch.zeros(()))

        def forward(self, x):
            self.replaced = self.replaced + 1
            self.in_place += 1
            return x

    module = task.Classifier()
    module.network.append(Counts())
    task.train(tmp_path, [LateSAM(start=0)], module, max_epochs=1)
    assert module.network[-1].replaced == task.steps_an_epoch
    assert module.network[-1].in_place == task.steps_an_epoch


def test_resuming_in_either_phase_gives_the_uninterrupted_weights(task, tmp_path):
    def run(callbacks=(), ckpt_path=None):
        module = task.Classifier(task.adamw, cosine_steps=24)
        module.network[3].p = 0.0  # random states are restored by ExactResume
        sam = LateSAM(start=0.6, rho=0.1)
        trainer = task.trainer(tmp_path, [sam, *callbacks], max_epochs=4, enable_checkpointing=True)
        trainer.fit(module, task.batches(), ckpt_path=ckpt_path)
        return module, sam

    every = ModelCheckpoint(tmp_path / "steps", filename="{epoch}", every_n_epochs=1, save_top_k=-1)
    whole, sam = run([every])
    for epoch in (1, 2):
        resumed, resumed_sam = run(ckpt_path=tmp_path / "steps" / f"epoch={epoch}.ckpt")
        task.assert_same_bits(task.weights(whole), task.weights(resumed))
        assert resumed_sam.sam_steps == sam.sam_steps


def half_precision(initial_scale):
    # Lightning replaces 16-mixed on a CPU by bf16-mixed, except if the plugin is passed directly.
    return MixedPrecision(
        "16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=initial_scale)
    )


@pytest.mark.parametrize("mode", ["sam", "asam", "usam"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_with_a_gradient_scaler_weights_equal_those_of_a_manual_loop(
    task, tmp_path, mode, accumulate
):
    class SinglePrecisionWithScaler(MixedPrecision):
        def forward_context(self):
            return torch.autocast("cpu", enabled=False)

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    module, _ = task.train(
        tmp_path,
        [LateSAM(start=0.5, rho=0.1, mode=mode)],
        plugins=[SinglePrecisionWithScaler("16-mixed", "cpu", scaler=scaler)],
        accumulate_grad_batches=accumulate,
        gradient_clip_val=0.1,
    )
    expected = by_hand(
        task,
        task.sgd,
        lambda step: step >= 6 // accumulate,
        mode=mode,
        accumulate=accumulate,
        clip="norm",
        scale=2.0**10,
    )
    task.assert_same_bits(task.weights(module), expected.state_dict())


def test_an_overflow_lowers_the_scale_and_training_continues(task, tmp_path):
    plugin = half_precision(initial_scale=2.0**40)
    module, _ = task.train(tmp_path, [LateSAM(start=0)], plugins=[plugin], max_epochs=8)
    assert all(torch.isfinite(value).all() for value in task.weights(module).values())
    assert plugin.scaler.get_scale() < 2.0**40
    assert module.network[1].num_batches_tracked == 48


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_bfloat16_restores_the_weights_bit_for_bit(task, tmp_path, precision):
    class Frozen(torch.optim.SGD):
        def step(self, closure=None):
            closure()

    module = task.Classifier(lambda parameters: Frozen(parameters, lr=0.1))
    before = [parameter.detach().clone() for parameter in module.network.parameters()]
    if precision == "bf16-true":
        before = [value.bfloat16() for value in before]

    class CastData(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if precision == "bf16-true":
                batch[0] = batch[0].bfloat16()

    callback = LateSAM(start=0, rho=0.5)
    task.train(tmp_path, [callback, CastData()], module, precision=precision)
    assert callback.sam_steps == 12
    for parameter, value in zip(module.network.parameters(), before, strict=True):
        assert torch.equal(parameter.detach(), value)


@pytest.mark.parametrize(
    "averaging",
    [
        lambda: StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1),
        lambda: EMAWeightAveraging(decay=0.9),
    ],
)
def test_weight_averaging_works_together_with_it(task, tmp_path, averaging):
    module, _ = task.train(
        tmp_path, [LateSAM(start=0.5), averaging()], max_epochs=4, enable_checkpointing=True
    )
    assert all(torch.isfinite(value).all() for value in task.weights(module).values())


def test_it_warns_if_it_never_became_active(task, tmp_path):
    with pytest.warns(UserWarning, match="never became active: the run ended after 2 optimizer"):
        task.train(tmp_path, [LateSAM(start=5, unit="step")], max_epochs=2, limit_train_batches=1)


def test_a_checkpoint_grows_by_less_than_a_kilobyte(task, tmp_path):
    sizes = []
    for callbacks in ([], [LateSAM(start=0)]):
        _, trainer = task.train(tmp_path, callbacks)
        trainer.save_checkpoint(tmp_path / "end.ckpt")
        sizes.append((tmp_path / "end.ckpt").stat().st_size)
    assert sizes[1] - sizes[0] < 1024


def test_a_lightning_without_the_private_interface_uses_public_hooks(task, tmp_path, monkeypatch):
    expected, _ = task.train(tmp_path, [LateSAM(start=0.5, rho=0.1)])
    monkeypatch.setattr(closures, "_builds_closures", lambda trainer: False)
    monkeypatch.setattr(closures, "passes_of", closures._WholeClosure)
    module, _ = task.train(tmp_path, [LateSAM(start=0.5, rho=0.1)])
    task.assert_same_bits(task.weights(module), task.weights(expected))
    assert "optimizer_step" not in module.__dict__
    with pytest.raises(MisconfigurationException, match="accumulate_grad_batches must be 1"):
        task.train(tmp_path, [LateSAM(start=0.5)], accumulate_grad_batches=2)


def test_a_checkpoint_written_on_an_exception_has_unperturbed_weights(task, tmp_path):
    class Fails(task.Classifier):
        def training_step(self, batch, batch_idx):
            if len(self.passes.losses) == 7:  # the second pass of the fourth step
                raise RuntimeError("on purpose")
            return super().training_step(batch, batch_idx)

    callbacks = [LateSAM(start=0, rho=0.1), OnExceptionCheckpoint(tmp_path)]
    with pytest.raises(RuntimeError, match="on purpose"):
        task.train(tmp_path, callbacks, Fails(), enable_checkpointing=True)
    saved = torch.load(tmp_path / "on_exception.ckpt", weights_only=True)["state_dict"]
    expected, _ = task.train(tmp_path, [LateSAM(0, unit="step", rho=0.1)], max_steps=3)
    for name, parameter in expected.network.named_parameters():
        assert torch.equal(saved[f"network.{name}"], parameter)


@pytest.mark.parametrize("loggers", [[], ["csv"], ["tensorboard"], ["csv", "tensorboard"]])
def test_it_logs_to_no_logger_one_or_several(task, tmp_path, loggers):
    classes = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
    chosen = [classes[name](tmp_path / name) for name in loggers]
    task.train(tmp_path, [LateSAM(start=0)], logger=chosen or False, log_every_n_steps=4)
    if "csv" in loggers:
        with next((tmp_path / "csv").rglob("metrics.csv")).open() as file:
            rows = [row for row in csv.DictReader(file) if row["sam/loss_gap"]]
        assert [row["step"] for row in rows] == ["3", "7", "11"]
    if "tensorboard" in loggers:
        assert list((tmp_path / "tensorboard").rglob("events.*"))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_with_an_interval_the_last_sam_step_is_logged_while_the_phase_lasts(
    task, tmp_path, accumulate
):
    def rows(folder, every):
        # SAM steps are 1, 5, 9, 13 and 17; either every third step is logged, or every step.
        # The phase ends with an epoch; until its end Lightning repeats the last logged value.
        sam = LateSAM(start=1, end=18, unit="step", interval=4)
        logger = CSVLogger(tmp_path / folder)
        task.train(
            tmp_path,
            [sam],
            logger=logger,
            log_every_n_steps=every,
            accumulate_grad_batches=accumulate,
            max_epochs=4 * accumulate,
        )
        with next((tmp_path / folder).rglob("metrics.csv")).open() as file:
            found = [row for row in csv.DictReader(file) if row["sam/loss_gap"]]
        return {int(row["step"]): (row["sam/loss_gap"], row["sam/gradient_norm"]) for row in found}

    measured, logged = rows("all", 1), rows("thirds", 3)
    assert list(measured) == list(range(1, 18))
    assert len(set(measured.values())) == 5
    assert all(measured[step] == measured[step - (step - 1) % 4] for step in measured)
    assert logged == {step: measured[step] for step in range(2, 18, 3)}


def test_a_compiled_network_gives_the_same_weights_and_is_not_compiled_again(task, tmp_path):
    def run(backend):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        module = task.Classifier()
        module.network[3].p = 0.0  # compiled code draws other random numbers than eager code
        if backend:
            # torch 2.9 ignores `compile()` of a module that torch itself defines.
            module.network.forward = torch.compile(module.network.forward, backend=backend)
        task.train(tmp_path, [LateSAM(start=0.5, rho=0.1)], module)
        return task.weights(module), torch._dynamo.utils.counters["stats"]["unique_graphs"]

    eager, _ = run(None)
    compiled, graphs = run("aot_eager")
    assert graphs == 1
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-5, atol=1e-6)


def test_before_start_it_runs_no_operation(task, tmp_path):
    plain = operations_of_the_third_step(task, tmp_path, [])
    inactive = operations_of_the_third_step(task, tmp_path, [LateSAM(start=1, unit="epoch")])
    assert inactive.total == plain.total


def test_a_sam_step_does_not_wait_for_the_device(task, tmp_path):
    plain = operations_of_the_third_step(task, tmp_path, [])
    active = operations_of_the_third_step(task, tmp_path, [LateSAM(start=0)])
    assert active.total > 1.5 * plain.total
    assert active.synchronizations == plain.synchronizations
