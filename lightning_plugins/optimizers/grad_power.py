"""GradPower: any optimizer, applied to gradients raised to a signed power."""

import copyreg
import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from lightning_plugins.optimizers.blockwise import Blockwise
from lightning_plugins.optimizers.powered_adamw import PoweredAdamW
from lightning_plugins.optimizers.sign_power import sign_power_
from lightning_plugins.optimizers.step_without_hooks import step_without_hooks


class _PowerType(type):
    """Metaclass of GradPower classes, which makes the classes of ``gradpower`` picklable."""


class SignPowerStep(Optimizer, metaclass=_PowerType):
    """Mixin whose ``step`` transforms the gradients before the optimizer's own step.

    Put it before the optimizer in the bases. The transform ``sign(g) * |g| ** p`` is applied once
    per step, in place, to the gradient that the optimizer would use: after the closure, and
    therefore after accumulation, reduction over ranks, unscaling and clipping. Without ``compile``,
    ``parameter.grad`` contains the transformed gradient afterwards, and calling ``step`` twice
    without ``zero_grad`` transforms it twice. Decoupled weight decay is unchanged; an optimizer
    that adds an L2 penalty to the gradient adds it after the transform.

    Args:
        params: Parameters or parameter groups, as in the optimizer; a group may set its own ``p``,
            a number or a tensor of one element, which a schedule changes without a recompilation.
        p: Exponent, > 0; with 1, the steps equal the plain optimizer's bit for bit.
        floor: Constant added to ``|g|`` inside the power. The authors' code uses 1e-8; 0 is the
            paper's formula.
        compile: Use compiled kernels. On a CPU, AdamW and ``BlockwiseAdamW`` then transform and
            update in one C++ kernel, which leaves ``parameter.grad`` unchanged; the gradients of
            other optimizers are transformed by a C++ kernel. Both are built once, in about ten
            seconds (see ``power_kernels``). Elsewhere, ``torch.compile`` transforms each tensor.
        **kwargs: Further arguments of the optimizer.

    Raises:
        ValueError: ``p`` or ``floor`` is out of range.
        TypeError: A gradient is sparse or complex (raised by ``step``).
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
        """Run the closure, transform the gradients and take the optimizer's step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not (isinstance(self, PoweredAdamW) and self.transforms()):
            for group in self.param_groups:
                gradients = (q.grad for q in group["params"] if q.grad is not None)
                sign_power_(gradients, group["p"], self._floor, self._compile)
        step_without_hooks(self, SignPowerStep)(self)
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its ``p`` defaults to the constructor's."""
        _check_exponent(param_group.setdefault("p", self._p))
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this or of the plain optimizer, whose groups have no ``p``."""
        exponents = [group["p"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, p in zip(self.param_groups, exponents, strict=True):
            group.setdefault("p", p)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """False: a fused optimizer would unscale after the transform and compute (S·g)^p / S."""
        return False

    @_step_supports_amp_scaling.setter
    def _step_supports_amp_scaling(self, value: bool) -> None:
        """Ignore the value that fused optimizers set at construction."""

    def _set_power(self, p: float, floor: float, compile: bool) -> None:
        _check_power(p, floor)
        self._p, self._floor, self._compile = p, floor, compile

    def __getstate__(self) -> dict[str, Any]:
        power = {"_p": self._p, "_floor": self._floor, "_compile": self._compile}
        return {**super().__getstate__(), **power}


class AdamWPower(SignPowerStep, PoweredAdamW):
    """AdamW on gradients raised to a signed power ("AdamPower").

    The default p = 1.2 is the paper's for language models, tuned on LLaMA 0.2B and used for all
    sizes. The evidence applies to similar training noise; in other settings, compare with p = 1:

    ========================= ============================= ==========================
    setting                   best p                        source
    ========================= ============================= ==========================
    AdamW, LLaMA and Qwen2MoE 1.2, loss -0.02 to -0.03      the paper, 66M to 2B
    ResNet-34, CIFAR-10       1.0 at batch 32, 0.9 at 64,   the paper; 1.2 is worst
                              0.8 at 128                    in each row
    Muon, 17M parameters      0.9; 1.2 clearly worse        an independent ablation
    ========================= ============================= ==========================

    Apart from its epsilon, Adam is invariant to a constant factor on each coordinate's gradients,
    so p reweights a coordinate's *steps*: with p > 1, steps with a large gradient count more. Adam
    adds epsilon to the scale of ``|g|^p``, so for gradients near 1e-7 it has more weight than in
    plain Adam.

    Source: Jinbo Wang et al., "GradPower: Powering Gradients for Faster Language Model
    Pre-Training", ICML 2026, arXiv 2505.24275. See ``SignPowerStep`` for the arguments and
    ``torch.optim.AdamW`` for others.
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

    SGD does not normalize: for gradients of size s, p changes the step by s^(p-1), so the learning
    rate must be tuned again, and a static loss scale does not cancel. Weight decay is an L2 penalty
    added after the transform.
    """


class GradPower(Optimizer):
    """YAML form of GradPower for an optimizer of any class.

    .. code-block:: yaml

        optimizer:
          class_path: lightning_plugins.optimizers.GradPower
          init_args:
            p: 1.2
            base:
              class_path: torch.optim.NAdam
              init_args: {lr: 0.001}

    ``GradPower(params, base, p)`` returns an instance of ``gradpower(type of base, p)`` instead of
    a wrapper, so schedules, precision plugins and checkpoints get a ``torch.optim.Optimizer`` of
    that type.

    Args:
        params: The parameters, passed to ``base``.
        base: Builds the optimizer.
        p: Exponent, > 0.
        floor: See ``SignPowerStep``.
        compile: See ``SignPowerStep``.

    Raises:
        ValueError: ``p`` or ``floor`` is out of range, or the optimizer calls its closure more than
            once per step.
    """

    def __new__(  # type: ignore[misc]
        cls,
        params: Iterable[Any],
        base: OptimizerCallable,
        p: float,
        floor: float = 0.0,
        compile: bool = False,
    ) -> Optimizer:
        """Build the optimizer and change its class to the GradPower subclass."""
        optimizer = base(params)
        power_class = gradpower(type(optimizer), p)
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
        """Declare the arguments; never called, because ``__new__`` returns another class."""


AnyOptimizer = TypeVar("AnyOptimizer", bound=Optimizer)


def gradpower(
    base_cls: type[AnyOptimizer], p: float, floor: float = 0.0, compile: bool = False
) -> type[AnyOptimizer]:
    """Return the subclass of ``base_cls`` that raises gradients to the signed power ``p``.

    The same arguments return the same class. The class and its instances can be pickled, and
    unpickled where this package is installed. The constructor has the arguments of ``base_cls``,
    which type checkers verify, and also accepts ``p``, ``floor`` and ``compile``.

    Args:
        base_cls: A subclass of ``torch.optim.Optimizer``.
        p: The default exponent of the class, > 0.
        floor: See ``SignPowerStep``.
        compile: See ``SignPowerStep``.

    Raises:
        TypeError: ``base_cls`` is not an optimizer class.
        ValueError: ``p`` or ``floor`` is out of range; the optimizer calls its closure more than
            once per step, such as LBFGS, whose line search would use transformed gradients, or
            requires one; or it supports only sparse gradients.
    """
    if not (isinstance(base_cls, type) and issubclass(base_cls, Optimizer)):
        raise TypeError(f"base_cls={base_cls!r}: expected a subclass of torch.optim.Optimizer")
    _check_power(p, floor)
    if issubclass(base_cls, torch.optim.LBFGS) or hasattr(base_cls, "first_step"):
        raise ValueError(
            f"base_cls={base_cls.__name__} evaluates its closure more than once per step, which "
            "GradPower does not support: use an optimizer with one gradient per step, such as "
            "torch.optim.AdamW (for SAM, add the callback LateSAM)"
        )
    closure = inspect.signature(base_cls.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ValueError(
            f"base_cls={base_cls.__name__} requires a closure in step, which it may call again, as "
            "GradPower does not support: use an optimizer whose step works without one"
        )
    if issubclass(base_cls, torch.optim.SparseAdam):
        raise ValueError(
            "base_cls=SparseAdam requires sparse gradients, which GradPower does not support"
        )
    return _power_class(base_cls, p, floor, compile)  # type: ignore[arg-type]


@functools.cache
def _power_class(base_cls: type[AnyOptimizer], *power: Any) -> type[AnyOptimizer]:
    def __init__(
        self: Any,
        params: Iterable[Any],
        *args: Any,
        p: float = power[0],
        floor: float = power[1],
        compile: bool = power[2],
        **kwargs: Any,
    ) -> None:
        self._set_power(p, floor, compile)
        base_cls.__init__(self, params, *args, **kwargs)
        self.defaults["p"] = p

    name = f"{base_cls.__name__}Power"
    members = {
        "__init__": __init__,
        "__module__": __name__,
        # The name of a local class, which jsonargparse does not offer on a command line.
        "__qualname__": f"gradpower.<locals>.{name}",
        "__doc__": f"{base_cls.__name__} on gradients raised to a signed power, by default "
        f"{power[0]}.",
        "_made_by": (base_cls, *power),
    }
    return _PowerType(name, _bases(base_cls), members)  # type: ignore[return-value]


def _bases(base_cls: type[Optimizer]) -> tuple[type[Optimizer], ...]:
    """Return the bases; ``PoweredAdamW`` replaces AdamW's step unless another class defines it."""
    if base_cls is AdamW:
        return (SignPowerStep, PoweredAdamW)
    if issubclass(base_cls, AdamW) and _own_step(base_cls) in map(_own_step, (AdamW, Blockwise)):
        return (SignPowerStep, base_cls, PoweredAdamW)
    return (SignPowerStep, base_cls)


def _own_step(cls: type[Optimizer]) -> Callable[..., Any]:
    """Return ``step`` without the wrapper that PyTorch adds to each class with an instance."""
    step: Callable[..., Any] = cls.step
    return step.__wrapped__ if getattr(step, "hooked", False) else step  # type: ignore[attr-defined]


def _reduce_class(cls: _PowerType) -> str | tuple[Any, ...]:
    made_by = cls.__dict__.get("_made_by")
    return (gradpower, made_by) if made_by else cls.__qualname__


copyreg.pickle(_PowerType, _reduce_class)


def _check_exponent(p: Any) -> None:
    if isinstance(p, Tensor) and p.numel() == 1:
        return  # its value is on its device
    if not isinstance(p, int | float) or not (math.isfinite(p) and p > 0):
        raise ValueError(f"p={p!r}: expected a finite exponent > 0; 1 changes nothing")


def _check_power(p: Any, floor: float) -> None:
    _check_exponent(p)
    if not (math.isfinite(floor) and floor >= 0):
        raise ValueError(f"floor={floor}: expected a finite number >= 0")
