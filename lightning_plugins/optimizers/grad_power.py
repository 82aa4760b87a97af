"""GradPower: any optimizer on gradients raised to a signed power."""

import copyreg
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch.optim import SGD, AdamW, Optimizer

from lightning_plugins.optimizers.sign_power import sign_power_
from lightning_plugins.optimizers.step_without_hooks import step_without_hooks


class _PowerType(type):
    """The type of GradPower classes, so that those made by ``gradpower`` can be pickled."""


class SignPowerStep(Optimizer, metaclass=_PowerType):
    """Mixin, before the optimizer in the bases: ``step`` transforms the gradients, then steps.

    The transform ``sign(g) * |g| ** p`` acts once a step, in place, on what the optimizer would
    have seen: after the closure, that is after accumulation, reduction over ranks, unscaling and
    clipping. ``parameter.grad`` holds the transformed gradient afterwards, and calling ``step``
    twice without ``zero_grad`` transforms it twice. Decoupled weight decay is untouched; an L2
    penalty that the optimizer adds to the gradient is added after the transform.

    Args:
        params: as the optimizer takes them; a group may have a ``p`` of its own.
        p: exponent, > 0; 1 is the optimizer alone, bit for bit.
        floor: added to ``|g|`` inside the power, as the authors' code does with 1e-8; 0 is the
            paper's formula.
        compile: transform by one kernel of ``torch.compile`` for each tensor.
        **kwargs: of the optimizer.

    Raises:
        ValueError: ``p`` or ``floor`` out of range.
        TypeError: at a step, for a gradient that is sparse or complex.
    """

    def __init__(
        self,
        params: Iterable[Any],
        p: float,
        floor: float = 0.0,
        compile: bool = False,
        **kwargs: Any,
    ) -> None:
        self._set_power(p, floor, compile)
        super().__init__(params, **kwargs)
        self.defaults["p"] = p

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Run the closure, transform the gradients, take the optimizer's step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            gradients = (q.grad for q in group["params"] if q.grad is not None)
            sign_power_(gradients, group["p"], self._floor, self._compile)
        step_without_hooks(self, SignPowerStep)(self)
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; without a ``p`` it has that of the constructor."""
        _check_exponent(param_group.setdefault("p", self._p))
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this or of the plain optimizer, whose groups keep their ``p``."""
        exponents = [group["p"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, p in zip(self.param_groups, exponents, strict=True):
            group.setdefault("p", p)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Never: a fused optimizer would unscale after the transform, (S·g)^p / S."""
        return False

    @_step_supports_amp_scaling.setter
    def _step_supports_amp_scaling(self, value: bool) -> None:
        """Fused optimizers set it at construction."""

    def _set_power(self, p: float, floor: float, compile: bool) -> None:
        _check_exponent(p)
        if not (math.isfinite(floor) and floor >= 0):
            raise ValueError(f"floor={floor}: expected a finite number >= 0")
        self._p, self._floor, self._compile = p, floor, compile

    def __getstate__(self) -> dict[str, Any]:
        power = {"_p": self._p, "_floor": self._floor, "_compile": self._compile}
        return {**super().__getstate__(), **power}


class AdamWPower(SignPowerStep, AdamW):
    """AdamW on gradients raised to a signed power ("AdamPower").

    The default p = 1.2 is the paper's for language models, found on LLaMA 0.2B and kept for all
    sizes. The evidence is for training noise like theirs; elsewhere compare p with 1 yourself:

    ========================= ============================= ==========================
    setting                   best p                        source
    ========================= ============================= ==========================
    AdamW, LLaMA and Qwen2MoE 1.2, loss -0.02 to -0.03      the paper, 66M to 2B
    ResNet-34, CIFAR-10       1.0 at batch 32, 0.9 at 64,   the paper; 1.2 is worst
                              0.8 at 128                    in each row
    Muon, 17M parameters      0.9; 1.2 clearly worse        an independent ablation
    ========================= ============================= ==========================

    Adam is invariant to a constant factor on each coordinate's gradients (but for its epsilon), so
    p reweights a coordinate's *steps*: with p > 1 those with a large gradient count more. Adam's
    epsilon stands beside ``|g|^p``, so for gradients near 1e-7 it weighs more than in plain Adam.

    Source: Wang et al., "GradPower: Powering Gradients for Faster Language Model Pre-Training",
    arXiv 2505.24275. See ``SignPowerStep`` for the arguments and ``torch.optim.AdamW`` for others.
    """

    def __init__(
        self,
        params: Iterable[Any],
        p: float = 1.2,
        floor: float = 0.0,
        compile: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(params, p=p, floor=floor, compile=compile, **kwargs)


class SGDPower(SignPowerStep, SGD):
    """SGD on gradients raised to a signed power; p has no default, since none is published.

    SGD does not normalize: where gradients are of size s, p changes the step by s^(p-1), so the
    learning rate must be found anew, and a static loss scale would not cancel. Weight decay is L2
    and added after the transform.
    """


class GradPower(Optimizer):
    """YAML form: an optimizer of any class, made into its GradPower subclass.

    .. code-block:: yaml

        optimizer:
          class_path: lightning_plugins.optimizers.GradPower
          init_args:
            p: 1.2
            base:
              class_path: torch.optim.NAdam
              init_args: {lr: 0.001}

    ``GradPower(params, base, p)`` returns ``gradpower(type of base)`` and not a wrapper, so that
    schedules, precision plugins and checkpoints see a ``torch.optim.Optimizer`` of that type.

    Args:
        params: given to ``base``.
        base: builds the optimizer.
        p: exponent, > 0.
        floor: see ``SignPowerStep``.
        compile: see ``SignPowerStep``.

    Raises:
        ValueError: ``p`` or ``floor`` out of range; an optimizer that calls its closure often.
    """

    def __new__(  # type: ignore[misc]
        cls,
        params: Iterable[Any],
        base: OptimizerCallable,
        p: float,
        floor: float = 0.0,
        compile: bool = False,
    ) -> Optimizer:
        """Build the optimizer and give it its GradPower class."""
        optimizer = base(params)
        power_class = gradpower(type(optimizer), p)  # type: ignore[arg-type]
        optimizer.__class__ = power_class
        assert isinstance(optimizer, SignPowerStep)
        optimizer._set_power(p, floor, compile)
        optimizer._patch_step_function()
        for group in (optimizer.defaults, *optimizer.param_groups):
            group.setdefault("p", p)
        return optimizer

    def __init__(
        self,
        params: Iterable[Any],
        base: OptimizerCallable,
        p: float,
        floor: float = 0.0,
        compile: bool = False,
    ) -> None:
        """Never called: ``__new__`` returns an optimizer of another class."""


@functools.cache
def gradpower(base_cls: type[Optimizer], p: float) -> type[Optimizer]:
    """The subclass of ``base_cls`` that raises gradients to the signed power ``p`` by default.

    The same arguments give the same class; it and its instances can be pickled where this package
    is installed.

    Raises:
        TypeError: ``base_cls`` is no optimizer class.
        ValueError: ``p`` out of range; an optimizer that calls its closure more than once, such as
            LBFGS, whose line search would see other gradients than it follows; one that takes only
            sparse gradients.
    """
    if not (isinstance(base_cls, type) and issubclass(base_cls, Optimizer)):
        raise TypeError(f"base_cls={base_cls!r}: expected a subclass of torch.optim.Optimizer")
    _check_exponent(p)
    if issubclass(base_cls, torch.optim.LBFGS) or hasattr(base_cls, "first_step"):
        raise ValueError(
            f"base_cls={base_cls.__name__} evaluates its closure more than once in a step, which "
            "GradPower cannot transform: use an optimizer that takes one gradient a step, such as "
            "torch.optim.AdamW (for SAM use the callback LateSAM beside it)"
        )
    if issubclass(base_cls, torch.optim.SparseAdam):
        raise ValueError("base_cls=SparseAdam takes sparse gradients only: GradPower takes none")

    def __init__(
        self: Any,
        params: Iterable[Any],
        p: float = p,
        floor: float = 0.0,
        compile: bool = False,
        **kwargs: Any,
    ) -> None:
        SignPowerStep.__init__(self, params, p=p, floor=floor, compile=compile, **kwargs)

    name = f"{base_cls.__name__}Power"
    members = {
        "__init__": __init__,
        "__module__": __name__,
        # As a class statement here would name it; a command line does not offer local classes.
        "__qualname__": f"gradpower.<locals>.{name}",
        "__doc__": f"{base_cls.__name__} on gradients raised to a signed power, by default {p}.",
        "_made_by": (base_cls, p),
    }
    return _PowerType(name, (SignPowerStep, base_cls), members)  # type: ignore[return-value]


def _reduce_class(cls: _PowerType) -> str | tuple[Any, ...]:
    made_by = cls.__dict__.get("_made_by")
    return (gradpower, made_by) if made_by else cls.__qualname__


copyreg.pickle(_PowerType, _reduce_class)


def _check_exponent(p: float) -> None:
    if not isinstance(p, int | float) or not (math.isfinite(p) and p > 0):
        raise ValueError(f"p={p!r}: expected a finite exponent > 0; 1 leaves gradients as they are")
