"""Forward passes of a LightningModule that log nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import LightningModule

_ABSENT = object()


@contextmanager
def log_silenced(module: LightningModule) -> Iterator[None]:
    """Make ``self.log`` and ``self.log_dict`` of ``module`` do nothing inside the block."""
    before = module.__dict__.get("log", _ABSENT)
    module.__dict__["log"] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        if before is _ABSENT:
            del module.__dict__["log"]
        else:
            module.__dict__["log"] = before
