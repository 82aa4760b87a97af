"""Random token sequences that repeat."""

import torch
from torch import Tensor

from lightning_plugins.datamodules.generated import GeneratedDataModule


class RepeatedSequenceDataModule(GeneratedDataModule):
    """Random tokens repeated with a random period, which an induction head can continue.

    Batches are ``(tokens, period)``: int64 ``(batch, length)`` and ``(batch,)``. The first
    ``period`` tokens are uniform and cannot be predicted; the remaining tokens repeat them.

    Args:
        vocab_size: Number of different tokens.
        length: Tokens per sequence.
        min_period: Shortest period; at least 2.
        max_period: Longest period; below ``length - 1``.
        batch_size: Sequences per batch on each rank.
        steps_per_epoch: Training batches per rank in one epoch.
        eval_batches: Batches of the validation part, and of the test part.
        seed: Seed of all data.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(
        self,
        vocab_size: int = 64,
        length: int = 48,
        min_period: int = 8,
        max_period: int = 24,
        batch_size: int = 64,
        steps_per_epoch: int = 1000,
        eval_batches: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, steps_per_epoch, eval_batches, seed)
        if vocab_size < 2:
            raise ValueError(f"vocab_size={vocab_size}: expected at least 2")
        if not 2 <= min_period <= max_period:
            raise ValueError(f"min_period={min_period}: expected 2 to max_period={max_period}")
        if length < max_period + 2:
            raise ValueError(
                f"length={length}: expected at least max_period + 2 = {max_period + 2} tokens, so "
                "that something repeats"
            )
        self.vocab_size = vocab_size
        self.length = length
        self.min_period = min_period
        self.max_period = max_period

    def draw(self) -> tuple[Tensor, Tensor]:
        """Generate a batch with torch's global generator."""
        period = torch.randint(self.min_period, self.max_period + 1, (self.batch_size,))
        pool = torch.randint(self.vocab_size, (self.batch_size, self.max_period))
        place = torch.arange(self.length) % period[:, None]
        return pool.gather(1, place), period
