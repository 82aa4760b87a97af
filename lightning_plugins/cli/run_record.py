"""What a run leaves in its folder for later commands: its configuration and its metrics."""

import csv
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from lightning_plugins.cli.run_folders import CONFIG
from lightning_plugins.reports.writer import write_text_atomically


class RunRecord(SaveConfigCallback):
    """Saves the configuration in the run's folder, with the recipe's name in the first line.

    Only ``fit`` writes ``config.yaml``; ``test`` writes ``config_test.yaml``, and so on.
    """

    recipe: str | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file on rank zero, through a temporary file."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # collective
        if self.already_saved:
            return
        self.already_saved = True
        if trainer.is_global_zero:
            name = self.config_filename
            if stage != "fit" and name == CONFIG:
                name = f"config_{getattr(stage, 'value', stage)}.yaml"
            header = f"# recipe: {self.recipe}\n" if self.recipe else ""
            text = self.parser.dump(self.config, skip_none=False)
            folder.mkdir(parents=True, exist_ok=True)
            write_text_atomically(folder / name, header + text)


def continue_metrics(trainer: Trainer, global_step: int) -> None:
    """Keep the rows before ``global_step`` in the ``metrics.csv`` that the run continues.

    Lightning's CSVLogger removes the file of an existing folder.
    """
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        path = Path(logger.log_dir) / "metrics.csv" if isinstance(logger, CSVLogger) else None
        if path is None or not path.is_file():
            continue
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or [])
            rows = [row for row in reader if _step(row) < global_step]
        lines = [",".join(names), *(",".join(row[name] or "" for name in names) for row in rows)]
        with warnings.catch_warnings():  # it warns that it removes the file
            warnings.simplefilter("ignore")
            writer: Any = logger.experiment  # type: ignore[attr-defined]
        write_text_atomically(path, "\n".join(lines) + "\n")
        writer.metrics_keys = names


def _step(row: dict[str, str]) -> float:
    try:
        return float(row.get("step") or 0)
    except ValueError:
        return 0.0
