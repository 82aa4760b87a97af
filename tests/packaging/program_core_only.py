"""Run by test_core_only.py with only the core dependencies installed; prints JSON.

Imports all plugin and task modules, then trains two epochs with LateSAM from the first step.
"""

import importlib
import importlib.util
import json
import pkgutil
import sys

FOLDERS = (
    *("callbacks", "optimizers", "strategies", "nn", "curvature", "attacks"),
    *("datamodules", "litmodels", "metrics"),
)
EXTRAS = (
    "accelerate",
    "datasets",
    "joblib",
    "matplotlib",
    "peft",
    "pytest",
    "rich",
    "scipy",
    "sklearn",
    "timm",
    "torchvision",
    "transformers",
)


def main() -> None:
    print(
        json.dumps(
            {
                "extras": [name for name in EXTRAS if importlib.util.find_spec(name)],
                "imported": import_everything(),
                "training": train_with_sam(),
                "package": sys.modules["lightning_plugins"].__file__,
            }
        )
    )


def import_everything() -> list[str]:
    imported = []
    for folder in FOLDERS:
        package = importlib.import_module(f"lightning_plugins.{folder}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
            imported.append(module.name)
    return imported


def train_with_sam() -> dict[str, float | int]:
    import torch
    from lightning.pytorch import LightningModule, Trainer
    from torch.nn.functional import mse_loss
    from torch.utils.data import DataLoader, TensorDataset

    from lightning_plugins.callbacks import LateSAM

    passes = []  # not on the module, whose state the second pass of SAM leaves as it was

    class Line(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            passes.append(batch_idx)
            inputs, targets = batch
            return mse_loss(self.layer(inputs), targets)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.05)

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(32, 3, generator=generator)
    data = TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))
    module = Line()

    def loss() -> float:
        with torch.no_grad():
            return mse_loss(module.layer(inputs), data.tensors[1]).item()

    before = loss()
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=[LateSAM(start=0)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(data, batch_size=8))
    return {
        "steps": trainer.global_step,
        "passes": len(passes),
        "loss before": before,
        "loss after": loss(),
    }


if __name__ == "__main__":
    main()
