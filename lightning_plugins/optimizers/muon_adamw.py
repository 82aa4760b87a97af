"""Muon for the hidden matrices and AdamW for the other parameters, as one optimizer."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.optim import AdamW, Muon, Optimizer

from lightning_plugins.optimizers.blocks import BlockParameter, blocks_of
from lightning_plugins.optimizers.grad_power import SignPowerStep

_HIDDEN = ("qk", "vo", "ffn")


class MuonAdamW(Optimizer):
    """One optimizer of ``torch.optim.Muon`` and ``torch.optim.AdamW``.

    Lightning's automatic optimization expects a single optimizer. Muon updates the matrices of
    attention and feed-forward layers; AdamW updates embeddings, output head, routers, norms, biases
    and everything that is not a matrix, such as stacked experts and matrices of one row or column.
    Both are PyTorch's own; this class assigns the parameters to two groups named ``muon`` and
    ``adamw``.

    Args:
        params: The parameters of one module, preferably ``model.named_parameters()``.
        lr: Learning rate of both. Muon's update is scaled to AdamW's root mean square, so one rate
            suits both.
        weight_decay: Decoupled weight decay of both.
        momentum: Momentum of Muon.
        nesterov: Whether Muon uses Nesterov momentum.
        ns_steps: Newton-Schulz iterations of Muon.
        adjust_lr_fn: How Muon's rate depends on the matrix's shape, see ``torch.optim.Muon``.
        betas: Betas of AdamW.
        eps: Epsilon of AdamW.
        patterns: Block per regular expression for names that no preset matches (``blocks_of``).
        preset: Names of ``gpt2``, ``llama``, ``qwen2_moe`` or ``vit``; ``auto`` tries all.

    Raises:
        ValueError: An argument is out of range, or the block of a parameter is unknown.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = "match_rms_adamw",
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        patterns: Mapping[str, str] | None = None,
        preset: str = "auto",
    ) -> None:
        parameters = blocks_of(params, type(self).__name__, patterns, preset)
        hidden = [(one.name, one.parameter) for one in parameters if _is_hidden_matrix(one)]
        rest = [(one.name, one.parameter) for one in parameters if not _is_hidden_matrix(one)]
        shared: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
        self._hosted: dict[str, Optimizer] = {}
        groups: list[dict[str, Any]] = []
        if hidden:
            settings: dict[str, Any] = {
                "momentum": momentum,
                "nesterov": nesterov,
                "ns_steps": ns_steps,
            }
            muon = Muon(hidden, **shared, **settings, adjust_lr_fn=adjust_lr_fn)
            self._host("muon", muon, groups)
        if rest:
            self._host("adamw", AdamW(rest, **shared, betas=betas, eps=eps), groups)
        super().__init__(groups, shared)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step of Muon and one of AdamW, each on its group."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._share()  # a caller may have replaced the state, to restart
        for group in self.param_groups:
            self._hosted[group["name"]].step()
        return loss

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_hosted": self._hosted}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy or a checkpoint; both replace groups and state."""
        super().__setstate__(state)
        self._share()

    def _host(self, name: str, optimizer: Optimizer, groups: list[dict[str, Any]]) -> None:
        self._hosted[name] = optimizer
        (group,) = optimizer.param_groups
        named = list(zip(group.pop("param_names"), group.pop("params"), strict=True))
        groups.append({**group, "params": named, "name": name})

    def _share(self) -> None:
        """Point each hosted optimizer at its group of this optimizer and at the common state."""
        for group in self.param_groups:
            hosted = self._hosted[group["name"]]
            hosted.param_groups, hosted.state = [group], self.state


class MuonPower(SignPowerStep, MuonAdamW):
    """``MuonAdamW`` on gradients raised to a signed power ("MuonPower").

    p has no default, because the published evidence disagrees: the paper (arXiv 2505.24275) uses
    1.2, according to a reader's note, and an independent ablation at 17M parameters found every
    p > 1 worse than 1 and 0.9 best (1.2836 against 1.2869 bits per byte, one seed). The transform
    acts on all gradients, before Muon's momentum and AdamW's moments.
    """


def _is_hidden_matrix(one: BlockParameter) -> bool:
    is_matrix = one.parameter.dim() == 2 and min(one.parameter.shape) > 1
    return is_matrix and all(block in _HIDDEN for block in one.blocks)
