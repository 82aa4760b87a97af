"""Sharpness-Aware Minimization (SAM), for the whole run or only for its last part."""

import re
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins._lightning_compat.closures import wrap_closures
from lightning_plugins._lightning_compat.loops import logs_at_this_step, steps_the_optimizer
from lightning_plugins._lightning_compat.processes import model_parallel_sizes, uses_static_graph
from lightning_plugins.callbacks.optimizer_in_backward import StepInBackwardCheck
from lightning_plugins.callbacks.replica_check import trains_replicas
from lightning_plugins.callbacks.sam_closure import SAMClosures
from lightning_plugins.callbacks.training_phase import Phase, PhaseCallback
from lightning_plugins.callbacks.unsupported_strategies import refuse_simulated_agents
from lightning_plugins.nn.sharpness_aware import WeightPerturbation

if TYPE_CHECKING:
    from torch import Tensor


class LateSAM(PhaseCallback):
    """Sharpness-Aware Minimization (SAM) from ``start`` to ``end``, by default in the last quarter.

    ``start=0`` is plain SAM. Zhou et al. (arXiv 2410.10373) find that a few epochs of SAM at the
    end of training achieve nearly the effect of SAM in the whole run, with a fraction of its second
    passes.

    While active, each optimizer step computes the gradient as usual, moves the weights to the worst
    point within ``rho`` (Foret et al., arXiv 2010.01412), computes the gradient there on the same
    batches with the same dropout masks, restores the weights bit for bit, and passes the second
    gradient to clipping and to the optimizer. Before ``start`` the run is, bit for bit, the run
    without the callback. All optimizers with automatic optimization are supported, except LBFGS.

    The second pass logs nothing and leaves no trace in the module: what ``training_step`` changes
    (torchmetrics, buffers, momentum encoders, memory banks, counters, lists) is afterwards as the
    first pass left it; see :func:`lightning_plugins.nn.module_state.state_untouched`. The reported
    loss is the loss at the unperturbed weights. Globals, files and calls to a logger's own
    interface happen twice. Callbacks are notified of one backward pass per batch: before the first
    one, and after the second one, with the gradient that the optimizer receives.

    While active, logs at the steps at which the Trainer logs: ``sam/gradient_norm`` and
    ``sam/loss_gap`` (the loss at the perturbed weights minus the loss at the weights). Both are
    values of the last SAM step, which may be an earlier step if ``interval`` is above 1, and means
    over the processes.

    Args:
        start: The beginning of SAM, in ``unit``.
        end: The end of SAM; None means the end of the run.
        unit: ``fraction`` of the run's optimizer steps, ``epoch``, or optimizer ``step``.
        rho: The radius of the neighbourhood in the L2 norm of all weights, above 0. Common values
            are 0.05 to 0.2, and about 10 times that for ``asam``.
        rho_warmup: The number of optimizer steps over which the radius rises linearly to ``rho``.
        mode: ``sam``, ``asam`` (radius relative to the size of each weight, arXiv 2102.11600), or
            ``usam`` (``rho`` times the gradient, not normalized).
        interval: The number of optimizer steps from one SAM step to the next.
        parameters: A regular expression; only parameters whose name contains a match are perturbed,
            for example ``norm``. The norm is computed over these parameters.
        accumulation: With gradient accumulation, ``exact`` perturbs once with the gradient of all
            micro-batches and repeats them all; ``micro-batch`` perturbs each micro-batch with its
            own gradient (m-sharpness).
        local: With several processes, whether each process perturbs with its own gradient
            (m-sharpness; the first pass does not communicate) or with the averaged gradient. FSDP2
            averages gradients in every backward pass, so True has no effect there, and a warning
            is issued.
        momentum: At the start and the end of SAM, ``keep`` the optimizer's state or ``reset`` it.
            The released code of arXiv 2410.10373 resets it, because it switches between two
            optimizers.

    Raises:
        ValueError: An argument is outside its range, a ``fraction`` is given for an endless run,
            the run ends before ``start``, a ``fraction`` or ``epoch`` is given and the training
            loader has no length, or ``parameters`` matches no name.
        MisconfigurationException: The module uses manual optimization, LBFGS or a
            ``dataloader_iter`` training step, the optimizer steps in the backward pass, the
            strategy is FSDP (version 1) or DeepSpeed, two of these callbacks overlap, or
            ``momentum="reset"`` is set with simulated agents.

    Example::

        trainer = Trainer(max_epochs=200, callbacks=[LateSAM(start=0.875, rho=0.05)])
    """

    acts = "perturb the weights"
    by_hand = "lightning_plugins.nn.sharpness_aware"
    supports_shards = ("fsdp2", "tp")
    results = ("first_active_step", "sam_steps")

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
        WeightPerturbation(torch.optim.SGD([torch.zeros(1)]), rho, mode)  # validates rho and mode
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
                f"parameters={parameters!r} is not a regular expression: {error}"
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
        self._step_check: StepInBackwardCheck | None = None
        self._measured: dict[str, Tensor] | None = None

    def check(self, trainer: Trainer) -> None:
        """Refuse an unsupported Trainer before data is prepared."""
        super().check(trainer)
        if self.local and uses_static_graph(trainer):
            raise MisconfigurationException(
                "local=True skips a synchronization, which DDP with static_graph=True does not "
                "support: set local=False or static_graph=False"
            )
        if self.momentum == "reset":
            refuse_simulated_agents(trainer, "momentum='reset'", "set momentum='keep'")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reset the counters; a checkpoint is loaded after this hook."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            if self.local and model_parallel_sizes(trainer)["fsdp2"] > 1:
                rank_zero_warn(
                    "LateSAM(local=True) perturbs with the averaged gradient under FSDP2, as "
                    "local=False does, because FSDP2 averages it in every backward pass: set "
                    "local=False, or strategy='ddp' for m-sharpness"
                )
            self.sam_steps = self._momentum_resets = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the first and last SAM step, and intercept the training closures."""
        super().on_train_start(trainer, pl_module)
        optimizer = trainer.optimizers[0]
        if isinstance(optimizer, torch.optim.LBFGS):
            raise MisconfigurationException(
                "LateSAM does not support LBFGS, which evaluates its closure several times per step"
            )
        if self.momentum == "reset" and isinstance(optimizer, torch.optim.Adagrad):
            raise MisconfigurationException(
                "momentum='reset' clears the optimizer's state, which Adagrad creates only once: "
                "set momentum='keep'"
            )
        perturbation = WeightPerturbation(
            optimizer, self.rho, self.mode, self._chosen_parameters(pl_module)
        )
        self._step_check = StepInBackwardCheck(optimizer)
        self._closures = SAMClosures(
            trainer, pl_module, perturbation, self.local, self.accumulation == "micro-batch"
        )
        self._release = wrap_closures(trainer, self._wrap)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Reset the momentum at the start and the end of SAM, if requested."""
        if self.momentum == "keep":
            return
        switches = [moment for moment in (self._first_step, self._last_step) if moment]
        passed = sum(trainer.global_step >= moment for moment in switches)
        if passed > self._momentum_resets:
            trainer.optimizers[0].state.clear()
            self._momentum_resets = passed

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: "Tensor"
    ) -> None:
        """Check in the run's first backward pass that no optimizer steps in it."""
        if self._step_check is not None:
            self._step_check.begin_backward()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the SAM step and log the measurements of the last one."""
        if self._step_check is not None:
            self._step_check.remove()
            self._step_check = None
        if self._closures is None or not steps_the_optimizer(trainer):
            return
        if (measured := self._closures.take_measurements()) is not None:
            self._measured = {f"sam/{name}": value for name, value in measured.items()}
            self.sam_steps += 1
            if self.first_active_step is None:
                self.first_active_step = trainer.global_step - 1
        # Not only at SAM steps: with an interval, no SAM step may coincide with a logging step.
        lasts = self._lasts_at(trainer.global_step - 1)
        if self._measured is not None and lasts and logs_at_this_step(trainer):
            # Each rank has the gap of its own batch. The norm is the same on all, unless local.
            for name, value in self._measured.items():
                is_own = self.local or name == "sam/loss_gap"
                pl_module.log(name, value, sync_dist=is_own and trains_replicas(trainer))

    def state_dict(self) -> dict[str, Any]:
        """Return the counters; the step counter determines whether SAM is active."""
        return {
            "sam_steps": self.sam_steps,
            "first_active_step": self.first_active_step,
            "momentum_resets": self._momentum_resets,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counters."""
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
        return self._closures.wrap(closure, kwargs.get("batch"))

    def _chosen_parameters(self, pl_module: LightningModule) -> "list[Tensor] | None":
        if self.parameters is None:
            return None
        named = list(pl_module.named_parameters())
        chosen: list[Tensor] = [
            parameter for name, parameter in named if re.search(self.parameters, name)
        ]
        if not chosen:
            raise ValueError(
                f"parameters={self.parameters!r} matches no parameter name; the names are "
                f"{', '.join(name for name, _ in named[:8])}{', …' if len(named) > 8 else ''}"
            )
        return chosen

    def _acted(self) -> str:
        return f"{self.sam_steps:,} SAM steps"

    def _detach(self) -> None:
        super()._detach()
        if self._step_check is not None:
            self._step_check.remove()
        self._closures = self._measured = self._step_check = None
