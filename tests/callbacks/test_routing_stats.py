"""RoutingStats: its values, that it does not change the run, and that resumed curves continue."""

import math

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from lightning_plugins.callbacks import ExactResume, RoutingStats
from lightning_plugins.datamodules import ManifoldDataModule
from lightning_plugins.litmodels import MoERegressor
from lightning_plugins.nn.moe import Bumps, Routing


def fit(callbacks, tmp_path, ckpt_path=None, **options):
    torch.manual_seed(0)
    module = MoERegressor(2, 2, depth=2, num_experts=3, hidden_features=6)
    trainer = Trainer(
        **{
            "default_root_dir": tmp_path,
            "accelerator": "cpu",
            "max_epochs": 3,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": callbacks,
            **options,
        }
    )
    trainer.fit(module, datamodule=squares(), ckpt_path=ckpt_path)
    return module, trainer


def squares(**changes):
    settings = {"batch_size": 16, "batches_per_epoch": 3, "evaluation_samples": 1500}
    arguments = {"intrinsic_dim": 2, "ambient_dim": 2, "target": "bumps", "pieces": 3}
    return ManifoldDataModule("cube", **(settings | arguments | changes))


def quietly(**options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(accelerator="cpu", enable_checkpointing=False, **quiet, **options)


def test_the_routing_of_a_constructed_network_is_measured_correctly():
    module = MoERegressor.constructed(Bumps(3, 2), 16)
    trainer = quietly(callbacks=[RoutingStats()])
    (found,) = trainer.validate(module, datamodule=squares(), verbose=False)
    assert found["routing/unique_paths"] == 9
    assert found["routing/accuracy"] == 1
    inputs = torch.cat([x for x, _ in squares().val_dataloader()])
    for axis in (0, 1):
        load = torch.bincount(inputs[:, axis].long(), minlength=3) / len(inputs)
        entropy = -float((load * load.log()).sum()) / math.log(3)
        assert found[f"routing/entropy_{axis}"] == pytest.approx(entropy, abs=1e-5)
        assert found[f"routing/max_load_{axis}"] == pytest.approx(3 * float(load.max()))


def test_a_collapsed_routing_is_detected():
    module = MoERegressor.constructed(Bumps(3, 2), 16)
    with torch.no_grad():
        module.network.layers[1].gate.bias.copy_(torch.tensor([99.0, 0, 0]))
    trainer = quietly(callbacks=[RoutingStats()])
    (found,) = trainer.validate(module, datamodule=squares(), verbose=False)
    assert (found["routing/entropy_1"], found["routing/max_load_1"]) == (0, 3)
    assert found["routing/unique_paths"] == 3
    assert 0.3 < found["routing/accuracy"] < 0.4


@pytest.mark.scale(plugin="RoutingStats", strategy="one device")
def test_the_run_equals_the_run_without_it(tmp_path):
    (with_it, _), (without, _) = fit([RoutingStats()], tmp_path), fit([], tmp_path)
    assert all(map(torch.equal, with_it.parameters(), without.parameters()))


def test_values_are_logged_and_drawn_over_the_run_and_the_domain(tmp_path):
    callback = RoutingStats()
    fit([callback], tmp_path, logger=CSVLogger(tmp_path, name="log"))
    assert callback.steps == [3, 6, 9]
    layers = [f"{name}_{layer}" for name in ("entropy", "max_load") for layer in (0, 1)]
    assert set(callback.values) == {*layers, "unique_paths", "accuracy"}
    folder = tmp_path / "log" / "version_0"
    header = (folder / "metrics.csv").read_text().partition("\n")[0].split(",")
    assert {name for name in header if name.startswith("routing/")} == {
        f"routing/{name}" for name in callback.values
    }
    for name in ("routing", "routing_domain"):
        assert (folder / f"{name}.png").stat().st_size > 3000


def test_a_resumed_run_continues_the_curve(tmp_path):
    whole = RoutingStats()
    fit([whole, ExactResume()], tmp_path)
    _, trainer = fit([RoutingStats(), ExactResume()], tmp_path, max_epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = RoutingStats()
    fit([resumed, ExactResume()], tmp_path, ckpt_path=tmp_path / "half.ckpt")
    assert (resumed.steps, resumed.values) == (whole.steps, whole.values)


def test_a_new_run_starts_a_new_curve(tmp_path):
    callback = RoutingStats()
    fit([callback], tmp_path)
    fit([callback], tmp_path, max_epochs=1)
    assert callback.steps == [3]


def test_data_without_regions_has_no_accuracy():
    trainer = quietly(callbacks=[RoutingStats()])
    data = ManifoldDataModule(evaluation_samples=50)
    (found,) = trainer.validate(MoERegressor(16), datamodule=data, verbose=False)
    assert "routing/unique_paths" in found
    assert "routing/accuracy" not in found


def test_a_language_model_can_be_measured_by_its_tokens():
    class Words(LightningModule):
        def routings(self, batch):
            tokens = batch["input_ids"].flatten()
            return [
                Routing(torch.zeros(len(tokens), 3), tokens[:, None], torch.ones(len(tokens), 1))
            ]

        def validation_step(self, batch, batch_idx):
            pass

    batches = [{"input_ids": torch.tensor([[0, 1], [2, 1]])}, {"input_ids": torch.tensor([[1, 1]])}]
    trainer = quietly(callbacks=[RoutingStats()])
    (found,) = trainer.validate(Words(), DataLoader(batches, batch_size=None), verbose=False)
    assert found["routing/unique_paths"] == 3
    assert found["routing/max_load_0"] == pytest.approx(3 * 4 / 6)


def test_a_module_without_routings_is_refused():
    class Plain(LightningModule):
        pass

    with pytest.raises(MisconfigurationException, match=r"Plain\.routings\(batch\)"):
        RoutingStats().setup(quietly(), Plain(), "fit")


def test_a_module_without_a_gate_is_refused():
    trainer = quietly(callbacks=[RoutingStats()])
    with pytest.raises(MisconfigurationException, match="MoERegressor has no gate"):
        trainer.validate(
            MoERegressor(2, num_experts=1),
            datamodule=ManifoldDataModule(ambient_dim=2),
            verbose=False,
        )
