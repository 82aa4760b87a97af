"""Balances the experts of a mixture by the biases of its routers, without an auxiliary loss."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from lightning_plugins._lightning_compat.loops import (
    logs_at_this_step,
    optimizer_steps,
    steps_the_optimizer,
)
from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.callbacks.unsupported_strategies import refuse_sharded
from lightning_plugins.nn.moe.routers import count_selections, find_routers, selection_bias


class RouterBiasBalancing(PluginCallback):
    """Moves each router's selection bias towards an equal load of its experts.

    DeepSeek-V3 and similar architectures (GLM-4 MoE, dots.llm1, ERNIE 4.5, MiniMax-M2, LFM2 MoE and
    others) add a bias to the scores that select the experts, but not to the weights of their
    outputs. transformers does not update it. After each optimizer step this callback changes it by

    ``b_i += speed * sign(mean load - load_i)``

    with the loads of the whole accumulated and distributed batch. The biases are part of the
    model's state, so checkpoints and exported models contain them. In half precision, in which a
    step would be rounded away, the callback keeps them in single precision.

    Logs at the logging steps the maximal violation, which is the largest relative excess of an
    expert's load over the mean in any layer (0 means balance): ``routing/max_violation`` of the
    loads of all steps since the last logging step, and ``routing/max_violation_batch`` of those of
    this step alone, MaxVio_batch of the source, which is never 0 for few tokens. With
    ``RoutingStats``, MaxVio_global is the largest ``routing/max_load_l`` of a validation minus 1.

    Source: Wang et al., Auxiliary-Loss-Free Load Balancing, arXiv 2408.15664, algorithm 1;
    DeepSeek-V3, arXiv 2412.19437, section 2.1.2, with a speed of 0.001.

    Args:
        speed: Change of a bias per optimizer step. Scores are between 0 and 1; short runs need
            more than the default.
        decay: Fraction of the run, at its end, in which the speed falls linearly to 0. A constant
            speed balances the mean over steps, but the final biases are off by some steps;
            DeepSeek-V3 sets the speed to 0 for the last 3 % of its tokens. The learning rate must
            fall as well, or the router changes after its biases are fixed.

    Raises:
        ValueError: ``speed`` is not positive, ``decay`` is not a fraction, or the run has no known
            end and ``decay`` is not 0.
        MisconfigurationException: No router of the module has a selection bias, or the strategy
            shards the parameters or is decentralized.

    Example::

        trainer = Trainer(callbacks=[RouterBiasBalancing(speed=0.001)])
        trainer.fit(CausalLM("deepseek_v3", config=...), datamodule=TokenDataModule())
    """

    def __init__(self, speed: float = 0.001, decay: float = 0.0) -> None:
        if not speed > 0:
            raise ValueError(f"speed={speed}: expected more than 0")
        if not 0 <= decay <= 1:
            raise ValueError(f"decay={decay}: expected a fraction of the run in [0, 1]")
        self.speed = speed
        self.decay = decay
        self._layers: list[tuple[Tensor, Tensor, Tensor]] = []  # bias, exact bias, selections
        self._unseen: list[str] = []  # routers, until the first step
        self._exact_biases: list[Tensor] = []
        self._loads: list[Tensor] = []
        self._handles: list[RemovableHandle] = []
        self._in_batch = False

    def check(self, trainer: Trainer) -> None:
        """Refuse an unsupported Trainer before data is prepared."""
        refuse_sharded(trainer, self)
        strategy = type(trainer.strategy).__name__
        if "Decentralized" in strategy:
            raise MisconfigurationException(
                f"RouterBiasBalancing does not support {strategy}: each agent has its own biases "
                "and loads; use strategy='ddp' or a single device"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse unsupported configurations."""
        self.check(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the routers with a bias and count their selections from now on."""
        if self.decay and math.isinf(optimizer_steps(trainer)):
            raise ValueError(
                f"decay={self.decay} is a fraction of a run without an end: set "
                "trainer.max_steps, or decay=0"
            )
        self._release()
        for name in find_routers(pl_module):
            bias = selection_bias(pl_module, name)
            if bias is None:
                continue
            self._unseen.append(name)
            counts = torch.zeros(len(bias), dtype=torch.int64, device=bias.device)
            self._layers.append((bias, self._exact(bias, len(self._layers)), counts))
            self._loads.append(torch.zeros(len(bias), device=bias.device))
            self._handles.append(count_selections(pl_module, name, counts, lambda: self._in_batch))
        if not self._layers:
            raise MisconfigurationException(
                f"RouterBiasBalancing: no router of {type(pl_module).__name__} has a selection "
                "bias; use an architecture such as deepseek_v3 or glm4_moe, or an auxiliary loss"
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the selections of this batch's passes."""
        self._in_batch = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the biases after an optimizer step."""
        self._in_batch = False
        if not steps_the_optimizer(trainer):
            return
        self._refuse_unknown_routers()
        of_step = []
        speed = self._speed(trainer)
        for (bias, exact, counts), logged in zip(self._layers, self._loads, strict=True):
            load = trainer.strategy.reduce(counts.clone(), reduce_op="sum").to(torch.float32)
            counts.zero_()
            exact.add_((speed * (load.mean() - load).sign()).to(exact.dtype))
            if exact is not bias:
                bias.copy_(exact)
            logged += load
            of_step.append(load)
        if logs_at_this_step(trainer):
            pl_module.log("routing/max_violation", max_violation(self._loads))
            pl_module.log("routing/max_violation_batch", max_violation(of_step))
            for load in self._loads:
                load.zero_()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop counting."""
        self._release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop counting."""
        self._release()

    def state_dict(self) -> dict[str, Any]:
        """Return the biases that the model has in half precision only."""
        self._keep_exact()
        return {"exact_biases": self._exact_biases} if self._exact_biases else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the biases of a checkpoint."""
        self._exact_biases = list(state_dict.get("exact_biases", []))

    def _refuse_unknown_routers(self) -> None:
        """Raise an error if the first step counted no selection of a router."""
        for name, (_, _, counts) in zip(self._unseen, self._layers, strict=False):
            if not counts.any():
                raise MisconfigurationException(
                    f"RouterBiasBalancing: the first step counted no selection of the router "
                    f"{name!r}, whose output has an unknown form, or which was not used: update "
                    "transformers, or use an auxiliary loss"
                )
        self._unseen.clear()

    def _speed(self, trainer: Trainer) -> float:
        if not self.decay:
            return self.speed
        rest = 1 - trainer.global_step / optimizer_steps(trainer)
        return self.speed * min(1.0, max(rest / self.decay, 0.0))

    def _exact(self, bias: Tensor, layer: int) -> Tensor:
        """Return the bias in single precision, as the callback left it if it is the same one."""
        if bias.dtype.itemsize >= 4:
            return bias
        for exact in self._exact_biases[layer : layer + 1]:
            if torch.equal(exact.to(bias), bias):
                return exact.to(bias.device).clone()
        return bias.float()

    def _keep_exact(self) -> None:
        if any(exact is not bias for bias, exact, _ in self._layers):
            self._exact_biases = [exact.cpu().clone() for _, exact, _ in self._layers]

    def _release(self) -> None:
        self._keep_exact()
        for handle in self._handles:
            handle.remove()
        self._layers, self._loads, self._handles, self._in_batch = [], [], [], False
        self._unseen = []


def max_violation(loads: Sequence[Tensor]) -> Tensor:
    """Return the largest relative excess of a load over the mean of its layer."""
    return torch.stack([load.max() / load.mean().clamp(min=1) - 1 for load in loads]).max()
