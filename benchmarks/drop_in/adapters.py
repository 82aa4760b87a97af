"""For each project, a function that trains it on synthetic data with the options of a Trainer."""

import copy
import importlib
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

Options = dict[str, Any]


def images(count: int = 40, classes: int = 4, size: int = 16) -> TensorDataset:
    """Return random images ``(count, 3, size, size)`` and labels."""
    rng = torch.Generator().manual_seed(2)
    pictures = torch.rand(count, 3, size, size, generator=rng)
    return TensorDataset(pictures, torch.randint(classes, (count,), generator=rng))


def lightning_cli(options: Options) -> None:
    from lightning.pytorch.cli import LightningCLI
    from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

    strategy = []
    if "strategy" in options:  # an instance cannot be the default of an option
        agents = options.pop("strategy").num_agents
        name = "lightning_plugins.strategies.SimulatedDecentralizedStrategy"
        strategy = [f"--trainer.strategy={name}", f"--trainer.strategy.num_agents={agents}"]
    LightningCLI(
        BoringModel,
        BoringDataModule,
        trainer_defaults=options,
        save_config_callback=None,
        args=["fit", *strategy],
    )


def lightning_transformer(options: Options) -> None:
    from lightning.pytorch import Trainer
    from lightning.pytorch.demos.transformer import LightningTransformer

    rng = torch.Generator().manual_seed(2)
    tokens = torch.randint(50, (40, 13), generator=rng)
    loader = DataLoader(TensorDataset(tokens[:, :-1], tokens[:, 1:]), batch_size=8, shuffle=True)
    model = LightningTransformer(vocab_size=50)
    model.prepare_data = lambda: None  # it downloads a corpus
    Trainer(**options, gradient_clip_val=0.25).fit(model, loader)


def _self_supervised(root: str, has_bank: bool) -> Any:
    """Return a module in the pattern of lightly's examples, for either root."""
    from lightly.loss import NegativeCosineSimilarity, NTXentLoss
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead, MoCoProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from torch import nn

    class SelfSupervised(importlib.import_module(root).LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(
                nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
            )
            head = MoCoProjectionHead if has_bank else BYOLProjectionHead
            self.projection_head = head(8, 16, 8)
            self.prediction_head = nn.Identity() if has_bank else BYOLPredictionHead(8, 16, 8)
            self.backbone_momentum = copy.deepcopy(self.backbone)
            self.projection_head_momentum = copy.deepcopy(self.projection_head)
            deactivate_requires_grad(self.backbone_momentum)
            deactivate_requires_grad(self.projection_head_momentum)
            bank = NTXentLoss(memory_bank_size=(64, 8)) if has_bank else None
            self.criterion = bank or NegativeCosineSimilarity()

        def student(self, x: torch.Tensor) -> torch.Tensor:
            return self.prediction_head(self.projection_head(self.backbone(x).flatten(1)))

        def teacher(self, x: torch.Tensor) -> torch.Tensor:
            y = self.backbone_momentum(x).flatten(1)
            return self.projection_head_momentum(y).detach()

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            update_momentum(self.backbone, self.backbone_momentum, m=0.9)
            update_momentum(self.projection_head, self.projection_head_momentum, m=0.9)
            x = batch[0]
            views = x + 0.1 * torch.randn_like(x), x.flip(-1) + 0.1 * torch.randn_like(x)
            loss = self.criterion(self.student(views[0]), self.teacher(views[1]))
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
            return [optimizer], [schedule]

    return SelfSupervised()


def lightly_byol(options: Options, accumulate: int = 2) -> None:
    from lightning.pytorch import Trainer

    loader = DataLoader(images(), batch_size=8 // accumulate, shuffle=True, drop_last=True)
    model = _self_supervised("lightning.pytorch", has_bank=False)
    Trainer(**options, accumulate_grad_batches=accumulate).fit(model, loader)


def lightly_moco(options: Options) -> None:
    from pytorch_lightning import Trainer

    loader = DataLoader(images(), batch_size=8, shuffle=True, drop_last=True)
    Trainer(**options).fit(_self_supervised("pytorch_lightning", has_bank=True), loader)


def series(count: int = 6, length: int = 40) -> Any:
    """Return ``count`` noisy waves as a long table: series, time, value."""
    import pandas

    rng = np.random.default_rng(2)
    rows = [
        (f"s{k}", t, float(np.sin(0.3 * t + k) + 0.1 * rng.normal()))
        for k in range(count)
        for t in range(length)
    ]
    return pandas.DataFrame(rows, columns=["series", "time", "value"])


def pytorch_forecasting(options: Options) -> None:
    from lightning.pytorch import Trainer
    from pytorch_forecasting import TemporalFusionTransformer, TimeSeriesDataSet

    data = TimeSeriesDataSet(
        series(),
        time_idx="time",
        target="value",
        group_ids=["series"],
        max_encoder_length=12,
        max_prediction_length=3,
        time_varying_unknown_reals=["value"],
        time_varying_known_reals=["time"],
    )
    model = TemporalFusionTransformer.from_dataset(
        data, hidden_size=8, attention_head_size=2, optimizer="adam", learning_rate=0.01
    )
    loader = data.to_dataloader(train=True, batch_size=32, num_workers=0)
    Trainer(**options, gradient_clip_val=0.1).fit(model, loader)


def neuralforecast(options: Options) -> None:
    from neuralforecast import NeuralForecast
    from neuralforecast.models import NHITS

    table = series().rename(columns={"series": "unique_id", "time": "ds", "value": "y"})
    options = {name: value for name, value in options.items() if name != "max_epochs"}
    model = NHITS(
        h=4, input_size=12, mlp_units=3 * [[16, 16]], batch_size=2, windows_batch_size=16, **options
    )
    NeuralForecast(models=[model], freq=1).fit(table)


def darts(options: Options) -> None:
    from darts import TimeSeries
    from darts.models import TransformerModel

    values = np.sin(0.3 * np.arange(60)).astype(np.float32)
    model = TransformerModel(
        input_chunk_length=12,
        output_chunk_length=3,
        d_model=16,
        nhead=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        dim_feedforward=16,
        batch_size=8,
        random_state=0,
        n_epochs=100,
        optimizer_cls=torch.optim.Adam,
        pl_trainer_kwargs=options,
    )
    model.fit(TimeSeries.from_values(values), verbose=False)


def gluonts(options: Options) -> None:
    from gluonts.dataset.common import ListDataset
    from gluonts.torch import SimpleFeedForwardEstimator

    waves = [
        {"start": "2024-01-01", "target": rows["value"].to_numpy()}
        for _, rows in series().groupby("series")
    ]
    estimator = SimpleFeedForwardEstimator(
        prediction_length=3,
        context_length=12,
        hidden_dimensions=[16],
        batch_size=8,
        num_batches_per_epoch=5,
        trainer_kwargs=options | {"enable_checkpointing": True},
    )
    estimator.train(ListDataset(waves, freq="D"))


def _cells() -> Any:
    import anndata
    import scvi

    scvi.settings.seed = 0

    rng = np.random.default_rng(2)
    counts = rng.poisson(2.0, (80, 30)).astype(np.float32)
    data = anndata.AnnData(counts)
    data.obs["batch"] = np.arange(80) % 2
    data.obs["batch"] = data.obs["batch"].astype(str).astype("category")
    return data


def _scvi_options(options: Options) -> Options:
    """scvi's ``train`` sets some of the Trainer's options itself."""
    return options


def scvi(options: Options) -> None:
    from scvi.model import SCVI

    data = _cells()
    SCVI.setup_anndata(data, batch_key="batch")
    model = SCVI(data, n_hidden=16, n_latent=4)
    model.train(batch_size=16, train_size=1.0, **_scvi_options(options))


def scvi_adversarial(options: Options) -> None:
    from lightning.pytorch.loggers import CSVLogger
    from scvi.model import TOTALVI

    data = _cells()
    data.obsm["protein"] = np.random.default_rng(3).poisson(3.0, (80, 4)).astype(np.float32)
    TOTALVI.setup_anndata(data, protein_expression_obsm_key="protein", batch_key="batch")
    model = TOTALVI(data, n_latent=4)
    logger = CSVLogger(options["default_root_dir"])
    options = {**_scvi_options(options), "logger": logger}
    model.train(batch_size=16, train_size=1.0, early_stopping=False, **options)


def chemprop(options: Options) -> None:
    from chemprop import data, models, nn
    from lightning.pytorch import Trainer

    chains = ["C" * n for n in range(1, 9)] + ["C" * n + "O" for n in range(1, 9)]
    points = [
        data.MoleculeDatapoint.from_smi(smiles, [float(len(smiles))]) for smiles in 2 * chains
    ]
    loader = data.build_dataloader(data.MoleculeDataset(points), batch_size=8, num_workers=0)
    model = models.MPNN(
        nn.BondMessagePassing(d_h=16, depth=2), nn.MeanAggregation(), nn.RegressionFFN(1, 16, 16)
    )
    Trainer(**{**options, "max_epochs": 5}).fit(model, loader)


class Scenes(torch.utils.data.Dataset):
    """Images with masks, as dicts."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = torch.Generator().manual_seed(index)
        picture = torch.rand(3, 32, 32, generator=rng)
        return {"image": picture, "mask": (picture[0] > 0.5).long()}


def torchgeo_segmentation(options: Options) -> None:
    from lightning.pytorch import Trainer
    from torchgeo.trainers import SemanticSegmentationTask

    task = SemanticSegmentationTask(model="fcn", num_classes=2, num_filters=4)
    loader = DataLoader(Scenes(), batch_size=8, shuffle=True)
    # Its schedule follows the validation loss.
    Trainer(**options | {"limit_val_batches": 1}, precision="bf16-mixed").fit(task, loader, loader)


class Lines(torch.utils.data.Dataset):
    """Inputs and targets, as dicts."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        x = torch.tensor([index / 40])
        return {"input": x, "target": 2 * x}


def _regression(options: Options, task: Any) -> None:
    from lightning.pytorch import Trainer

    Trainer(**options).fit(task, DataLoader(Lines(), batch_size=8, shuffle=True))


def _network(outputs: int) -> torch.nn.Module:
    nn = torch.nn
    return nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, outputs))


def uq_box_variance(options: Options) -> None:
    from lightning_uq_box.uq_methods import MVERegression

    _regression(options, MVERegression(_network(2), burnin_epochs=1, optimizer=torch.optim.Adam))


def uq_box_langevin(options: Options) -> None:
    from lightning_uq_box.uq_methods import SGLDRegression

    loss = torch.nn.MSELoss()
    _regression(options, SGLDRegression(_network(1), loss, 0.01, 0.0, 0.1, 1, 4))


def asteroid(options: Options) -> None:
    from asteroid.engine.system import System
    from asteroid.losses import PITLossWrapper, pairwise_neg_sisdr
    from asteroid.models import ConvTasNet
    from pytorch_lightning import Trainer

    rng = torch.Generator().manual_seed(2)
    sources = torch.randn(24, 2, 800, generator=rng)
    loader = DataLoader(TensorDataset(sources.sum(1), sources), batch_size=4, shuffle=True)
    sizes = {"n_repeats": 1, "n_blocks": 2, "bn_chan": 8, "hid_chan": 16, "skip_chan": 8}
    model = ConvTasNet(n_src=2, n_filters=16, **sizes)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss = PITLossWrapper(pairwise_neg_sisdr, pit_from="pw_mtx")
    system = System(model, optimizer, loss, loader, loader)
    Trainer(**options, gradient_clip_val=5.0).fit(system, loader)


def torch_uncertainty(options: Options) -> None:
    from torch_uncertainty import TUTrainer
    from torch_uncertainty.routines import ClassificationRoutine

    nn = torch.nn
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 16), nn.ReLU(), nn.Linear(16, 4))
    recipe = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    routine = ClassificationRoutine(model, 4, nn.CrossEntropyLoss(), optim_recipe=recipe)
    TUTrainer(**options).fit(routine, DataLoader(images(), batch_size=8, shuffle=True))


def deeptab(options: Options) -> None:
    import pandas
    from deeptab.models import FTTransformerRegressor

    options = options | {"enable_checkpointing": True}
    rng = np.random.default_rng(2)
    table = pandas.DataFrame(rng.normal(size=(80, 4)), columns=list("abcd"))
    FTTransformerRegressor(random_state=0).fit(
        table, rng.normal(size=80), batch_size=8, monitor="train_loss", **options
    )


def rectools(options: Options) -> None:
    import pandas
    from pytorch_lightning import Trainer
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    rng = np.random.default_rng(2)
    rows = [
        (user, rng.integers(20), 1.0, f"2024-01-{day:02}")
        for user in range(40)
        for day in range(1, 9)
    ]
    table = pandas.DataFrame(rows, columns=["user_id", "item_id", "weight", "datetime"])
    sizes = {"n_blocks": 1, "n_heads": 2, "n_factors": 16, "session_max_len": 8, "batch_size": 8}
    model = SASRecModel(**sizes, get_trainer_func=lambda: Trainer(**options))
    model.fit(Dataset.construct(table))


def _loss_of_cells(module: Any, batch: Any) -> torch.Tensor:
    return module.forward(batch, loss_kwargs={"kl_weight": 1.0})[2].loss


def _loss_of_lines(module: Any, batch: Any) -> torch.Tensor:
    return torch.nn.functional.mse_loss(module.model(batch["input"]), batch["target"])


# What the messages advise, where it differs between projects.
ADVICE: dict[str, dict[str, dict[str, Any]]] = {
    "lightly_byol": {"two agents": {"train": partial(lightly_byol, accumulate=1)}},
    "scvi_adversarial": {"SharpnessMonitor": {"loss": _loss_of_cells}},
    "uq_box_langevin": {"SharpnessMonitor": {"loss": _loss_of_lines}},
}
