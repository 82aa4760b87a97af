"""LateAdversarialTraining compared with a manual loop, and the state that it must not change."""

import warnings
from collections import namedtuple

import pytest
import torch
from kill_and_resume import assert_killed_run_resumes_exactly
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from operation_count import operations_of_the_third_step
from recording_callbacks import RecordRandomState
from reference_adversarial_training import by_hand, late, reference_attack
from reference_sam import train_with_reference_sam
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from lightning_plugins.attacks.image import pgd
from lightning_plugins.callbacks import ExactResume, LateAdversarialTraining, LateSAM


@pytest.mark.scale(plugin="LateAdversarialTraining", strategy="one device")
@pytest.mark.parametrize("accumulate", [1, 3, 4])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("random_start", [True, False])
def test_weights_equal_those_of_a_manual_loop(task, tmp_path, accumulate, norm, random_start):
    options = {"norm": norm, "steps": 3, "random_start": random_start}
    module, _ = task.train(tmp_path, [late(0.5, **options)], accumulate_grad_batches=accumulate)
    steps = 2 * -(-task.steps_an_epoch // accumulate)
    expected = by_hand(task, lambda step: step >= steps // 2, accumulate=accumulate, **options)
    task.assert_same_bits(task.weights(module), expected)
    plain, _ = task.train(tmp_path, accumulate_grad_batches=accumulate)
    assert not torch.equal(plain.network[0].weight, module.network[0].weight)


def test_fgsm_equals_that_of_a_manual_loop(task, tmp_path):
    module, _ = task.train(tmp_path, [late(attack="fgsm")])
    expected = by_hand(task, lambda step: step >= 6, attack="fgsm")
    task.assert_same_bits(task.weights(module), expected)


@pytest.mark.parametrize(
    ("start", "end", "unit", "first", "last"),
    [
        (0, None, "fraction", 0, 12),
        (0.75, None, "fraction", 9, 12),
        (0.25, 0.5, "fraction", 3, 6),
        (1, None, "epoch", 6, 12),
        (5, 7, "step", 5, 7),
    ],
)
def test_it_is_active_from_start_to_end(task, tmp_path, start, end, unit, first, last):
    callback = late(start, end=end, unit=unit, steps=2)
    module, _ = task.train(tmp_path, [callback])
    assert callback.adversarial_batches == last - first
    assert callback.first_active_step == first
    expected = by_hand(task, lambda step: first <= step < last, steps=2)
    task.assert_same_bits(task.weights(module), expected)


def test_before_start_the_run_equals_the_run_without_it_bit_for_bit(task, tmp_path):
    def run(callbacks):
        end = RecordRandomState()
        short = {"max_epochs": 1, "limit_train_batches": 5}
        module, trainer = task.train(tmp_path, [*callbacks, end], **short)
        return task.weights(module), trainer.optimizers[0].state_dict()["state"], end.state

    plain, plain_state, plain_random_state = run([])
    with pytest.warns(UserWarning, match="never became active: the run ended after 5 optimizer"):
        idle, idle_state, idle_random_state = run([late(1, unit="epoch")])
    task.assert_same_bits(plain, idle)
    assert torch.equal(plain_random_state, idle_random_state)
    for key, buffers in plain_state.items():
        assert torch.equal(buffers["momentum_buffer"], idle_state[key]["momentum_buffer"])


def test_it_runs_no_operation_while_idle_and_does_not_synchronize_while_active(task, tmp_path):
    plain = operations_of_the_third_step(task, tmp_path, [])
    idle = operations_of_the_third_step(task, tmp_path, [late(1, unit="epoch")])
    active = operations_of_the_third_step(task, tmp_path, [late(0)])
    assert idle.total == plain.total
    assert active.total > 2 * plain.total
    assert active.synchronizations == plain.synchronizations


@pytest.mark.parametrize("attacks_first", [True, False])
def test_both_passes_of_sam_see_the_same_adversarial_batch(task, tmp_path, attacks_first):
    seen = []

    class Records(task.Classifier):
        def training_step(self, batch, batch_idx):
            seen.append(batch[0])
            return super().training_step(batch, batch_idx)

    callbacks = [late(0, random_start=False), LateSAM(0, rho=0.1)]
    module = Records()
    module.network[3].p = 0.0
    task.train(tmp_path, callbacks if attacks_first else callbacks[::-1], module, max_epochs=1)
    clean = list(task.batches())
    assert len(seen) == 2 * len(clean)
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        assert first is second

    network = task.network()
    network[3].p = 0.0
    optimizer = task.sgd(network.parameters())
    for (features, labels), first in zip(clean, seen[::2], strict=True):
        found = reference_attack(network, features, labels, random_start=False)
        assert torch.equal(found, first)
        one_batch = [(found, labels)]
        train_with_reference_sam(
            network, optimizer, lambda batch=one_batch: batch, lambda step: True, epochs=1
        )
    task.assert_same_bits(task.weights(module), network.state_dict())


def test_the_attack_restores_modes_gradients_metrics_and_buffers_and_logs_nothing(task, tmp_path):
    logged, attacked_in = [], []

    class Watched(task.Classifier):
        def __init__(self):
            super().__init__()
            self.network[1].eval()
            self.register_buffer("calls", torch.zeros(()))

        def on_train_epoch_start(self):
            self.network[1].training = False

        def on_train_batch_start(self, batch, batch_idx):
            self.gradients = {
                parameter: (parameter.grad, parameter.grad.clone())
                for parameter in self.parameters()
                if parameter.grad is not None
            }

        def forward(self, features):
            self.calls += 1
            self.accuracy.update(self.network(features), torch.zeros(len(features)).long())
            self.log("forward", 1.0)
            attacked_in.append([module.training for module in self.modules()])
            return self.network(features)

        def training_step(self, batch, batch_idx):
            assert self.accuracy._update_count == batch_idx
            assert self.calls == batch_idx
            assert not self.network[1].training
            assert self.network[3].training
            assert len(self.gradients) == (batch_idx > 0) * len(list(self.parameters()))
            for parameter, (gradient, value) in self.gradients.items():
                assert parameter.grad is gradient
                assert torch.equal(gradient, value)
            return cross_entropy(self(batch[0]), batch[1])

        def log(self, name, *args, **kwargs):
            logged.append(name)

    module = Watched()
    task.train(tmp_path, [late(0, steps=2)], module, max_epochs=1)
    assert logged.count("forward") == task.steps_an_epoch
    in_attack = [modes for modes in attacked_in if not any(modes)]
    assert len(in_attack) == 2 * task.steps_an_epoch
    assert "log" not in vars(module)


def test_the_data_of_the_loader_is_not_modified(task, tmp_path):
    features, labels = task.samples()
    kept = features.clone()
    views = DataLoader(
        [(features[i : i + 5], labels[i : i + 5]) for i in range(0, 30, 5)], batch_size=None
    )
    seen = []

    class Sees(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(batch[0])

    trainer = task.trainer(tmp_path, [late(0), Sees()], max_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(task.Classifier(), views)
    assert torch.equal(features, kept)
    assert torch.equal(torch.cat(seen), kept)


Pair = namedtuple("Pair", ["features", "labels"])
AS = {
    "list": (list, {}),
    "tuple": (tuple, {}),
    "swapped": (lambda pair: [pair[1], pair[0]], {"input_key": 1, "label_key": 0}),
    "named tuple": (lambda pair: Pair(*pair), {}),
    "dictionary": (
        lambda pair: {"x": pair[0], "y": pair[1], "more": 3},
        {"input_key": "x", "label_key": "y"},
    ),
}


class Batches:
    """Yields fixed batches; torch's DataLoader would draw a seed from the global generator."""

    def __init__(self, batches):
        self._batches = batches

    def __iter__(self):
        return iter(self._batches)

    def __len__(self):
        return len(self._batches)


@pytest.mark.parametrize("kind", AS)
def test_batches_keep_their_type(task, tmp_path, kind):
    collate, keys = AS[kind]

    class Unpacks(task.Classifier):
        def training_step(self, batch, batch_idx):
            assert type(batch) is type(collate([1, 2]))
            if kind == "dictionary":
                assert batch["more"] == 3
                batch = [batch["x"], batch["y"]]
            elif kind == "swapped":
                batch = batch[::-1]
            return super().training_step(batch, batch_idx)

    module = Unpacks()
    loader = Batches([collate(pair) for pair in task.batches()])
    torch.manual_seed(11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task.trainer(tmp_path, [late(0.5, **keys)]).fit(module, loader)
    task.assert_same_bits(task.weights(module), by_hand(task, lambda step: step >= 6))


def test_the_loss_method_is_attacked_if_it_takes_images_and_labels(task, tmp_path):
    calls = []

    class WithLoss(task.Classifier):
        def loss(self, images, labels):
            calls.append(images)
            return cross_entropy(self(images), labels)

    class OfLogits(task.Classifier):
        def loss(self, logits, labels):
            raise AssertionError("takes logits, not images")

    class Attribute(task.Classifier):
        def __init__(self):
            super().__init__()
            self.loss = torch.nn.CrossEntropyLoss()

    expected, _ = task.train(tmp_path, [late()])
    for cls in (WithLoss, OfLogits, Attribute):
        module, _ = task.train(tmp_path, [late()], cls())
        task.assert_same_bits(task.weights(module), task.weights(expected))
    assert len(calls) == 10 * 6


class WithStatistics(LightningDataModule):
    mean, std = [0.3], [0.5]

    def __init__(self, task):
        super().__init__()
        self.task = task

    def train_dataloader(self):
        return self.task.batches()


def test_normalization_is_read_from_the_data_module_unless_passed(task, tmp_path):
    def first_change(data, **arguments):
        changes = []

        class Sees(task.Classifier):
            def training_step(self, batch, batch_idx):
                changes.append((batch[0] - features[:5]).abs().max().item())

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            task.trainer(tmp_path, [late(0, **arguments)], max_steps=1, max_epochs=1).fit(
                Sees(), data
            )
        return changes[0]

    features, _ = task.samples()
    assert first_change(task.batches()) == pytest.approx(0.2)
    assert first_change(WithStatistics(task)) == pytest.approx(0.4)
    assert first_change(WithStatistics(task), mean=[0.0], std=[0.1]) == pytest.approx(2.0)


def test_resuming_in_either_phase_gives_the_uninterrupted_weights(task, tmp_path):
    def run(callbacks=(), ckpt_path=None):
        module = task.Classifier(task.adamw, cosine_steps=24)
        callback = late(0.6, steps=2)
        trainer = task.trainer(
            tmp_path,
            [callback, ExactResume(), *callbacks],
            max_epochs=4,
            enable_checkpointing=True,
        )
        if ckpt_path is None:
            torch.manual_seed(11)
        trainer.fit(module, task.batches(), ckpt_path=ckpt_path)
        return module, callback

    every = ModelCheckpoint(tmp_path / "steps", filename="{epoch}", every_n_epochs=1, save_top_k=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, callback = run([every])
        for epoch in (1, 2):
            resumed, again = run(ckpt_path=tmp_path / "steps" / f"epoch={epoch}.ckpt")
            task.assert_same_bits(task.weights(whole), task.weights(resumed))
            assert again.adversarial_batches == callback.adversarial_batches == 10
            assert again.first_active_step == 14


@pytest.mark.parametrize("fails_in", ["attack", "training_step"])
def test_the_loop_is_restored_after_an_error(task, tmp_path, fails_in):
    class Fails(task.Classifier):
        def forward(self, features):
            if self.training == (fails_in == "training_step"):
                raise RuntimeError("on purpose")
            return super().forward(features)

    module = Fails()
    trainer = task.trainer(tmp_path, [late(0)])
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer.fit(module, task.batches())
    assert "_make_closure" not in vars(trainer.fit_loop.epoch_loop.automatic_optimization)
    assert all(part.training for part in module.modules())
    assert "log" not in vars(module)


def test_the_trainer_is_restored_after_a_run(task, tmp_path):
    _, run = task.train(tmp_path, [late(0)])
    assert "_make_closure" not in vars(run.fit_loop.epoch_loop.automatic_optimization)


def test_it_logs_the_loss_gap_at_logging_steps(task, tmp_path):
    logger = CSVLogger(tmp_path)
    task.train(tmp_path, [late(0)], logger=logger, log_every_n_steps=4)
    lines = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()
    column = lines[0].split(",").index("adversarial/loss_gap")
    gaps = [line.split(",")[column] for line in lines[1:]]
    values = [float(gap) for gap in gaps if gap]
    assert len(values) == 3
    assert min(values) > 0


def test_the_loss_gap_is_the_loss_of_the_adversarial_batch_minus_that_of_the_batch(task, tmp_path):
    logger = CSVLogger(tmp_path)
    task.train(
        tmp_path, [late(0, random_start=False)], logger=logger, max_steps=1, log_every_n_steps=1
    )
    text = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()
    gap = float(text[1].split(",")[text[0].split(",").index("adversarial/loss_gap")])
    network = task.network()
    features, labels = next(iter(task.batches()))
    found = reference_attack(network, features, labels, random_start=False)
    network.eval()
    expected = cross_entropy(network(found), labels) - cross_entropy(network(features), labels)
    assert gap == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_the_attack_runs_in_the_precision_of_the_run(task, tmp_path, precision):
    kinds = {"attack": set(), "training": set()}

    class Records(task.Classifier):
        def forward(self, features):
            logits = super().forward(features)
            kinds["training" if self.training else "attack"].add(logits.dtype)
            return logits

    task.train(tmp_path, [late(0, steps=2)], Records(), max_epochs=1, precision=precision)
    assert kinds["attack"] == kinds["training"]
    assert kinds["attack"] == {torch.bfloat16 if precision == "bf16-mixed" else torch.float64}


def test_small_gradients_in_half_precision_are_scaled_as_in_training(task, tmp_path):
    class Tiny(task.Classifier):
        """The gradient by the features is below the smallest number of half precision."""

        def loss(self, images, labels):
            half = images.half()
            return (half * 1e-4).mul(1e-4).sum()

        def training_step(self, batch, batch_idx):
            changes.append((batch[0] - features[:5]).abs().max().item())
            return super().training_step(batch, batch_idx)

    features, _ = task.samples()
    changes = []
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    plugin = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    task.train(
        tmp_path, [late(0, random_start=False)], Tiny(), plugins=[plugin], max_steps=1, max_epochs=1
    )
    assert changes[0] == pytest.approx(0.2)


def test_the_published_step_is_half_the_published_radius():
    callback = LateAdversarialTraining()
    assert (callback.eps, callback.steps, callback.random_start) == (4 / 255, 10, True)
    x = torch.full((1, 1, 1, 1), 0.5)
    found = pgd(lambda x: x.sum(), x, callback.eps, steps=1, random_start=False)
    assert (found - x).item() == pytest.approx(2 / 255, abs=1e-6)


def test_a_reused_callback_resets_its_counter(task, tmp_path):
    callback = late(0.5, steps=1)
    for _ in range(2):
        task.train(tmp_path, [callback])
        assert (callback.first_active_step, callback.adversarial_batches) == (6, 6)


def test_two_phases_one_after_the_other(task, tmp_path):
    callbacks = [late(0, end=0.25, steps=2), late(0.75, steps=2)]
    module, _ = task.train(tmp_path, callbacks)
    assert [callback.adversarial_batches for callback in callbacks] == [3, 3]
    expected = by_hand(task, lambda step: step < 3 or step >= 9, steps=2)
    task.assert_same_bits(task.weights(module), expected)


def test_a_checkpoint_grows_by_less_than_a_kilobyte(task, tmp_path):
    sizes = []
    for callbacks in ([], [late(0, steps=1)]):
        _, trainer = task.train(tmp_path, callbacks)
        trainer.save_checkpoint(tmp_path / "end.ckpt")
        sizes.append((tmp_path / "end.ckpt").stat().st_size)
    assert sizes[1] - sizes[0] < 1024


@pytest.mark.slow
def test_a_killed_run_of_the_recipe_resumes_bit_for_bit(tmp_path):
    options = ["--config", "late_at/digits", "--trainer.max_epochs=3", "--data.random_shift=1"]
    assert_killed_run_resumes_exactly(options, tmp_path, steps=120)
