"""Stages freeze parameters, set rates and data, resume, and equal separate fits."""

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, IterableDataset

from lightning_plugins.callbacks import StagedTraining, TrainingStage
from lightning_plugins.callbacks.exact_resume import ExactResume
from lightning_plugins.datamodules import ResumableDataLoader
from lightning_plugins.strategies import SimulatedDecentralizedStrategy

FIRST = {r"network\.0": 0.02}
SECOND = {r"network\.4": 0.01, ".*": 0.005}


def stages(first=1, second=2):
    return [TrainingStage(first, FIRST), TrainingStage(second, SECOND)]


class Records(Callback):
    """Records weights, learning rates and the optimizer's state at the start of each batch."""

    def __init__(self):
        self.weights, self.rates, self.state_sizes = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        names = {id(parameter): name for name, parameter in pl_module.named_parameters()}
        groups = trainer.optimizers[0].param_groups
        self.weights.append({n: p.detach().clone() for n, p in pl_module.named_parameters()})
        self.rates.append({names[id(p)]: g["lr"] for g in groups for p in g["params"]})
        self.state_sizes.append(len(trainer.optimizers[0].state))


def fit(task, folder, callbacks, module=None, seed=11, **arguments):
    module = module or task.Classifier(task.adamw)
    return task.train(folder, callbacks, module, seed, max_epochs=3, **arguments)


def test_frozen_parts_keep_their_values_and_all_others_change(task, tmp_path):
    records = Records()
    module, _ = fit(task, tmp_path, [StagedTraining(stages()), records])
    begin, second, end = records.weights[0], records.weights[6], dict(module.named_parameters())
    moved = {name for name in begin if not torch.equal(begin[name], second[name])}
    assert moved == {"network.0.weight", "network.0.bias"}
    assert all(not torch.equal(second[name], end[name]) for name in begin)
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_learning_rates_are_set_per_part_with_warm_up_and_cosine_in_each_stage(task, tmp_path):
    records = Records()
    fit(task, tmp_path, [StagedTraining(stages(), warmup=0.5), records])
    of = [rates["network.0.weight"] for rates in records.rates]
    assert of[:6] == pytest.approx([0, 0.02 / 3, 0.04 / 3, 0.02, 0.015, 0.005])
    assert of[6:13:2] == pytest.approx([0, 0.005 / 3, 0.01 / 3, 0.005])  # ".*"
    head = [rates["network.4.bias"] for rates in records.rates]
    assert head[:6] == [0] * 6
    assert head[12] == pytest.approx(0.01)


def test_each_stage_begins_with_an_empty_optimizer_state(task, tmp_path):
    records = Records()
    # Recorded before the callback acts, so the first batch of the second stage has the old state.
    fit(task, tmp_path, [StagedTraining(stages()), records])
    assert records.state_sizes[5] == 2
    assert records.state_sizes[6] == 0
    assert records.state_sizes[7] == 6


@pytest.mark.scale(plugin="StagedTraining", strategy="one device")
def test_one_fit_equals_successive_fits_of_its_stages(task, tmp_path):
    def no_dropout():
        module = task.Classifier(task.adamw)
        module.network[3].p = 0.0
        return module

    whole, _ = fit(task, tmp_path, [StagedTraining(stages())], no_dropout())
    module = no_dropout()
    for stage in stages():
        task.train(tmp_path, [StagedTraining([stage])], module, max_epochs=stage.epochs)
    task.assert_same_bits(task.weights(whole), task.weights(module))


@pytest.mark.parametrize("step", [3, 6, 9, 12])
def test_a_run_resumes_in_any_stage_bit_for_bit(task, tmp_path, step):
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)

    def run(callbacks, seed, ckpt_path=None):
        torch.manual_seed(seed)
        module = task.Classifier(task.adamw)
        loader = ResumableDataLoader(list(zip(*task.samples(), strict=True)), 5, shuffle=True)
        trainer = task.trainer(
            tmp_path,
            [StagedTraining(stages()), ExactResume(), *callbacks],
            max_epochs=3,
            enable_checkpointing=True,
        )
        torch.manual_seed(seed)
        trainer.fit(module, loader, ckpt_path=ckpt_path)
        return task.weights(module)

    whole = run([keep], 0)
    resumed = run([ModelCheckpoint(save_top_k=0)], 99, tmp_path / f"step={step}.ckpt")
    task.assert_same_bits(whole, resumed)


class Halves(LightningDataModule):
    def __init__(self, samples):
        super().__init__()
        self.samples, self.mode = samples, "whole"

    def train_dataloader(self):
        pairs = list(zip(*self.samples, strict=True))
        return ResumableDataLoader(pairs[:10] if self.mode == "half" else pairs, 5)


class LoadsLate(SingleDeviceStrategy):
    """Loads checkpoints after ``on_fit_start``, as strategies of sharded parameters do."""

    restore_checkpoint_after_setup = True


@pytest.mark.parametrize("loads_late", [False, True])
def test_a_resumed_run_has_the_data_of_its_stage(task, tmp_path, loads_late):
    parts = [
        TrainingStage(1, {".*": 0.01}, {"mode": "half"}),
        TrainingStage(2, {".*": 0.01}, {"mode": "whole"}),
    ]
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    for source in (None, tmp_path / "step=4.ckpt"):  # in the second stage
        trainer = task.trainer(
            tmp_path,
            [StagedTraining(parts), ExactResume(), keep],
            max_epochs=3,
            reload_dataloaders_every_n_epochs=1,
            enable_checkpointing=True,
            strategy=LoadsLate("cpu") if loads_late else "auto",
        )
        data = Halves(task.samples())
        trainer.fit(task.Classifier(task.adamw), datamodule=data, ckpt_path=source)
        assert trainer.global_step == 2 + 6 + 6


def test_each_stage_has_its_own_data(task, tmp_path):
    class Lengths(Callback):
        seen = ()

        def on_train_epoch_start(self, trainer, pl_module):
            self.seen = (*self.seen, trainer.num_training_batches)

    lengths = Lengths()
    parts = [
        TrainingStage(1, {".*": 0.01}, {"mode": "half"}),
        TrainingStage(2, {".*": 0.01}, {"mode": "whole"}),
    ]
    arguments = {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1}
    trainer = task.trainer(tmp_path, [StagedTraining(parts), lengths], **arguments)
    trainer.fit(task.Classifier(task.adamw), datamodule=Halves(task.samples()))
    assert lengths.seen == (2, 6, 6)
    parts[0].data = {"modus": "half"}
    trainer = task.trainer(tmp_path, [StagedTraining(parts)], **arguments)
    with pytest.raises(MisconfigurationException, match="Halves has no attribute 'modus'"):
        trainer.fit(task.Classifier(task.adamw), datamodule=Halves(task.samples()))


def test_a_loader_without_a_length_is_refused_unless_limit_train_batches_is_set(task, tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            return zip(*task.samples(), strict=True)

    def rates(**arguments):
        records = Records()
        trainer = task.trainer(
            tmp_path, [StagedTraining(stages()), records], max_epochs=3, **arguments
        )
        trainer.fit(task.Classifier(task.adamw), DataLoader(Stream(), 5))
        return records.rates

    with pytest.raises(MisconfigurationException, match=r"set trainer\.limit_train_batches"):
        rates()
    records = Records()
    fit(task, tmp_path, [StagedTraining(stages()), records])
    assert rates(limit_train_batches=6) == records.rates


def test_a_reused_callback_starts_with_the_data_of_its_first_stage(task, tmp_path):
    class Modes(Callback):
        seen = ()

        def on_train_epoch_start(self, trainer, pl_module):
            self.seen = (*self.seen, trainer.datamodule.mode)

    modes = Modes()
    parts = [TrainingStage(1, FIRST, {"mode": "half"}), TrainingStage(1, FIRST, {"mode": "whole"})]
    staged = StagedTraining(parts)
    for _ in range(2):
        trainer = task.trainer(tmp_path, [staged, modes], reload_dataloaders_every_n_epochs=1)
        trainer.fit(task.Classifier(task.adamw), datamodule=Halves(task.samples()))
    assert modes.seen == ("half", "whole") * 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "at least one stage"),
        ([TrainingStage(0, FIRST)], r"stages\[0\].epochs=0"),
        ([TrainingStage(1, {})], r"stages\[0\].learning_rates={}"),
        ([TrainingStage(1, {"a": -1})], "rates of 0 or more"),
        ([TrainingStage(1, {"(": 1})], "not a regular expression"),
    ],
)
def test_wrong_stages_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        StagedTraining(wrong)


@pytest.mark.scale(
    plugin="StagedTraining",
    strategy="ddp",
    refused="it freezes parameters, set `ddp_find_unused_parameters_true`",
)
def test_a_wrong_trainer_or_module_is_refused_before_training(task, tmp_path):
    with pytest.raises(MisconfigurationException, match="max_epochs=2: the stages have 3 epochs"):
        task.train(tmp_path, [StagedTraining(stages())], max_epochs=2)
    with pytest.raises(MisconfigurationException, match="without a schedule"):
        fit(task, tmp_path, [StagedTraining(stages())], task.Classifier(task.sgd, cosine_steps=9))
    with pytest.raises(ValueError, match="'nose' matches no parameter name"):
        fit(task, tmp_path, [StagedTraining([TrainingStage(3, {"nose": 1.0})])])
    agents = task.trainer(tmp_path, strategy=SimulatedDecentralizedStrategy(2), max_epochs=3)
    with pytest.raises(MisconfigurationException, match=r"2 stages .* train one stage per fit"):
        StagedTraining(stages()).check(agents)
    StagedTraining([TrainingStage(3, FIRST)]).check(agents)
    halves = StagedTraining([TrainingStage(3, FIRST, {"mode": "half"})])
    with pytest.raises(MisconfigurationException, match="reload_dataloaders_every_n_epochs=0"):
        fit(task, tmp_path, [halves])
    ddp = DDPStrategy(process_group_backend="gloo")
    trainer = Trainer(max_epochs=3, strategy=ddp, accelerator="cpu", devices=1, logger=False)
    with pytest.raises(MisconfigurationException, match="ddp_find_unused_parameters_true"):
        StagedTraining(stages()).check(trainer)
