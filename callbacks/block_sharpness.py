"""Sharpness of each type of block in a transformer, from gradients that a run has anyway."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.data import extract_batch_size
from torch import Tensor
from torch.optim import Optimizer

from lightning_plugins.callbacks.measured_curves import (
    MeasuredCurves,
    log_measurement,
    log_picture,
)
from lightning_plugins.callbacks.unsupported_strategies import refuse_sharded
from lightning_plugins.optimizers.blocks import BLOCKS, BlockParameter, blocks_of
from lightning_plugins.reports.run_pictures import compared_curves_picture

# Multiplier = (sharpness of norms / sharpness of the block) to this power. Our fit to the paper's
# four multipliers and the sharpness that is read off its chart for LLaMA 0.25B: 0.71.
_EXPONENT = 0.7


class BlockSharpness(MeasuredCurves):
    """Estimates how sharp the loss is in each type of block, and draws it over the run.

    For a block with n parameters the estimate is B·‖g‖²/n, with g the gradient of the mean loss
    over B samples that the optimizer step is made of, before clipping: the diagonal of the
    Gauss-Newton matrix, averaged. It costs one norm a parameter at the steps it looks at and
    changes nothing. While ``LateSAM`` is active, g is its gradient at the perturbed weights.

    Logs ``block_sharpness/qk`` and so on for embedding, qk, vo, ffn, norm, head, router and other,
    where they occur. At the end of the run the picture ``block_sharpness`` goes to the loggers that
    take pictures, else to the log folder, and multipliers for ``BlockwiseAdamW`` are suggested.

    Source: Wang et al., arXiv 2502.19002, section 3; their code has no such measurement.

    Args:
        every_n_steps: optimizer steps between measurements.
        patterns: regular expression -> block for names that no preset knows (``blocks_of``).
        preset: names of gpt2, llama, qwen2_moe or vit; ``auto`` knows them all.

    Raises:
        ValueError: ``every_n_steps`` below 1; at the start of the run, a parameter whose block is
            unknown.
        MisconfigurationException: a strategy that shards the parameters.

    Example::

        trainer = Trainer(callbacks=[BlockSharpness()])
    """

    def __init__(
        self,
        every_n_steps: int = 100,
        patterns: Mapping[str, str] | None = None,
        preset: str = "auto",
    ) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps}: expected at least 1")
        super().__init__()
        self.every_n_steps = every_n_steps
        self.patterns = patterns
        self.preset = preset
        self._parameters: list[BlockParameter] = []
        self._batch_size = 0

    def check(self, trainer: Trainer) -> None:
        """Refuse a Trainer that this callback cannot work in, before anything is prepared."""
        refuse_sharded(trainer, self)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work; begin a new curve with a new run."""
        self.check(trainer)
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sort the parameters into blocks."""
        self._parameters = blocks_of(
            pl_module.named_parameters(), type(self).__name__, self.patterns, self.preset
        )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Learn how many samples a step is made of."""
        if self._looks(trainer):
            accumulated = trainer.accumulate_grad_batches * trainer.world_size
            self._batch_size = extract_batch_size(batch) * accumulated

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure, on gradients that are unscaled and not yet clipped."""
        if not self._looks(trainer):
            return
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        parameters = [one for one in self._parameters if id(one.parameter) in stepped]
        measured = _mean_squares(parameters)
        if measured:
            values = {block: self._batch_size * value for block, value in measured.items()}
            self._append(trainer.global_step, values)
            log_measurement(
                trainer, {f"block_sharpness/{block}": value for block, value in values.items()}
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the curves and suggest multipliers."""
        self._parameters = []
        if not self.steps:
            return
        suggested = self.suggested_multipliers()
        if suggested:
            listed = ", ".join(f"{block}: {value:.1f}" for block, value in suggested.items())
            rank_zero_info(f"BlockSharpness suggests multipliers: {{{listed}}}")
        log_picture(
            trainer,
            "block_sharpness",
            lambda: compared_curves_picture(self.steps, self.values, "B·‖g‖²/n"),
        )

    def suggested_multipliers(self) -> dict[str, float]:
        """Learning-rate multipliers from the measured sharpness, relative to the norms'.

        (S_norm / S_block)^0.7, from geometric means over the second half of the measurements; 0.7
        brings the paper's measured sharpness to its published multipliers, which were set by hand
        following the order. A heuristic of ours. Empty where norms or gradients are missing.
        """
        means = {}
        for block, curve in self.values.items():
            late = [value for value in curve[len(curve) // 2 :] if value > 0]
            if late:
                means[block] = math.exp(sum(map(math.log, late)) / len(late))
        if "norm" not in means:
            return {}
        return {block: (means["norm"] / mean) ** _EXPONENT for block, mean in means.items()}

    def _looks(self, trainer: Trainer) -> bool:
        return trainer.global_step % self.every_n_steps == 0


@torch.no_grad()
def _mean_squares(parameters: list[BlockParameter]) -> dict[str, float]:
    """Mean squared entry of the gradient in each block that has one."""
    squares: dict[str, list[Tensor]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for one in parameters:
        if one.parameter.grad is not None:
            for block, part in one.slices(one.parameter.grad):
                squares[block].append(torch.linalg.vector_norm(part, dtype=torch.float32) ** 2)
                counts[block] += part.numel()
    found = [block for block in BLOCKS if counts[block]]
    if not found:
        return {}
    sums = torch.stack([torch.stack(squares[block]).sum() for block in found])
    means = sums / torch.tensor([counts[block] for block in found], device=sums.device)
    return dict(zip(found, means.tolist(), strict=True))
