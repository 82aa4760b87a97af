"""The check of ``--ckpt_path`` before a command uses or loads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_plugins.checkpoints.hyperparameters import (
    BUILDER_KEY,
    CLASS_KEY,
    check_hyperparameters,
    imported_class,
)
from lightning_plugins.checkpoints.reading import read_checkpoint
from lightning_plugins.checkpoints.sharded import check_sharded, is_sharded_checkpoint


def checked_hyperparameters(path: str, model: Any, model_class: Any, what: str) -> dict[str, Any]:
    """Return the hyperparameters of a checkpoint, after a check against a command's configuration.

    Args:
        path: A local file or folder. Another source, such as ``s3://…``, is not read here, and
            a command uses nothing of it but weights and states.
        model: The model in the configuration: a class path and arguments, or arguments alone.
        model_class: The class if the configuration has arguments alone.
        what: The path or URL that the user gave, for the message.

    Returns:
        Plain data, or what the configuration contains too; empty if the checkpoint has none.

    Raises:
        ValueError: The checkpoint names something that the configuration does not.
        pickle.UnpicklingError: It contains an object other than tensors and plain data.
    """
    if is_sharded_checkpoint(path):
        check_sharded(Path(path))
        return {}
    if not Path(path).is_file():
        return {}
    stored = read_checkpoint(path, mmap=True).get("hyper_parameters") or {}
    if not isinstance(stored, Mapping):
        raise ValueError(f"{what}: its hyperparameters are not a mapping")
    if not stored:
        return {}
    arguments = model.as_dict() if hasattr(model, "as_dict") else dict(model or {})
    if "class_path" in arguments:
        cls = imported_class(arguments["class_path"])
        arguments = {**(arguments.get("init_args") or {}), **(arguments.get("dict_kwargs") or {})}
    else:
        cls = model_class
    if not isinstance(cls, type):
        raise ValueError(
            f"{what}: a checkpoint cannot select the model; give --model, or --config with a model"
        )
    remedy = "give the same value yourself: --model.{name}=..."
    check_hyperparameters(stored, cls, given=arguments, what=what, remedy=remedy)
    return {name: value for name, value in stored.items() if name not in (CLASS_KEY, BUILDER_KEY)}
