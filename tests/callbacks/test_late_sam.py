"""LateSAM against a loop written by hand from the papers' formulas."""

import warnings

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy

from lightning_plugins.callbacks import LateSAM


def by_hand(
    task,
    optimizer_of,
    first_sam_step,
    rho=0.1,
    adaptive=False,
    accumulate=1,
    clip=None,
    cosine_steps=None,
    epochs=2,
    seed=11,
):
    """SAM as in arXiv 2010.01412 (ASAM: 2102.11600), no Lightning; the trained network."""
    network = task.network()
    optimizer = optimizer_of(network.parameters())
    schedule = cosine_steps and torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, cosine_steps)
    parameters = list(network.parameters())
    torch.manual_seed(seed)
    step = 0
    for _ in range(epochs):
        window = []
        all_batches = list(task.batches())
        for index, (features, labels) in enumerate(all_batches):
            random_state = torch.get_rng_state()
            (cross_entropy(network(features), labels) / accumulate).backward()
            window.append((features, labels, random_state))
            if (index + 1) % accumulate and index + 1 < len(all_batches):
                continue
            if step >= first_sam_step:
                after = torch.get_rng_state()
                buffers = [buffer.clone() for buffer in network.buffers()]
                originals = [parameter.detach().clone() for parameter in parameters]
                gradients = [parameter.grad.clone() for parameter in parameters]
                if adaptive:
                    gradients = [g * w.abs() for g, w in zip(gradients, originals, strict=True)]
                norm = torch.stack([g.norm() for g in gradients]).norm()
                with torch.no_grad():
                    for parameter, gradient in zip(parameters, gradients, strict=True):
                        if adaptive:
                            gradient = gradient * parameter.abs()
                        parameter += gradient * (rho / (norm + 1e-12))
                optimizer.zero_grad()
                for features_again, labels_again, state in window:
                    torch.set_rng_state(state)
                    loss = cross_entropy(network(features_again), labels_again)
                    (loss / accumulate).backward()
                with torch.no_grad():
                    for parameter, original in zip(parameters, originals, strict=True):
                        parameter.copy_(original)
                    for buffer, value in zip(network.buffers(), buffers, strict=True):
                        buffer.copy_(value)
                torch.set_rng_state(after)
            if clip == "norm":
                torch.nn.utils.clip_grad_norm_(parameters, 0.1)
            elif clip == "value":
                torch.nn.utils.clip_grad_value_(parameters, 0.1)
            optimizer.step()
            optimizer.zero_grad()
            if schedule:
                schedule.step()
            step += 1
            window = []
    return network


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("accumulate", [1, 3, 4])
@pytest.mark.parametrize("clip", [None, "norm", "value"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_weights_are_those_of_the_loop_written_by_hand(
    task, tmp_path, optimizer, accumulate, clip, adaptive
):
    optimizer_of = getattr(task, optimizer)
    cosine_steps = 12 if optimizer == "adamw" else None
    steps = 2 * -(-task.steps_an_epoch // accumulate)
    module, _ = task.train(
        tmp_path,
        [LateSAM(start=0.5, rho=0.1, adaptive=adaptive)],
        task.Classifier(optimizer_of, cosine_steps),
        accumulate_grad_batches=accumulate,
        gradient_clip_val=0.1 if clip else None,
        gradient_clip_algorithm=clip,
    )
    expected = by_hand(
        task,
        optimizer_of,
        first_sam_step=steps // 2,
        adaptive=adaptive,
        accumulate=accumulate,
        clip=clip,
        cosine_steps=cosine_steps,
    )
    task.assert_same_bits(task.weights(module), expected.state_dict())


@pytest.mark.parametrize(
    ("start", "unit", "first_step"),
    [(0, "fraction", 0), (0.75, "fraction", 9), (1, "epoch", 6), (1.5, "epoch", 9), (5, "step", 5)],
)
def test_sam_begins_at_start(task, tmp_path, start, unit, first_step):
    callback = LateSAM(start=start, unit=unit, rho=0.1)
    module, _ = task.train(tmp_path, [callback])
    assert callback.sam_steps == 12 - first_step
    expected = by_hand(task, task.sgd, first_step)
    task.assert_same_bits(task.weights(module), expected.state_dict())


class RandomStateAtTheEnd(Callback):
    def on_train_end(self, trainer, pl_module):
        self.state = torch.get_rng_state()


def test_before_it_begins_the_run_is_bit_for_bit_the_run_without_it(task, tmp_path):
    def run(callbacks):
        end = RandomStateAtTheEnd()
        module, trainer = task.train(tmp_path, [*callbacks, end], max_steps=5)
        return task.weights(module), trainer.optimizers[0].state_dict()["state"], end.state

    plain, plain_state, plain_random_state = run([])
    with pytest.warns(UserWarning, match="never became active"):
        late, late_state, late_random_state = run([LateSAM(start=1, unit="epoch")])
    task.assert_same_bits(plain, late)
    assert torch.equal(plain_random_state, late_random_state)
    for key, buffers in plain_state.items():
        assert torch.equal(buffers["momentum_buffer"], late_state[key]["momentum_buffer"])


def test_the_random_stream_is_that_of_the_run_without_sam(task, tmp_path):
    class DrawsMoreInTheSecondPass(task.Classifier):
        def training_step(self, batch, batch_idx):
            if self.training_steps > self.trainer.global_step:
                torch.rand(3)
            return super().training_step(batch, batch_idx)

    states = []
    for callbacks, module in (([], task.Classifier()), ([LateSAM(0)], DrawsMoreInTheSecondPass())):
        end = RandomStateAtTheEnd()
        task.train(tmp_path, [*callbacks, end], module, max_steps=1)
        states.append(end.state)
    assert torch.equal(*states)


def test_batch_norm_and_metrics_see_each_batch_once(task, tmp_path):
    module, _ = task.train(tmp_path, [LateSAM(start=0)], max_epochs=1)
    assert module.network[1].num_batches_tracked == task.steps_an_epoch
    assert module.training_steps == 2 * task.steps_an_epoch
    seen = []

    class Count(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen.append(int(pl_module.accuracy.tp.sum() + pl_module.accuracy.fn.sum()))

    task.train(tmp_path, [LateSAM(start=0), Count()], max_epochs=1)
    assert seen == [5, 10, 15, 20, 25, 30]


def test_the_loss_at_the_unperturbed_weights_is_reported_once(task, tmp_path):
    module, run = task.train(tmp_path, [LateSAM(start=0)], max_epochs=1)
    first_losses = torch.tensor(module.losses[::2])
    second_losses = torch.tensor(module.losses[1::2])
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
            if self.training_steps == 3:  # the second pass of the second step
                raise RuntimeError("on purpose")
            return super().training_step(batch, batch_idx)

    module = Fails()
    with pytest.raises(RuntimeError, match="on purpose"):
        task.train(tmp_path, [LateSAM(start=0, rho=0.1)], module)
    expected, _ = task.train(tmp_path, [LateSAM(start=0, unit="step", rho=0.1)], max_steps=1)
    for name, parameter in module.network.named_parameters():
        assert torch.equal(parameter, dict(expected.network.named_parameters())[name])
    assert "log" not in module.__dict__


def test_a_trainer_is_left_as_it_was(task, tmp_path):
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


def test_buffers_of_any_kind_are_as_the_first_pass_left_them(task, tmp_path):
    class Counts(torch.nn.Module):
        """Replaces one buffer and changes another in place at every forward."""

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
        module.network[3].p = 0.0  # random states are ExactResume's concern
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
    # Lightning turns 16-mixed on a CPU into bf16-mixed; the plugin built by hand does not.
    return MixedPrecision(
        "16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=initial_scale)
    )


def test_a_loss_scale_does_not_change_the_perturbation(task, tmp_path):
    """Powers of two leave the bits of scaled and unscaled gradients alone."""

    class SinglePrecision(MixedPrecision):
        def forward_context(self):
            return torch.autocast("cpu", enabled=False)

    plugin = SinglePrecision(
        "16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10)
    )
    scaled, _ = task.train(tmp_path, [LateSAM(start=0, rho=0.1)], plugins=[plugin])
    plain, _ = task.train(tmp_path, [LateSAM(start=0, rho=0.1)])
    for name, value in task.weights(plain).items():
        torch.testing.assert_close(task.weights(scaled)[name], value, rtol=1e-5, atol=1e-6)


def test_an_overflow_backs_the_scale_off_and_training_goes_on(task, tmp_path):
    plugin = half_precision(initial_scale=2.0**40)
    callback = LateSAM(start=0)
    module, _ = task.train(tmp_path, [callback], plugins=[plugin], max_epochs=8)
    assert all(torch.isfinite(value).all() for value in task.weights(module).values())
    assert plugin.scaler.get_scale() < 2.0**40
    assert 0 < callback.sam_steps < 48


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
def test_weight_averaging_works_beside_it(task, tmp_path, averaging):
    module, _ = task.train(
        tmp_path, [LateSAM(start=0.5), averaging()], max_epochs=4, enable_checkpointing=True
    )
    assert all(torch.isfinite(value).all() for value in task.weights(module).values())


def test_it_warns_when_it_never_became_active(task, tmp_path):
    with pytest.warns(UserWarning, match="never became active: the run ended after 2 optimizer"):
        task.train(tmp_path, [LateSAM(start=5, unit="step")], max_epochs=2, limit_train_batches=1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"rho": 0.0}, r"rho=0\.0"),
        ({"rho": float("nan")}, "rho=nan"),
        ({"start": -1}, "start=-1"),
        ({"start": 1.0}, "fraction of the run below 1"),
        ({"start": float("nan")}, "start=nan"),
        ({"unit": "epochs"}, "unit='epochs'"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        LateSAM(**arguments)


def test_a_start_beyond_the_end_of_the_run_is_refused(task, tmp_path):
    with pytest.raises(ValueError, match="the run ends at epoch 2"):
        task.train(tmp_path, [LateSAM(start=2, unit="epoch")], max_epochs=2)
    with pytest.raises(ValueError, match="run without an end"):
        task.train(tmp_path, [LateSAM(start=0.5)], max_epochs=-1)


def test_manual_optimization_is_refused(task, tmp_path):
    module = task.Classifier()
    module.automatic_optimization = False
    with pytest.raises(MisconfigurationException, match="needs automatic optimization"):
        task.train(tmp_path, [LateSAM()], module)


def test_lbfgs_is_refused(task, tmp_path):
    with pytest.raises(MisconfigurationException, match="LBFGS"):
        task.train(tmp_path, [LateSAM()], task.Classifier(torch.optim.LBFGS))


def test_a_training_step_that_fetches_its_own_batches_is_refused(task, tmp_path):
    class Fetches(task.Classifier):
        def training_step(self, dataloader_iter):
            return super().training_step(next(dataloader_iter)[0], 0)

    with pytest.raises(MisconfigurationException, match="dataloader_iter"):
        task.train(tmp_path, [LateSAM()], Fetches())


def test_two_of_them_are_refused(task, tmp_path):
    class Another(LateSAM):
        pass

    with pytest.raises(MisconfigurationException, match="keep one"):
        task.train(tmp_path, [LateSAM(), Another()])


def test_a_checkpoint_gains_less_than_a_kilobyte():
    assert LateSAM().state_dict() == {"sam_steps": 0}
