"""The projects: packages of the index, pinned, and what each of them covers.

Each entry has an adapter in ``adapters`` of the same name, which runs in the project's environment.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Entry(NamedTuple):
    """A project.

    Attributes:
        requirements: What pip installs into an environment on top of ours.
        root: The Lightning that the project uses.
        covers: What it adds to the suite.
        patterns: The blocks that Blockwise LR and BlockSharpness ask for in their error.
    """

    requirements: tuple[str, ...]
    root: str
    covers: str
    patterns: Mapping[str, str] = MappingProxyType({})


PROJECTS = {
    "lightning_cli": Entry(
        (), "lightning.pytorch", "LightningCLI, demo module and DataModule of Lightning"
    ),
    "lightning_transformer": Entry(
        (),
        "lightning.pytorch",
        "Lightning's demo transformer, clipping",
        {r"(^|\.)decoder\.(weight|bias)$": "head"},
    ),
    "lightly_byol": Entry(
        ("lightly==1.6.0",),
        "lightning.pytorch",
        "EMA teacher updated in the step, accumulation",
    ),
    "lightly_moco": Entry(
        ("lightly==1.6.0",), "pytorch_lightning", "EMA teacher, memory bank, cosine schedule"
    ),
    "pytorch_forecasting": Entry(
        ("pytorch-forecasting==1.8.0",), "lightning.pytorch", "dict batches, own metrics, clipping"
    ),
    "neuralforecast": Entry(
        ("neuralforecast==3.3.0",), "pytorch_lightning", "own Trainer wrapper and DataModule"
    ),
    "darts": Entry(
        ("u8darts==0.41.0",),
        "pytorch_lightning",
        "own Trainer wrapper, transformer",
        {r"^encoder\.(weight|bias)$": "embedding", r"^decoder\.(weight|bias)$": "head"},
    ),
    "gluonts": Entry(
        ("gluonts[torch]==0.17.0",), "lightning.pytorch", "own wrapper, iterable data"
    ),
    "scvi": Entry(("scvi-tools==1.4.2",), "lightning.pytorch", "own Trainer wrapper, KL warm-up"),
    "scvi_adversarial": Entry(
        ("scvi-tools==1.4.2",),
        "lightning.pytorch",
        "manual optimization, several optimizers",
    ),
    "chemprop": Entry(
        ("chemprop==2.3.1",), "lightning.pytorch", "graph batches, schedule per step"
    ),
    "torchgeo_segmentation": Entry(
        ("torchgeo==0.8.1",), "lightning.pytorch", "dict batches, bf16 mixed precision, metrics"
    ),
    "uq_box_variance": Entry(
        ("lightning-uq-box==0.2.0",),
        "lightning.pytorch",
        "two phases of the loss, optimizer by callable",
    ),
    "uq_box_langevin": Entry(
        ("lightning-uq-box==0.2.0",), "lightning.pytorch", "manual optimization"
    ),
    "asteroid": Entry(
        ("asteroid==0.5.1",), "pytorch_lightning", "optimizer made outside of the module, clipping"
    ),
    "torch_uncertainty": Entry(
        ("torch-uncertainty==0.13.0",),
        "lightning.pytorch",
        "own Trainer class, metrics, given optimizer",
    ),
    "deeptab": Entry(
        ("deeptab==2.1.0",), "lightning.pytorch", "own wrapper like scikit-learn, transformer"
    ),
    "rectools": Entry(
        ("rectools[torch]==0.17.0",), "pytorch_lightning", "own wrapper, causal transformer"
    ),
}
