"""Callbacks of either import root that record a run, and references that are made by hand."""

import importlib
import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def flat(tensors: Any) -> Tensor:
    """Return all values as one vector."""
    parts = [t.detach().double().flatten().clone() for t in tensors if t is not None]
    return torch.cat(parts) if parts else torch.zeros(0)


def optimized(trainer: Any) -> list[Tensor]:
    """Return the parameters of all optimizers."""
    return [p for o in trainer.optimizers for group in o.param_groups for p in group["params"]]


class Probe:
    """Records a run by a callback, which must be the last one.

    Attributes:
        steps: Optimizer steps of the run.
        weights: The model's parameters after the run, as one vector.
        first_weights: The same before the first batch.
        gradient: The gradient that the optimizer received at the first step.
        other_state: Tensors that no optimizer owns, when it stepped for the first time.
    """

    def __init__(self, root: str) -> None:
        self.steps = 0
        self.weights = self.first_weights = self.gradient = torch.zeros(0)
        self.other_state: dict[str, Tensor] = {}
        self.trainer: Any = None
        self.module: Any = None
        probe = self

        class Recorder(importlib.import_module(root).Callback):  # type: ignore[misc]
            def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
                probe.trainer, probe.module = trainer, pl_module

            def on_before_optimizer_step(
                self, trainer: Any, pl_module: Any, optimizer: Any
            ) -> None:
                if len(probe.gradient) == 0:
                    probe.gradient = flat(p.grad for p in optimized(trainer))
                    owned = set(map(id, optimized(trainer)))
                    state = {
                        **dict(pl_module.named_parameters()),
                        **dict(pl_module.named_buffers()),
                    }
                    probe.other_state = {
                        n: x.detach().clone() for n, x in state.items() if id(x) not in owned
                    }

            def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
                if len(probe.first_weights) == 0:
                    probe.first_weights = flat(pl_module.parameters())

            def on_train_end(self, trainer: Any, pl_module: Any) -> None:
                probe.steps = trainer.global_step
                probe.weights = flat(pl_module.parameters())

        self.callback = Recorder()


class SamByHand:
    """The gradient of SAM at the first step, by two passes and without a guard of the state."""

    def __init__(self, root: str, rho: float) -> None:
        self.gradient = torch.zeros(0)
        by_hand = self

        class TwoPasses(importlib.import_module(root).Callback):  # type: ignore[misc]
            def on_train_batch_start(
                self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
            ) -> None:
                self.window = [
                    *getattr(self, "window", []),
                    (batch, batch_idx, torch.get_rng_state()),
                ]

            def on_before_optimizer_step(
                self, trainer: Any, pl_module: Any, optimizer: Any
            ) -> None:
                with_gradient = [p for p in optimized(trainer) if p.grad is not None]
                kept = [(p.detach().clone(), p.grad.clone()) for p in with_gradient]
                norm = torch.stack([p.grad.norm() for p in with_gradient]).norm()
                with torch.no_grad():
                    for p in with_gradient:
                        p.add_(p.grad, alpha=float(rho / (norm + 1e-12)))
                        p.grad = None
                arguments = len(inspect.signature(pl_module.training_step).parameters)
                pl_module.log = pl_module.log_dict = lambda *args, **options: None
                for batch, batch_idx, state in self.window:
                    torch.set_rng_state(state)
                    with trainer.precision_plugin.train_step_context():
                        loss = pl_module.training_step(*[batch, batch_idx][:arguments])
                    loss = loss["loss"] if isinstance(loss, dict) else loss
                    (loss / len(self.window)).backward()
                del pl_module.log, pl_module.log_dict
                by_hand.gradient = flat(p.grad for p in optimized(trainer))
                with torch.no_grad():
                    for p, (weight, gradient) in zip(with_gradient, kept, strict=True):
                        p.copy_(weight)
                        p.grad = gradient

        self.callback = TwoPasses()


@contextmanager
def seeded_fit(root: str, changes: dict[str, Any]) -> Iterator[None]:
    """Seed each fit, and change it where the project does not let its caller do so.

    Args:
        root: The Lightning whose Trainer is changed.
        changes: ``seed``; ``ckpt_path`` to resume from; ``save_at``, a step and a path;
            ``gradient``, a function of each gradient before the optimizer's step.
    """
    lightning = importlib.import_module(root)
    trainer_cls, fit = lightning.Trainer, lightning.Trainer.fit

    def changed_fit(trainer: Any, *args: Any, **options: Any) -> Any:
        if "ckpt_path" in changes:
            # Several projects put objects into their checkpoints, which the run wrote itself.
            options |= {"ckpt_path": changes["ckpt_path"], "weights_only": False}
        if "save_at" in changes:
            trainer.callbacks.append(_saver(lightning, *changes["save_at"]))
        if "gradient" in changes:
            trainer.callbacks.append(_changer(lightning, changes["gradient"]))
        _seed(changes.get("seed", 1))
        return fit(trainer, *args, **options)

    _seed(0)
    trainer_cls.fit = changed_fit
    try:
        yield
    finally:
        trainer_cls.fit = fit


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (the generator that libraries use)
    random.seed(seed)


def _saver(lightning: Any, step: int, path: Any) -> Any:
    class Saver(lightning.Callback):  # type: ignore[misc,name-defined]
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == step and not path.exists():
                trainer.save_checkpoint(path)

    return Saver()


def _changer(lightning: Any, change: Callable[[Tensor], Tensor]) -> Any:
    class Changer(lightning.Callback):  # type: ignore[misc,name-defined]
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            for optimizer in trainer.optimizers:
                optimizer.step = self.changed(optimizer, optimizer.step)

        def changed(self, optimizer: Any, step: Any) -> Any:
            def new_step(closure: Any = None, **options: Any) -> Any:
                def and_change() -> Any:
                    loss = closure()
                    for group in optimizer.param_groups:
                        for p in group["params"]:
                            if p.grad is not None:
                                p.grad.copy_(change(p.grad))
                    return loss

                return step(closure=and_change, **options)

            return new_step

    return Changer()
