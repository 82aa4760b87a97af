"""AdamW whose kernel raises each gradient to the signed power while it updates the parameter."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from lightning_plugins.nn.shards import like_parameter, local
from lightning_plugins.optimizers.power_kernels import LARGEST_P, SMALLEST_P, power_kernels
from lightning_plugins.optimizers.sign_power import sign_power_
from lightning_plugins.optimizers.step_without_hooks import step_without_hooks


class PoweredAdamW(AdamW):
    """AdamW that reads each gradient once, for the power and for the update.

    For classes in which ``SignPowerStep`` precedes it and provides the exponents. With ``compile``,
    the C++ kernel updates the groups that it supports; this class transforms the gradients of other
    groups and PyTorch's own step updates them. These are groups on other devices than CPUs, in
    other precisions than float32 and bfloat16, with exponents outside [0.2, 1.98] or p = 1, and
    with ``fused=False``, ``foreach``, ``capturable`` or ``differentiable``. State and checkpoints
    are AdamW's.
    """

    _floor: float
    _compile: bool

    def transforms(self) -> bool:
        """Whether ``step`` also transforms the gradients."""
        return self._compile and not torch.compiler.is_compiling()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step; the gradients are computed."""
        plain_step = step_without_hooks(self, PoweredAdamW)
        if not self.transforms():
            plain_step(self)
            return
        groups = self.param_groups
        remaining = [group for group in groups if not self._powered_group(group)]
        for group in remaining:
            gradients = (p.grad for p in group["params"] if p.grad is not None)
            sign_power_(gradients, group["p"], self._floor, compile=True)
        if remaining:
            self.param_groups = remaining
            try:
                plain_step(self)
            finally:
                self.param_groups = groups

    def _powered_group(self, group: dict[str, Any]) -> bool:
        """Update the parameters of a group with the kernel, or change nothing and return False."""
        trained = [q for q in group["params"] if q.grad is not None]
        if not trained:
            return True
        gradients = [local(like_parameter(q.grad, q)) for q in trained]
        if not (_is_for_kernel(group) and all(map(_is_on_cpu, trained, gradients))):
            return False
        p = float(group["p"])
        if not SMALLEST_P <= p <= LARGEST_P or (p == 1 and self._floor == 0):
            return False
        kernels = power_kernels()
        if kernels is None:
            return False
        states = [self._state_of(parameter, group["amsgrad"]) for parameter in trained]
        beta1, beta2 = group["betas"]
        is_done: bool = kernels.adamw_power_(
            _local(trained),
            gradients,
            _local([state["exp_avg"] for state in states]),
            _local([state["exp_avg_sq"] for state in states]),
            _local([state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else []),
            [state["step"] for state in states],
            p,
            self._floor,
            float(group["lr"]),
            float(beta1),
            float(beta2),
            group["weight_decay"],
            group["eps"],
            group["maximize"],
        )
        return is_done

    def _state_of(self, parameter: Tensor, amsgrad: bool) -> dict[str, Any]:
        """Return the parameter's state, which is created as by the fused AdamW."""
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(state["exp_avg"])
            if amsgrad:
                state["max_exp_avg_sq"] = torch.zeros_like(state["exp_avg"])
        return state


def _is_for_kernel(group: dict[str, Any]) -> bool:
    if group["fused"] is False or group["foreach"]:
        return False
    return not (group["capturable"] or group["differentiable"])


def _is_on_cpu(parameter: Tensor, gradient: Tensor) -> bool:
    if parameter.dtype not in (torch.float32, torch.bfloat16):
        return False
    return parameter.device.type == "cpu" and gradient.layout is torch.strided


def _local(tensors: list[Tensor]) -> list[Tensor]:
    return [local(tensor) for tensor in tensors]
