"""Throughput, gradient norm, learning rates and loss by position of language-model training."""

import resource
import sys
import time
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from lightning_plugins._lightning_compat.loops import logs_at_this_step, steps_the_optimizer
from lightning_plugins._lightning_compat.processes import data_share
from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.nn.transformer_flops import training_flops_per_token

_MOST_TOKENS = 20_000
_MOST_GROUPS = 32


class PretrainingMonitor(PluginCallback):
    """Logs what people watch when they train a language model.

    At the Trainer's logging steps, over all steps since the last one:

    * ``throughput/tokens_per_second`` of all processes together;
    * ``throughput/step_seconds`` of an optimizer step; the time of validation is excluded;
    * ``throughput/mfu``, the model's operations relative to the peak of the devices, where the peak
      is known or given (:func:`~lightning_plugins.nn.transformer_flops.training_flops_per_token`);
    * ``throughput/memory_gib``: peak memory of torch on the device, or of the process on a CPU;
    * ``train/gradient_norm`` before clipping;
    * ``lr/NAME`` of each parameter group in this step, by its name or number, of the first 32.

    In each validation, ``val/loss_at_position_N``: the mean loss of the tokens whose position in
    their document, or in the window, is at least N and less than 2 N, over 20 000 tokens. The
    module must have a method ``token_losses(batch)`` that returns losses and positions
    ``(batch, length)``, as ``CausalLM``; it is an additional pass in the first process.

    Steps that are not logged cost a sum of two numbers. The batches are tensors of tokens
    ``(batch, length + 1)`` or dictionaries with ``labels`` or ``input_ids`` of this shape.

    Args:
        peak_flops: Operations per second of one device in the precision of the run; None takes
            the value of Lightning's table for known GPUs.

    Raises:
        ValueError: ``peak_flops`` is not positive.

    Example::

        trainer = Trainer(callbacks=[PretrainingMonitor()])
    """

    def __init__(self, peak_flops: float | None = None) -> None:
        if peak_flops is not None and not peak_flops > 0:
            raise ValueError(f"peak_flops={peak_flops}: expected more than 0")
        self.peak_flops = peak_flops
        self._tokens = self._steps = 0
        self._clock = 0.0
        self._losses: dict[int, list[Tensor]] = {}
        self._seen = 0
        self._flops: tuple[int, float] | None = None

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Log the norm of the gradient, and the learning rates of the step."""
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every or (trainer.global_step + 1) % every:
            return
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm: Any = get_total_norm(gradients)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        pl_module.log("train/gradient_norm", norm)
        # After the step, the schedule has set the rates of the next one.
        groups = [group for one in trainer.optimizers for group in one.param_groups]
        for number, group in enumerate(groups[:_MOST_GROUPS]):
            pl_module.log(f"lr/{group.get('name', number)}", float(group["lr"]))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the tokens, and log at the logging steps."""
        # Simulated agents have a list, one batch each.
        shapes = [_shape_of(one) for one in (batch if isinstance(batch, list) else [batch])]
        self._tokens += sum(windows * (length - 1) for windows, length in shapes)
        if not steps_the_optimizer(trainer):
            return
        self._steps += 1
        if not logs_at_this_step(trainer):
            return
        now = time.monotonic()
        if self._clock:
            seconds = now - self._clock
            rate = self._tokens * data_share(trainer)[1] / seconds
            pl_module.log("throughput/tokens_per_second", rate)
            pl_module.log("throughput/step_seconds", seconds / self._steps)
            if peak := self._peak(trainer, pl_module):
                flops = rate * self._flops_per_token(pl_module, shapes[0][1] - 1)
                pl_module.log("throughput/mfu", flops / (peak * trainer.world_size))
        pl_module.log("throughput/memory_gib", _peak_memory_gib(pl_module.device))
        self._tokens, self._steps, self._clock = 0, 0, now

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exclude the time of validation."""
        self._tokens, self._steps, self._clock = 0, 0, 0.0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the losses by position."""
        measures = callable(getattr(pl_module, "token_losses", None))
        # One process alone cannot call a module whose parameters are sharded.
        is_sharded = getattr(pl_module, "device_mesh", None) is not None
        if trainer.sanity_checking or not measures or is_sharded:
            return
        if trainer.is_global_zero and self._seen < _MOST_TOKENS:
            with torch.no_grad():
                losses, positions = pl_module.token_losses(batch)  # type: ignore[operator]
            self._seen += losses.numel()
            bins = positions.clamp(min=1).log2().floor().long()
            for number in range(int(bins.max()) + 1):
                chosen = (bins == number) & (losses == losses)
                total = torch.stack([losses[chosen].sum(), chosen.sum().to(losses.dtype)])
                self._losses.setdefault(2**number, []).append(total)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the losses by position."""
        measured: dict[int, float] | None = None
        if trainer.is_global_zero:
            sums = {n: torch.stack(parts).sum(dim=0) for n, parts in self._losses.items()}
            measured = {n: float(s[0] / s[1]) for n, s in sums.items() if s[1] > 0}
        # On every rank, because each rank checks what ModelCheckpoint monitors.
        measured = trainer.strategy.broadcast(measured)
        self._losses, self._seen = {}, 0
        for position, loss in (measured or {}).items():
            pl_module.log(f"val/loss_at_position_{position}", loss, rank_zero_only=False)

    def _peak(self, trainer: Trainer, pl_module: LightningModule) -> float | None:
        if self.peak_flops is None and pl_module.device.type == "cuda":
            precision = str(trainer.precision)
            dtype = torch.bfloat16 if "bf16" in precision else torch.float32
            dtype = torch.float16 if precision.startswith("16") else dtype
            self.peak_flops = get_available_flops(pl_module.device, dtype)
        return self.peak_flops

    def _flops_per_token(self, pl_module: LightningModule, context_length: int) -> float:
        if self._flops is None or self._flops[0] != context_length:
            network: Any = getattr(pl_module, "network", None) or pl_module
            self._flops = context_length, training_flops_per_token(network, context_length)
        return self._flops[1]


def _shape_of(batch: Any) -> tuple[int, int]:
    tokens = batch.get("labels", batch.get("input_ids")) if isinstance(batch, dict) else batch
    if not (isinstance(tokens, Tensor) and tokens.dim() == 2):
        raise ValueError(
            "PretrainingMonitor needs batches of tokens (batch, length + 1), or dictionaries with "
            "labels or input_ids"
        )
    return tokens.shape[0], tokens.shape[1]


def _peak_memory_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
