"""``lightning-plugins export``: writes a run's model in the format that other programs load."""

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from lightning_plugins.cli.options import split_options
from lightning_plugins.cli.plugin_cli import PluginCLI

# One process without loggers and callbacks sets up the model and loads the checkpoint.
_ONE_PROCESS = (
    *("--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto"),
    *("--trainer.limit_val_batches=0", "--trainer.logger=false", "--trainer.callbacks=null"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    "--trainer.enable_checkpointing=false",
)


class ExportCLI(PluginCLI):
    """Loads the checkpoint of a run and calls ``model.export(folder)``.

    If the DataModule has ``save_tokenizer(folder)``, it is called next, so that the folder can be
    used without this package. The folder is complete when it appears.
    """

    output: Path
    verb = "export of"

    def before_validate(self) -> None:
        """Refuse a model that cannot be exported, before its data is prepared."""
        if not callable(getattr(self.model, "export", None)):
            raise ValueError(
                f"export: {type(self.model).__name__} has no method `export(folder)`; its weights "
                "are the key 'state_dict' of the checkpoint: torch.load(FILE, weights_only=True)"
            )
        warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`, callbacks")

    def validate(self, model: LightningModule, **kwargs: Any) -> None:
        """Load the checkpoint and write the folder."""
        self.trainer.validate(model, **{**kwargs, "verbose": False})
        partial = self.output.with_name(f".{self.output.name}.{os.getpid()}")
        try:
            partial.mkdir(parents=True)
            model.export(partial)  # type: ignore[operator]
            if callable(save := getattr(self.datamodule, "save_tokenizer", None)):
                save(partial)
            if self.output.is_dir():
                self.output.rmdir()  # it is empty
            partial.rename(self.output)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        names = ", ".join(sorted(path.name for path in self.output.iterdir()))
        print(f"wrote {self.output}: {names}")


def export_arguments(options: list[str]) -> tuple[Path, list[str]]:
    """Return the output folder, and the arguments of the command that loads the checkpoint.

    Raises:
        ValueError: The folder is not given or not empty, or no run is given.
    """
    own, rest = split_options(options, "--output")
    has_run = any(option.partition("=")[0] == "--run" for option in rest)
    if not has_run or "--output" not in own:
        raise ValueError("export requires --run last|FOLDER and --output FOLDER")
    output = Path(own["--output"])
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output: {str(output)!r} exists and is not empty: choose a new folder")
    return output, ["validate", *rest, *_ONE_PROCESS]
