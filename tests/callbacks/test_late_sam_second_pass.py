"""The second pass of LateSAM leaves no trace in modules that write state in training_step."""

import copy
import random
from array import array
from collections import ChainMap, UserDict, deque
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.amp import GradScaler
from torch.nn.functional import cosine_similarity, cross_entropy, log_softmax, normalize, softmax
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from lightning_plugins.callbacks import LateSAM, SharpnessMonitor


class Learner(LightningModule):
    """A network that a subclass trains with more state than the optimizer's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))
        self.prepare()

    def prepare(self):
        pass

    def training_step(self, batch, batch_idx):
        return cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), lr=0.1)


@torch.no_grad()
def follow(teacher, student, momentum=0.9):
    for mean, own in zip(teacher.parameters(), student.parameters(), strict=True):
        mean.data = mean.data * momentum + own.data * (1 - momentum)


class MeanTeacher(Learner):
    def prepare(self):
        self.teacher = copy.deepcopy(self.network).requires_grad_(False)

    def training_step(self, batch, batch_idx):
        follow(self.teacher, self.network)
        consistency = (self.network(batch[0]) - self.teacher(batch[0])).square().mean()
        return super().training_step(batch, batch_idx) + consistency


class BYOL(Learner):
    """Its target requires gradients, receives none, and is the optimizer's."""

    def prepare(self):
        self.target = copy.deepcopy(self.network)
        self.predictor = nn.Linear(3, 3)

    def training_step(self, batch, batch_idx):
        follow(self.target, self.network)
        with torch.no_grad():
            target = self.target(batch[0] + 0.1)
        return -cosine_similarity(self.predictor(self.network(batch[0])), target).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class MoCo(Learner):
    """A momentum encoder, and a queue of keys as buffers."""

    def prepare(self):
        self.key_encoder = copy.deepcopy(self.network).requires_grad_(False)
        self.register_buffer("queue", normalize(torch.randn(3, 20), dim=0))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))

    def training_step(self, batch, batch_idx):
        query = normalize(self.network(batch[0]))
        with torch.no_grad():
            follow(self.key_encoder, self.network)
            key = normalize(self.key_encoder(batch[0] + 0.1))
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ self.queue.clone()], 1)
        start = int(self.pointer)
        self.queue[:, start : start + len(key)] = key.T
        self.pointer[0] = (start + len(key)) % self.queue.shape[1]
        return cross_entropy(logits, torch.zeros(len(query), dtype=torch.long))


class DINO(Learner):
    """A teacher outside the module tree, a centre that is replaced, a schedule that counts."""

    def prepare(self):
        self.hidden = [copy.deepcopy(self.network)]
        self.center = torch.zeros(1, 3)
        self.temperature = 0.1

    def training_step(self, batch, batch_idx):
        student = self.network(batch[0])
        with torch.no_grad():
            follow(self.hidden[0], self.network)
            teacher = self.hidden[0](batch[0])
            target = softmax((teacher - self.center) / self.temperature, dim=1)
            self.center = self.center * 0.9 + teacher.mean(0, keepdim=True) * 0.1
        self.temperature *= 0.95
        return -(target * log_softmax(student, dim=1)).sum(1).mean()


class MovingAverage:
    """Not a module: the shadow weights of an exponential moving average."""

    def __init__(self, network):
        self.shadow = [parameter.detach().clone() for parameter in network.parameters()]
        self.updates = 0

    def update(self, network):
        self.updates += 1
        for mean, own in zip(self.shadow, network.parameters(), strict=True):
            mean.mul_(0.9).add_(own.detach(), alpha=0.1)


class Meter:
    """Attributes in slots, one of them unset at first."""

    __slots__ = ("history", "last", "total")

    def __init__(self):
        self.total, self.history = 0.0, []


class Everything(Learner):
    """A memory bank, spectral normalization, counters, collections, modules made on the fly."""

    calls, marks = 0, []

    def prepare(self):
        self.network[3] = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 3))
        self.bank, self.counts = torch.zeros(30, 3), np.zeros(3)
        self.average = MovingAverage(self.network)
        self.steps, self.total, self.last, self.made = 0, 0.0, None, None
        self.outputs, self.recent, self.seen = [], deque(maxlen=3), set()
        self.by_class = {"scores": {0: torch.zeros(3)}}
        self.noise = torch.Generator().manual_seed(0)
        self.draws, self.choices = np.random.default_rng(0), random.Random(0)
        self.legacy = np.random.RandomState(0)
        self.meter, self.state = Meter(), SimpleNamespace(steps=0, named=UserDict())
        self.scalars = [torch.zeros(())]
        self.replay = deque(range(20_000), maxlen=20_000)
        self.save_hyperparameters({"temperature": 1.0})
        self.totals, self.layers = array("d", [0.0]), ChainMap({})
        self.cells = np.array([[0], {}], dtype=object)
        self.frame, self.row = pandas.DataFrame({"a": [0.0]}), pandas.Series([0.0])
        self.averaged, self.scaler = AveragedModel(self.network), GradScaler("cpu", 2.0)
        self.side = nn.Linear(2, 2)
        self.side_optimizer = torch.optim.AdamW(self.side.parameters(), lr=0.1)
        self.side_rates = torch.optim.lr_scheduler.ExponentialLR(self.side_optimizer, 0.9)
        Everything.calls = 0
        self.marks.clear()

    def training_step(self, batch, batch_idx):
        self.steps += 1
        logits = self.network(batch[0] + 0.1 * torch.randn(6, generator=self.noise))
        loss = cross_entropy(logits, batch[1])
        self.total += float(loss.detach())
        self.bank[batch_idx * 5 : batch_idx * 5 + 5] = logits.detach()
        self.counts += np.bincount(batch[1].numpy(), minlength=3) * self.draws.random()
        self.average.update(self.network)
        self.outputs.append(loss.detach())
        self.recent.append(self.choices.random())
        self.seen.add(float(loss.detach()))
        self.by_class["scores"][0] += logits.detach().sum(0)
        self.by_class[self.steps] = float(loss.detach())
        self.last, self.made = logits.detach(), nn.Linear(2, 2)
        self.meter.total += self.legacy.rand()
        self.meter.last = self.steps
        self.meter.history.append(self.steps)
        self.state.steps += 1
        self.state.named[self.steps] = 1
        self.scalars[0] += 1
        self.replay.append(self.steps)
        Everything.calls += 1
        self.marks.append(self.steps)
        self.totals[0] += self.steps
        self.layers["steps"] = self.steps
        self.cells[0].append(self.steps)
        self.frame.loc[len(self.frame)] = self.steps
        self.row[0] += 1
        self.averaged.update_parameters(self.network)
        self.scaler.scale(torch.ones(1))
        self.scaler.update(self.scaler.get_scale() * 2)
        self.side.requires_grad_(self.steps % 2 == 0)
        self.side.bias.grad = torch.ones(2)
        self.side_optimizer.step()
        self.side_rates.step()
        self.hparams.temperature *= 0.9
        self.add_module(f"head_{len(self._modules)}", nn.Linear(1, 1))
        setattr(self, f"loss_{float(loss.detach())}", 1)
        return loss


def plain_copy(value):
    """A copy of all that is reachable, as plain data that can be compared."""
    if isinstance(value, torch.nn.Parameter):
        return value.requires_grad, value.tolist()
    if isinstance(value, torch.Tensor):
        return ("tensor", str(value.dtype), value.detach().flatten().tolist())
    if isinstance(value, pandas.DataFrame | pandas.Series):
        return value.to_dict()
    if isinstance(value, GradScaler | torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler):
        return plain_copy(value.state_dict())
    if isinstance(value, nn.Module):
        return {name: plain_copy(part) for name, part in state_of(value).items()}
    if isinstance(value, dict):
        return {name: plain_copy(part) for name, part in value.items()}
    if isinstance(value, (list, tuple, deque, array)):
        return [plain_copy(part) for part in value]
    if isinstance(value, MovingAverage | SimpleNamespace | UserDict | ChainMap):
        return plain_copy(vars(value))
    if isinstance(value, Meter):
        return [plain_copy(getattr(value, name, None)) for name in Meter.__slots__]
    if isinstance(value, np.random.RandomState):
        return plain_copy(value.get_state(legacy=False))
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, np.random.Generator):
        return value.random.__self__.bit_generator.state
    if isinstance(value, random.Random):
        return value.getstate()
    return plain_copy(value.tolist()) if isinstance(value, np.ndarray) else value


def state_of(module):
    names = set(vars(module)) - set(vars(LightningModule())) - {"passes"}
    kept = {name: vars(module)[name] for name in names if name != "log"}
    of_class = {name: plain_copy(getattr(module, name, None)) for name in ("calls", "marks")}
    return {**kept, **of_class, **module._parameters, **module._buffers, **module._modules}


class StateAfterTheFirstPass(Callback):
    """Compares the module's state when the optimizer steps with that after the first pass."""

    def __init__(self):
        self.compared = 0

    def on_train_start(self, trainer, pl_module):
        step, self.calls = pl_module.training_step, 0

        def counted(batch, batch_idx):
            if self.calls % 2:  # the second pass: nothing has changed since the first one
                self.expected = plain_copy(pl_module), plain_copy(pl_module.network)
            self.calls += 1
            return step(batch, batch_idx)

        pl_module.__dict__["training_step"] = counted

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        del pl_module.__dict__["training_step"]
        state, perturbed = self.expected
        found = plain_copy(pl_module)
        assert found.pop("network") != perturbed  # the weights were perturbed, and are restored
        state.pop("network"), state.pop("training_step")
        if isinstance(pl_module, BYOL):  # only the target is not the optimizer's to move
            found.pop("predictor"), state.pop("predictor")
        assert found == state
        self.compared += 1
        self.on_train_start(trainer, pl_module)


@pytest.mark.parametrize("accumulation", ["exact", "micro-batch"])
@pytest.mark.parametrize("kind", [MeanTeacher, BYOL, MoCo, DINO, Everything])
def test_state_is_that_of_the_first_pass_when_the_optimizer_steps(
    task, tmp_path, kind, accumulation
):
    comparison = StateAfterTheFirstPass()
    sam = LateSAM(start=0, rho=0.3, accumulation=accumulation)
    task.train(tmp_path, [sam, comparison], kind(), max_epochs=1)
    assert sam.sam_steps == comparison.compared == task.steps_an_epoch


def test_a_measurement_of_sharpness_leaves_no_trace(task, tmp_path):
    def state_after_training(callbacks):
        module, _ = task.train(tmp_path, callbacks, Everything(), max_epochs=1)
        return plain_copy(module)

    monitor = SharpnessMonitor(num_samples=5, batch_size=5, max_share=1.0)
    assert state_after_training([]) == state_after_training([monitor])
    assert len(monitor.steps) == 1
    with pytest.raises(MisconfigurationException, match=r"batch of 8 samples.*set batch_size="):
        state_after_training([SharpnessMonitor(num_samples=8)])  # the bank takes 5 of them


@pytest.mark.parametrize("kind", [MeanTeacher, MoCo, DINO])
def test_teachers_move_once_a_step(task, tmp_path, kind):
    def teacher_after_one_step(callbacks):
        module, _ = task.train(tmp_path, callbacks, kind(), max_steps=1)
        teacher = {MeanTeacher: "teacher", MoCo: "key_encoder", DINO: "hidden"}[kind]
        return plain_copy(getattr(module, teacher)), plain_copy(module.network)

    (plain, plain_student), (sam, sam_student) = map(
        teacher_after_one_step, ([], [LateSAM(start=0)])
    )
    assert plain == sam
    assert plain_student != sam_student


def test_rates_that_the_step_sets_and_schedules_that_it_steps_move_once(task, tmp_path):
    class Decays(Learner):
        def training_step(self, batch, batch_idx):
            self.optimizers().param_groups[0]["weight_decay"] += 1
            self.lr_schedulers().step()
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            parts = [torch.optim.lr_scheduler.ExponentialLR(optimizer, g) for g in (0.9, 0.5)]
            schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, parts, [3])
            return [optimizer], [{"scheduler": schedule, "frequency": 100}]

    def after_four_steps(callbacks):
        _, trainer = task.train(tmp_path, callbacks, Decays(), max_steps=4)
        schedule = trainer.lr_scheduler_configs[0].scheduler
        (group,) = trainer.optimizers[0].param_groups
        counts = [part.last_epoch for part in (schedule, *schedule._schedulers)]
        return group["lr"], group["weight_decay"], counts

    assert after_four_steps([]) == after_four_steps([LateSAM(start=0)])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_second_pass_gets_the_batch_as_it_was_before_the_first_one(task, tmp_path, accumulate):
    class Consumes(Learner):
        def training_step(self, batch, batch_idx):
            batch = batch["parts"]
            seen.append((batch["x"].clone(), batch["y"].clone()))
            batch["x"].mul_(2)
            return cross_entropy(self.network(batch["x"]), batch.pop("y"))

    seen = []
    x, y = task.samples()
    data = [{"parts": {"x": row, "y": label}} for row, label in zip(x, y, strict=True)]
    trainer = task.trainer(
        tmp_path, [LateSAM(start=0)], max_steps=3, accumulate_grad_batches=accumulate
    )
    trainer.fit(Consumes(), DataLoader(data, 5))
    n = accumulate
    for step in range(0, len(seen), 2 * n):
        first, second = seen[step : step + n], seen[step + n : step + 2 * n]
        assert all(
            torch.equal(a, b)
            for pair in zip(first, second, strict=True)
            for a, b in zip(*pair, strict=True)
        )


def test_an_iterator_that_cannot_be_rewound_is_named_once(task, tmp_path):
    class SecondLoader(Learner):
        def on_train_start(self):
            self.network.unlabeled = {"images": iter(range(100))}

    for callback in (LateSAM(start=0), SharpnessMonitor()):
        with pytest.warns(UserWarning, match=r"iterator in network\.unlabeled") as caught:
            task.train(tmp_path, [callback], SecondLoader(), max_steps=3)
        assert sum("iterator in" in str(one.message) for one in caught) == 1


def test_gradients_of_parameters_without_an_optimizer_are_those_of_the_first_pass(task, tmp_path):
    class SecondHead(Learner):
        def prepare(self):
            self.unused = nn.Linear(3, 3)

        def training_step(self, batch, batch_idx):
            return cross_entropy(self.unused(self.network(batch[0])), batch[1])

    def gradient(callbacks):
        module, _ = task.train(tmp_path, callbacks, SecondHead(), max_steps=1)
        return module.unused.weight.grad

    assert torch.equal(gradient([]), gradient([LateSAM(start=0, rho=0.5)]))


class Hooks(Callback):
    def __init__(self):
        self.calls, self.gradients = [], []

    def on_before_zero_grad(self, *_):
        self.calls.append("zero_grad")

    def on_before_backward(self, trainer, pl_module, loss):
        self.calls.append("before")

    def on_after_backward(self, trainer, pl_module):
        self.calls.append("after")
        self.gradients.append(pl_module.network[0].weight.grad.clone())

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        assert torch.equal(self.gradients[-1], pl_module.network[0].weight.grad)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_hooks_of_callbacks_run_once_and_see_the_gradient_of_the_step(task, tmp_path, accumulate):
    plain, sam = Hooks(), Hooks()
    for callbacks in ([plain], [LateSAM(start=0), sam]):
        task.train(tmp_path, callbacks, accumulate_grad_batches=accumulate)
    assert sorted(plain.calls) == sorted(sam.calls)
    assert sam.calls == plain.calls or accumulate > 1
    assert "on_after_backward" not in vars(sam)


def with_hooks(act):
    class Hooked(Learner):
        def configure_optimizers(self):
            own = {p: torch.optim.SGD([p], lr=0.1) for p in self.network.parameters()}
            for parameter in own:
                parameter.register_post_accumulate_grad_hook(lambda p: act(own[p], p))
            return torch.optim.SGD(self.network.parameters(), lr=0.1)

    return Hooked()


@pytest.mark.parametrize("start", [0, 0.75])
@pytest.mark.parametrize("zeroes", [True, False])
def test_an_optimizer_that_steps_in_the_backward_pass_is_refused_at_once(
    task, tmp_path, start, zeroes
):
    def step(optimizer, parameter):
        optimizer.step()
        if zeroes:
            optimizer.zero_grad()

    module = with_hooks(step)
    with pytest.raises(MisconfigurationException, match="steps in the backward pass"):
        task.train(tmp_path, [LateSAM(start=start)], module)
    assert module.trainer.global_step == 0


def test_hooks_that_only_read_gradients_are_accepted(task, tmp_path):
    seen = SimpleNamespace(norms=[])
    module = with_hooks(lambda optimizer, parameter: seen.norms.append(parameter.grad.norm()))
    sam = LateSAM(start=0)
    task.train(tmp_path, [sam], module, max_epochs=1)
    assert sam.sam_steps == task.steps_an_epoch
    assert all(len(p._post_accumulate_grad_hooks) == 1 for p in module.network.parameters())
