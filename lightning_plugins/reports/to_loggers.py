"""Sending a picture to whatever loggers a run has."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning_plugins.reports.atomic import write_bytes_atomically
from lightning_plugins.reports.curves import Picture


def send_picture(name: str, picture: Picture, loggers: Iterable[Any], folder: Path) -> list[str]:
    """Give the picture to each logger that takes pictures; write a file where none does.

    Loggers are asked for ``log_image(key, images)``, as that of Weights & Biases, or for an
    ``experiment`` with ``add_image``, as TensorBoard's.

    Args:
        name: of the picture, for example ``sharpness``.
        picture: to send.
        loggers: of the run.
        folder: for ``NAME.png``.

    Returns:
        Where it went: names of logger classes, or the path of the file.
    """
    taken = []
    for logger in loggers:
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(logger, "log_image"):
            logger.log_image(key=name, images=[picture.pixels])
        elif hasattr(experiment, "add_image"):
            experiment.add_image(name, picture.pixels, dataformats="HWC")
        else:
            continue
        taken.append(type(logger).__name__)
    if taken:
        return taken
    path = folder / f"{name}.png"
    write_bytes_atomically(path, picture.png)
    return [str(path)]
