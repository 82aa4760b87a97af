"""Sharpness-Aware Minimization (SAM), for the whole run or only its last part."""

import re
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins._lightning_compat import (
    logs_at_this_step,
    steps_the_optimizer,
    uses_static_graph,
    wrap_closures,
)
from lightning_plugins.callbacks.sam_closure import SAMClosures
from lightning_plugins.callbacks.training_phase import Phase, PhaseCallback
from lightning_plugins.callbacks.unsupported_strategies import refuse_simulated_agents
from lightning_plugins.nn.sharpness_aware import WeightPerturbation

if TYPE_CHECKING:
    from torch import Tensor


class LateSAM(PhaseCallback):
    """Sharpness-Aware Minimization (SAM) from ``start`` to ``end``, by default in the last quarter.

    ``start=0`` is plain SAM. Zhou et al. (arXiv 2410.10373) find that a few epochs of SAM at the
    end of training do nearly what SAM in the whole run does, at a fraction of its second passes.

    While active, each optimizer step first computes the gradient as always, moves the weights to
    the worst point within ``rho`` (Foret et al., arXiv 2010.01412), computes the gradient there on
    the same batches with the same dropout masks, puts the weights back bit for bit, and hands that
    second gradient to clipping and to the optimizer. Before ``start`` the run is, bit for bit, the
    run without the callback. Any optimizer with automatic optimization works, except LBFGS.

    In the second pass nothing is logged, and torchmetrics, BatchNorm statistics and other buffers
    are as the first pass left them: what is reported is the loss at the unperturbed weights. Your
    own bookkeeping inside ``training_step`` does run twice.

    Logs, while active and at the steps at which the Trainer logs: ``sam/gradient_norm`` and
    ``sam/loss_gap`` (the loss at the perturbed weights minus the loss at the weights), both of the
    last SAM step, which with ``interval`` may be an earlier one.

    Args:
        start: when SAM begins, counted in ``unit``.
        end: when it ends; None is the end of the run.
        unit: ``fraction`` of the run's optimizer steps, ``epoch``, or optimizer ``step``.
        rho: radius of the neighbourhood in the L2 norm of all weights, > 0. Common values are 0.05
            to 0.2, and about 10 times that for ``asam``.
        rho_warmup: optimizer steps over which the radius rises linearly to ``rho``.
        mode: ``sam``, ``asam`` (radius relative to each weight's size, arXiv 2102.11600), or
            ``usam`` (``rho`` times the gradient, not normalized).
        interval: every how many optimizer steps a step is a SAM step.
        parameters: regular expression; only parameters whose name it is found in are perturbed,
            for example ``norm``. The norm is over these alone.
        accumulation: with gradient accumulation, perturb once with the ``exact`` gradient of all
            micro-batches and repeat them all, or each ``micro-batch`` with its own (m-sharpness).
        local: with several processes, perturb each with its own gradient (m-sharpness; no
            communication in the first pass) or with the averaged one.
        momentum: at each switch, ``keep`` the optimizer's state or ``reset`` it, as the released
            code of arXiv 2410.10373 does, which switches between two optimizers.

    Raises:
        ValueError: an argument outside its range, a ``fraction`` of a run without an end, a
            ``start`` beyond the end, a ``fraction`` or ``epoch`` where the training loader has no
            length, or ``parameters`` that match no name.
        MisconfigurationException: manual optimization, a strategy that shards the parameters,
            LBFGS, a ``dataloader_iter`` training step, two of these callbacks at one time, or
            ``momentum="reset"`` with simulated agents.

    Example::

        trainer = Trainer(max_epochs=200, callbacks=[LateSAM(start=0.875, rho=0.05)])
    """

    acts = "perturb the weights"
    by_hand = "lightning_plugins.nn.sharpness_aware"
    supports_shards = ("fsdp2", "tp")

    def __init__(
        self,
        start: float = 0.75,
        end: float | None = None,
        unit: Literal["fraction", "epoch", "step"] = "fraction",
        rho: float = 0.05,
        rho_warmup: int = 0,
        mode: Literal["sam", "asam", "usam"] = "sam",
        interval: int = 1,
        parameters: str | None = None,
        accumulation: Literal["exact", "micro-batch"] = "exact",
        local: bool = True,
        momentum: Literal["keep", "reset"] = "keep",
    ) -> None:
        super().__init__(Phase(start, end, unit))
        WeightPerturbation(torch.optim.SGD([torch.zeros(1)]), rho, mode)  # checks rho and mode
        if rho_warmup < 0:
            raise ValueError(f"rho_warmup={rho_warmup}: expected 0 or more optimizer steps")
        if interval < 1:
            raise ValueError(f"interval={interval}: expected 1 or more optimizer steps")
        if accumulation not in ("exact", "micro-batch"):
            raise ValueError(f"accumulation={accumulation!r}: expected 'exact' or 'micro-batch'")
        if momentum not in ("keep", "reset"):
            raise ValueError(f"momentum={momentum!r}: expected 'keep' or 'reset'")
        try:
            re.compile(parameters or "")
        except re.error as error:
            raise ValueError(
                f"parameters={parameters!r} is no regular expression: {error}"
            ) from error
        self.rho = rho
        self.rho_warmup = rho_warmup
        self.mode = mode
        self.interval = interval
        self.parameters = parameters
        self.accumulation = accumulation
        self.local = local
        self.momentum = momentum
        self.sam_steps = 0
        self._momentum_resets = 0
        self._closures: SAMClosures | None = None
        self._measured: dict[str, Tensor] | None = None

    def check(self, trainer: Trainer) -> None:
        """Refuse a Trainer that this callback cannot work in, before anything is prepared."""
        super().check(trainer)
        if self.local and uses_static_graph(trainer):
            raise MisconfigurationException(
                "local=True leaves out a synchronization, which DDP with static_graph=True does "
                "not survive: set local=False or static_graph=False"
            )
        if self.momentum == "reset":
            refuse_simulated_agents(trainer, "momentum='reset'", "set momentum='keep'")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to count anew; what a checkpoint holds is loaded after this."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.sam_steps = self._momentum_resets = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the first and last SAM step and take the place where training closures are built."""
        super().on_train_start(trainer, pl_module)
        optimizer = trainer.optimizers[0]
        if isinstance(optimizer, torch.optim.LBFGS):
            raise MisconfigurationException(
                "LateSAM cannot work with LBFGS, which evaluates its closure several times a step"
            )
        if self.momentum == "reset" and isinstance(optimizer, torch.optim.Adagrad):
            raise MisconfigurationException(
                "momentum='reset' clears the optimizer's state, which Adagrad makes only once: "
                "set momentum='keep'"
            )
        perturbation = WeightPerturbation(
            optimizer, self.rho, self.mode, self._chosen_parameters(pl_module)
        )
        self._closures = SAMClosures(
            trainer, pl_module, perturbation, self.local, self.accumulation == "micro-batch"
        )
        self._release = wrap_closures(trainer, self._wrap)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Reset the momentum at a switch, if asked."""
        if self.momentum == "keep":
            return
        switches = [moment for moment in (self._first_step, self._last_step) if moment]
        passed = sum(trainer.global_step >= moment for moment in switches)
        if passed > self._momentum_resets:
            trainer.optimizers[0].state.clear()
            self._momentum_resets = passed

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the SAM step and log what the last one measured."""
        if self._closures is None or not steps_the_optimizer(trainer):
            return
        if (measured := self._closures.take_measurements()) is not None:
            self._measured = {f"sam/{name}": value for name, value in measured.items()}
            self.sam_steps += 1
            if self.first_active_step is None:
                self.first_active_step = trainer.global_step - 1
        # Not only at SAM steps: with an interval, none of them need be one at which it logs.
        lasts = self._lasts_at(trainer.global_step - 1)
        if self._measured is not None and lasts and logs_at_this_step(trainer):
            pl_module.log_dict(self._measured)

    def state_dict(self) -> dict[str, Any]:
        """What was done so far; whether SAM is active follows from the step counter."""
        return {
            "sam_steps": self.sam_steps,
            "first_active_step": self.first_active_step,
            "momentum_resets": self._momentum_resets,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting."""
        self.sam_steps = state_dict["sam_steps"]
        self.first_active_step = state_dict["first_active_step"]
        self._momentum_resets = state_dict["momentum_resets"]

    def _wrap(self, closure: Any, kwargs: dict[str, Any], batch_idx: int) -> Any:
        assert self._closures is not None
        step = self._closures.trainer.global_step
        if not self._lasts_at(step) or (step - self._first_step) % self.interval:
            return closure
        if self.rho_warmup:
            rise = min(1.0, (step - self._first_step + 1) / self.rho_warmup)
            self._closures.perturbation.rho = self.rho * rise
        return self._closures.wrap(closure)

    def _chosen_parameters(self, pl_module: LightningModule) -> "list[Tensor] | None":
        if self.parameters is None:
            return None
        named = list(pl_module.named_parameters())
        chosen: list[Tensor] = [
            parameter for name, parameter in named if re.search(self.parameters, name)
        ]
        if not chosen:
            raise ValueError(
                f"parameters={self.parameters!r} is found in no parameter's name; the names are "
                f"{', '.join(name for name, _ in named[:8])}{', …' if len(named) > 8 else ''}"
            )
        return chosen

    def _detach(self) -> None:
        super()._detach()
        self._closures = self._measured = None
