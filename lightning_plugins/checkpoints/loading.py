"""``load_from_checkpoint`` without trust in the checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lightning_plugins.checkpoints.hyperparameters import (
    CheckpointStrings,
    check_hyperparameters,
)
from lightning_plugins.checkpoints.reading import local_copy, read_checkpoint
from lightning_plugins.inputs.structured_text import parse_yaml

# Names under which old releases of Lightning stored hyperparameters; Lightning still reads them.
_OLD_KEYS = ("hparams", "module_arguments")


class CheckedLoading:
    """Mixin for a LightningModule or LightningDataModule, before the class of Lightning.

    Attributes:
        checkpoint_strings: Parameters whose strings may come from a checkpoint: name -> pattern or
            set of strings; see :func:`~lightning_plugins.checkpoints.check_hyperparameters`.
    """

    checkpoint_strings: ClassVar[CheckpointStrings] = {}

    if not TYPE_CHECKING:  # type checkers read the same signature from Lightning

        @classmethod
        def load_from_checkpoint(
            cls,
            checkpoint_path: Any,
            map_location: Any = None,
            hparams_file: str | Path | None = None,
            strict: bool | None = None,
            weights_only: bool | None = None,
            **kwargs: Any,
        ) -> Self:
            """Load a checkpoint as Lightning does, but run, import or open nothing that it names.

            Hyperparameters that could name a file, class, server or variable are taken from the
            checkpoint only if they equal the default; otherwise pass them as keyword arguments.

            Args:
                checkpoint_path: Path, URL or binary file.
                map_location: As in Lightning.
                hparams_file: A YAML file of hyperparameters of your own.
                strict: As in Lightning.
                weights_only: True or None; both load tensors and plain data only.
                **kwargs: Arguments of the constructor, which replace those of the checkpoint.

            Raises:
                ValueError: A hyperparameter of the checkpoint is not allowed, or ``weights_only``
                    is False.
                pickle.UnpicklingError: The checkpoint contains an object other than plain data.
            """
            if weights_only is not None and not weights_only:
                raise ValueError("weights_only=False: checkpoints of this package are plain data")
            if hparams_file is not None:
                kwargs = {**_hyperparameters_of(Path(hparams_file)), **kwargs}
            with local_copy(checkpoint_path) as file:
                checkpoint = read_checkpoint(file, mmap=True)
                what = str(checkpoint_path)
                key: str = cls.CHECKPOINT_HYPER_PARAMS_KEY
                name = checkpoint.get(cls.CHECKPOINT_HYPER_PARAMS_NAME)
                if any(old in checkpoint for old in _OLD_KEYS) or name not in (None, "kwargs"):
                    raise ValueError(
                        f"{what}: it was not written by this package: its hyperparameters "
                        "are stored under another name"
                    )
                remedy = "pass {name}=... to load_from_checkpoint"
                stored = {n: v for n, v in checkpoint.get(key, {}).items() if n not in kwargs}
                check_hyperparameters(stored, cls, what=what, remedy=remedy)
                if hasattr(file, "seek"):
                    file.seek(0)
                return super().load_from_checkpoint(
                    file, map_location=map_location, strict=strict, weights_only=True, **kwargs
                )


def _hyperparameters_of(path: Path) -> dict[str, Any]:
    content = parse_yaml(path.read_text("utf-8"), str(path))
    if not isinstance(content, dict):
        raise ValueError(f"hparams_file={str(path)!r}: expected a mapping of hyperparameters")
    return content
