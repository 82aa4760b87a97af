"""Muon for the hidden matrices and AdamW for the rest, as one optimizer."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.optim import AdamW, Muon, Optimizer

from lightning_plugins.optimizers.blocks import BlockParameter, blocks_of
from lightning_plugins.optimizers.grad_power import SignPowerStep

_HIDDEN = ("qk", "vo", "ffn")


class MuonAdamW(Optimizer):
    """``torch.optim.Muon`` and ``torch.optim.AdamW`` in one, as Lightning's automatic mode needs.

    Muon takes the matrices of attention and feed-forward layers; AdamW takes embeddings, output
    head, routers, norms, biases and everything that is no matrix, such as stacked experts. Both are
    PyTorch's own; this class routes the parameters, in two groups named ``muon`` and ``adamw``.

    Args:
        params: of one module, best ``model.named_parameters()``.
        lr: of both; with Muon's update at AdamW's root mean square one rate serves both.
        weight_decay: decoupled, of both.
        momentum: of Muon.
        nesterov: of Muon.
        ns_steps: Newton-Schulz iterations.
        adjust_lr_fn: how Muon's rate depends on the matrix's shape, see ``torch.optim.Muon``.
        betas: of AdamW.
        eps: of AdamW.
        patterns: regular expression -> block for names that no preset knows (``blocks_of``).
        preset: names of gpt2, llama, qwen2_moe or vit; ``auto`` knows them all.

    Raises:
        ValueError: an argument out of range, a parameter whose block is unknown.
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
        """Let each take a step on its group."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._share()  # a caller may have put another state in place, to begin anew
        for group in self.param_groups:
            self._hosted[group["name"]].step()
        return loss

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_hosted": self._hosted}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Called for a copy and for a checkpoint, both of which replace groups and state."""
        super().__setstate__(state)
        self._share()

    def _host(self, name: str, optimizer: Optimizer, groups: list[dict[str, Any]]) -> None:
        self._hosted[name] = optimizer
        (group,) = optimizer.param_groups
        named = list(zip(group.pop("param_names"), group.pop("params"), strict=True))
        groups.append({**group, "params": named, "name": name})

    def _share(self) -> None:
        """Let each hosted optimizer work on its group of this one and on the common state."""
        for group in self.param_groups:
            hosted = self._hosted[group["name"]]
            hosted.param_groups, hosted.state = [group], self.state


class MuonPower(SignPowerStep, MuonAdamW):
    """``MuonAdamW`` on gradients raised to a signed power ("MuonPower").

    p has no default, because the published evidence disagrees: the paper (arXiv 2505.24275) names
    1.2, as noted by a reader of it, and an independent ablation at 17M parameters found every
    p > 1 worse than 1, best 0.9 (1.2836 against 1.2869 bits per byte, one seed). The transform acts
    on all gradients, before Muon's momentum and AdamW's moments.
    """


def _is_hidden_matrix(one: BlockParameter) -> bool:
    return one.parameter.dim() == 2 and all(block in _HIDDEN for block in one.blocks)
