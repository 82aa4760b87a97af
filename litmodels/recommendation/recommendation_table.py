"""A callback that writes recommended items with the identifiers of the data."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_plugins.litmodels.recommendation.path_table import gathered
from lightning_plugins.reports.raw_rows import no_formula
from lightning_plugins.reports.writer import write_text_atomically


class RecommendationTable(Callback):
    """Writes ``recommendations.csv``: user, rank, item and title of each recommendation.

    For ``trainer.predict`` with a ``SequentialRecommender`` and an ``InteractionDataModule``, or
    with modules whose predictions are item numbers ``(batch, k)``, padded with 0, and DataModules
    with ``user_ids`` and ``catalogue``. The file is written to the log folder.

    Raises:
        ValueError: The DataModule has no identifiers.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the data, and reset the rows."""
        datamodule = getattr(trainer, "datamodule", None)
        if not (hasattr(datamodule, "user_ids") and hasattr(datamodule, "catalogue")):
            raise ValueError(
                f"RecommendationTable requires an InteractionDataModule, but the data is "
                f"{type(datamodule).__name__}: remove it from the callbacks"
            )
        self._rows = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: Mapping[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the recommendations of a batch."""
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        for user, items in zip(batch["user"].tolist(), outputs.tolist(), strict=True):
            self._rows += [
                (
                    datamodule.user_ids[user],
                    rank,
                    datamodule.catalogue.id_of(item),
                    no_formula(str(datamodule.catalogue[item])),
                )
                for rank, item in enumerate(items, 1)
                if item
            ]

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # collective calls, on all ranks
        rows = gathered(self._rows)
        if trainer.is_global_zero:
            file = io.StringIO()
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("user", "rank", "item", "title"))
            writer.writerows(rows)
            write_text_atomically(folder / "recommendations.csv", file.getvalue())
            rank_zero_info(f"wrote {folder / 'recommendations.csv'}")
