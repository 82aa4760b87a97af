"""Estimates the sharpness of each block type of a transformer from the training gradients."""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.data import extract_batch_size
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim import Optimizer

from lightning_plugins._lightning_compat.processes import data_share
from lightning_plugins.callbacks.extra_passes import while_measuring
from lightning_plugins.callbacks.measured_curves import (
    MeasuredCurves,
    log_measurement,
    log_picture,
)
from lightning_plugins.callbacks.unsupported_strategies import refuse_sharded
from lightning_plugins.nn.shards import like_parameter, sum_over_parts_
from lightning_plugins.optimizers.blocks import BLOCKS, BlockParameter, blocks_of
from lightning_plugins.reports.run_pictures import compared_curves_picture

# Multiplier = (sharpness of norms / sharpness of the block) to this power. Our fit to the paper's
# four multipliers and to the sharpness in its chart for LLaMA 0.25B gives 0.71.
_EXPONENT = 0.7

_ENOUGH = 10
"""Measurements in the second half of the run below which nothing is suggested."""

_LIMITS = (0.1, 30.0)
"""Multipliers beyond these are not suggested, whatever the estimate."""


class BlockSharpness(MeasuredCurves):
    """Estimates the sharpness of the loss in each block type, and draws it over the run.

    For a block with n parameters the estimate is B·‖g‖²/n. It does not change the run.

    - ``labels="data"``: g is the gradient of the mean loss over the B samples of the optimizer
      step, before clipping, and costs one norm per parameter. A sequence is one sample. The
      estimate is the mean diagonal entry of the Gauss-Newton matrix only where the labels look like
      draws from the model's predictions, as near an optimum (measured ratio .97 to 1.01). Elsewhere
      it also contains the mean gradient, which grows with B (2.3 for B = 8 to 113 for B = 4096),
      and with noisy gradients it can be far smaller (.09). While ``LateSAM`` is active, g is its
      gradient at the perturbed weights.
    - ``labels="model"``: g is the gradient for B labels drawn from the model's predictions for the
      last batch, without dropout. The expectation is the mean diagonal entry of that batch's
      Gauss-Newton matrix at any weights. It costs one more pass forward and backward at the
      measured steps. A language model has a label per token. The module needs a method
      ``sampled_loss(batch)``, which returns the loss and the number of labels
      (:func:`~lightning_plugins.curvature.sampled_cross_entropy`); ``CausalLM`` has it.

    Logs ``block_sharpness/qk`` and so on for the block types embedding, qk, vo, ffn, norm, head,
    router and other, as far as the model has them. At the end of the run, the picture
    ``block_sharpness`` is sent to the loggers that accept pictures, or else written to the log
    folder, and multipliers for ``BlockwiseAdamW`` are suggested.

    Source: the chart of sharpness in the repository of Wang et al., arXiv 2502.19002; their code
    does not contain the measurement, and this estimator is ours.

    Args:
        every_n_steps: The number of optimizer steps between measurements.
        patterns: Regular expression -> block type, for names that no preset covers (``blocks_of``).
        preset: gpt2, llama, qwen2_moe, torch, decoder or vit; ``auto`` includes all of them.
        labels: ``data`` or ``model``, see above.

    Raises:
        ValueError: ``every_n_steps`` is below 1, ``labels`` is unknown, or at the start of the run,
            the block type of a parameter is unknown.
        MisconfigurationException: The strategy is FSDP (version 1) or DeepSpeed; or with
            ``labels="model"``, it shards parameters, or the module has no ``sampled_loss``.

    Example::

        trainer = Trainer(callbacks=[BlockSharpness()])
    """

    def __init__(
        self,
        every_n_steps: int = 100,
        patterns: Mapping[str, str] | None = None,
        preset: str = "auto",
        labels: Literal["data", "model"] = "data",
    ) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps}: expected at least 1")
        if labels not in ("data", "model"):
            raise ValueError(f"labels={labels!r}: expected 'data' or 'model'")
        super().__init__()
        self.every_n_steps = every_n_steps
        self.patterns = patterns
        self.preset = preset
        self.labels = labels
        self._parameters: list[BlockParameter] = []
        self._batch_size = 0
        self._batch: Any = None

    def check(self, trainer: Trainer) -> None:
        """Refuse an unsupported Trainer before data is prepared."""
        refuse_sharded(trainer, self, supports=("fsdp2", "tp") if self.labels == "data" else ())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse unsupported configurations, and start new curves for a new run."""
        self.check(trainer)
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Assign the parameters to block types."""
        if self.labels == "model" and not callable(getattr(pl_module, "sampled_loss", None)):
            raise MisconfigurationException(
                f"BlockSharpness(labels='model') needs {type(pl_module).__name__}.sampled_loss("
                "batch), which returns the loss for labels drawn from the predictions and their "
                "number (lightning_plugins.curvature.sampled_cross_entropy); or set labels='data'"
            )
        self._parameters = blocks_of(
            pl_module.named_parameters(), type(self).__name__, self.patterns, self.preset
        )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Compute the number of samples of the optimizer step."""
        if self._measures(trainer):
            accumulated = trainer.accumulate_grad_batches * data_share(trainer)[1]
            self._batch_size = extract_batch_size(batch) * accumulated
            self._batch = batch if self.labels == "model" else None

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure the gradients, which are unscaled and not yet clipped."""
        if not self._measures(trainer):
            return
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        parameters = [one for one in self._parameters if id(one.parameter) in stepped]
        if self.labels == "model":
            values = self._with_drawn_labels(trainer, pl_module, parameters)
        else:
            gradients = {id(one.parameter): one.parameter.grad for one in parameters}
            means = _mean_squares(parameters, gradients)
            values = {block: self._batch_size * value for block, value in means.items()}
        if values:
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
            intervals = self.suggestion_intervals()
            listed = ", ".join(
                f"{block}: {value:.1f} [{intervals[block][0]:.1f}, {intervals[block][1]:.1f}]"
                for block, value in suggested.items()
            )
            rank_zero_info(
                f"BlockSharpness suggests multipliers, with 95 % intervals: {{{listed}}}"
            )
        else:
            rank_zero_info(
                f"BlockSharpness suggests no multipliers: it needs {2 * _ENOUGH} measurements with "
                f"norms, and has {len(self.steps)}; reduce every_n_steps={self.every_n_steps}"
            )
        log_picture(
            trainer,
            "block_sharpness",
            lambda: compared_curves_picture(self.steps, self.values, "B·‖g‖²/n"),
        )

    def suggested_multipliers(self) -> dict[str, float]:
        """Return learning-rate multipliers, relative to the norms, from the measured sharpness.

        The multiplier is (S_norm / S_block)^0.7, with geometric means over the second half of the
        measurements, clamped to [0.1, 30]. This is our heuristic: the exponent 0.7 maps the paper's
        measured sharpness to its published multipliers, which its authors chose by hand in the
        order of sharpness. The result is empty if there are no norms, or fewer than 20
        measurements: gradients of single batches differ by orders of magnitude.
        """
        return {
            block: _clamped(math.exp(mean)) for block, (mean, _) in self._log_multipliers().items()
        }

    def suggestion_intervals(self) -> dict[str, tuple[float, float]]:
        """Return a 95 % interval of each suggested multiplier.

        The interval is that of the mean over measurements, which are taken as independent.
        """
        return {
            block: (
                _clamped(math.exp(mean - 1.96 * error)),
                _clamped(math.exp(mean + 1.96 * error)),
            )
            for block, (mean, error) in self._log_multipliers().items()
        }

    def _log_multipliers(self) -> dict[str, tuple[float, float]]:
        """Return the mean logarithm of each block's multiplier, and its standard error."""
        if "norm" not in self.values:
            return {}
        norms = self.values["norm"]
        found = {}
        for block, curve in self.values.items():
            late = [
                _EXPONENT * math.log(norm / value)
                for norm, value in list(zip(norms, curve, strict=True))[len(curve) // 2 :]
                if norm > 0 and value > 0
            ]
            if len(late) >= _ENOUGH:
                found[block] = statistics.fmean(late), statistics.stdev(late) / len(late) ** 0.5
        return found if "norm" in found else {}

    def _with_drawn_labels(
        self, trainer: Trainer, pl_module: LightningModule, parameters: list[BlockParameter]
    ) -> dict[str, float]:
        """Return the estimates for labels that the model draws, the mean over processes."""
        batch, self._batch = self._batch, None
        weights = [one.parameter for one in parameters if one.parameter.requires_grad]
        seed = trainer.global_step * trainer.world_size + trainer.global_rank
        with (
            torch.enable_grad(),
            while_measuring(pl_module, seed),
            trainer.precision_plugin.forward_context(),
        ):
            loss, count = pl_module.sampled_loss(batch)  # type: ignore[operator]
            found = torch.autograd.grad(loss, weights, allow_unused=True)
        gradients = dict(zip(map(id, weights), found, strict=True))
        means = _mean_squares(parameters, gradients)
        values = torch.tensor([count * value for value in means.values()], device=pl_module.device)
        reduced = trainer.strategy.reduce(values, reduce_op="mean")
        return dict(zip(means, torch.as_tensor(reduced).tolist(), strict=True))

    def _measures(self, trainer: Trainer) -> bool:
        return trainer.global_step % self.every_n_steps == 0


def _clamped(multiplier: float) -> float:
    return min(max(multiplier, _LIMITS[0]), _LIMITS[1])


@torch.no_grad()
def _mean_squares(
    parameters: list[BlockParameter], gradients: Mapping[int, Tensor | None]
) -> dict[str, float]:
    """Return the mean squared entry of the gradient for each block type that has gradients.

    Args:
        parameters: The parameters.
        gradients: Identity of a parameter -> its gradient.
    """
    squares: dict[str, list[Tensor]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for one in parameters:
        if (gradient := gradients.get(id(one.parameter))) is not None:
            for block, part in one.slices(like_parameter(gradient, one.parameter)):
                square = torch.linalg.vector_norm(part, dtype=torch.float32) ** 2
                squares[block].append(sum_over_parts_(square, one.parameter))
                counts[block] += one.parameter.numel() // len(one.blocks)
    found = [block for block in BLOCKS if counts[block]]
    if not found:
        return {}
    sums = torch.stack([torch.stack(squares[block]).sum() for block in found])
    means = sums / torch.tensor([counts[block] for block in found], device=sums.device)
    return dict(zip(found, means.tolist(), strict=True))
