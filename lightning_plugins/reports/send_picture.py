"""Sends a picture to the loggers of a run."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning_plugins.reports.drawing import Picture
from lightning_plugins.reports.writer import write_bytes_atomically


def send_picture(name: str, picture: Picture, loggers: Iterable[Any], folder: Path) -> list[str]:
    """Send a picture to each logger that accepts pictures; if none does, write a file.

    A logger accepts pictures if it has ``log_image(key, images)``, as Weights & Biases has, or an
    ``experiment`` with ``add_image``, as TensorBoard has.

    Args:
        name: The name of the picture, for example ``sharpness``.
        picture: The picture to send.
        loggers: The loggers of the run.
        folder: The folder for ``NAME.png``.

    Returns:
        The names of the logger classes that received it, or the path of the file.
    """
    receivers = []
    for logger in loggers:
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(logger, "log_image"):
            logger.log_image(key=name, images=[picture.pixels])
        elif hasattr(experiment, "add_image"):
            experiment.add_image(name, picture.pixels, dataformats="HWC")
        else:
            continue
        receivers.append(type(logger).__name__)
    if receivers:
        return receivers
    path = folder / f"{name}.png"
    write_bytes_atomically(path, picture.png)
    return [str(path)]
