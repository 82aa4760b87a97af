"""Losses that balance the experts of a language model, from the routing that the model used."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_plugins._lightning_compat.loops import callbacks_of
from lightning_plugins.callbacks.router_bias_balancing import RouterBiasBalancing
from lightning_plugins.litmodels.language_model.network import Batch, inputs_and_targets
from lightning_plugins.litmodels.language_model.target_weighting import num_ranks
from lightning_plugins.nn.moe.routers import find_routers, recorded_routings, routing_of
from lightning_plugins.nn.moe.routing import GateWeighting, Routing, route
from lightning_plugins.nn.moe.routing_statistics import (
    expert_load,
    load_balancing_loss,
    router_z_loss,
    sequence_balancing_loss,
)

# Model types without ``norm_topk_prob`` whose expert weights sum to 1.
_ALWAYS_RENORMALISED = ("gpt_oss", "mixtral")


@dataclass(frozen=True)
class ExpertBalancing:
    """Coefficients of the losses that balance experts; each loss is a mean over the layers.

    Args:
        load: Of the load-balancing loss of each layer, ``top_k * E * sum_i f_i P_i``, which is
            ``top_k`` if balanced. The loss of transformers joins all layers first, so layers that
            each use one expert of their own cancel out. With several processes the loads are those
            of all of them (Qiu et al., arXiv 2501.11873), so they train as one process.
        sequence: Of the same loss within each sequence, divided by ``top_k`` (DeepSeek-V3, arXiv
            2412.19437, section 2.1.2, with 0.0001).
        router_z: Of the router z-loss (Zoph et al., arXiv 2202.08906, equation 5, with 0.001).

    Raises:
        ValueError: A coefficient is negative.
    """

    load: float = 0.0
    sequence: float = 0.0
    router_z: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise ValueError(f"balancing.{name}={value}: expected 0 or more")

    @property
    def is_active(self) -> bool:
        """Whether a loss balances the experts."""
        return self.load > 0 or self.sequence > 0

    @classmethod
    def of_configuration(cls, config: Any) -> "ExpertBalancing":
        """Return the published coefficient of an architecture; 0 if it has none."""
        if not getattr(config, "output_router_logits", False):
            return cls()
        return cls(load=float(getattr(config, "router_aux_loss_coef", 0.0) or 0.0))

    def losses(
        self,
        routings: Sequence[Routing],
        num_sequences: int,
        loads: Sequence[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return each loss without its coefficient, by the name under which it is logged.

        Args:
            routings: Routing of each layer.
            num_sequences: Sequences of the batch, whose tokens follow each other.
            loads: Load of the experts of each layer, :func:`expert_load`, over all processes; None
                means that of ``routings``.
        """
        top_k = routings[0].experts.shape[1]
        known: Sequence[Tensor | None] = loads or [None] * len(routings)
        parts = (load_balancing_loss(*one) for one in zip(routings, known, strict=True))
        found = {"auxiliary_loss": top_k * _mean(parts)}
        if self.sequence:
            found["sequence_balancing_loss"] = _mean(
                sequence_balancing_loss(r, num_sequences) for r in routings
            )
        if self.router_z:
            found["router_z_loss"] = _mean(router_z_loss(r) for r in routings)
        return found

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Return the sum of the losses with their coefficients."""
        total = self.load * losses["auxiliary_loss"]
        if self.sequence:
            total = total + self.sequence * losses["sequence_balancing_loss"]
        if self.router_z:
            total = total + self.router_z * losses["router_z_loss"]
        return total


def _mean(parts: Any) -> Tensor:
    return torch.stack(list(parts)).mean()


class RoutedExperts:
    """The part of ``CausalLM`` that reads and balances the routers of a mixture of experts."""

    network: nn.Module | None
    trainer: Trainer
    config: Any
    log: Callable[..., None]
    _balancing: ExpertBalancing | None
    _compile: bool
    _has_routers: bool | None = None
    _router_outputs: list[tuple[nn.Module, Any]]  # of a compiled network
    _warned_of_balance = False

    def routings(self, batch: Batch) -> list[Routing]:
        """Return the routing of each layer with experts, as the model's own routers selected it."""
        assert self.network is not None, "call configure_model() first"
        # Hooks of one pass would compile the network again.
        with recorded_routings(self.network) as routings, torch.compiler.set_stance("force_eager"):
            output = self.network(**inputs_and_targets(batch)[0])
        if routings:
            return routings
        # Older releases of transformers compute the routing outside of the gate.
        logits = getattr(output, "router_logits", None) or ()
        renormalised = self.config.model_type in _ALWAYS_RENORMALISED or getattr(
            self.config, "norm_topk_prob", False
        )
        weighting: GateWeighting = "softmax_topk" if renormalised else "softmax_all"
        return [route(one, self.config.num_experts_per_tok, weighting) for one in logits]

    @contextmanager
    def recorded_routings(self) -> Iterator[list[Routing]]:
        """Yield a list that has the routings of the block at its end; empty without routers."""
        assert self.network is not None
        if self._has_routers is None:
            self._has_routers = bool(find_routers(self.network))
        if not self._has_routers:
            yield []
            return
        if not self._compile:
            with recorded_routings(self.network) as found:
                yield found
            return
        self._router_outputs.clear()
        routings: list[Routing] = []
        yield routings
        kept = (routing_of(router, output) for router, output in self._router_outputs)
        routings += [routing for routing in kept if routing is not None]
        self._router_outputs.clear()

    def _keep_outputs_of_routers(self, network: nn.Module) -> None:
        """Keep the outputs in training; new hooks in each step would compile the network again."""
        outputs = self._router_outputs

        def keep(router: nn.Module, arguments: Any, output: Any) -> None:
            if router.training:
                outputs.append((router, output))

        for router in find_routers(network).values():
            router.register_forward_hook(keep)

    def balancing_loss(self, output: Any, routings: list[Routing], batch: Batch) -> Tensor | float:
        """Log the load of the experts and return the losses that balance them."""
        balancing = self._balancing or ExpertBalancing.of_configuration(self.config)
        if not routings:
            auxiliary = getattr(output, "aux_loss", None)
            if isinstance(auxiliary, Tensor) and output.router_logits:
                self.log("train/auxiliary_loss", auxiliary)
                return balancing.load * auxiliary
            self._warn_of_unbalanced_experts()
            return 0.0
        if not balancing.is_active:
            self._warn_of_unbalanced_experts()
        first, loads = self._global_loads(routings)
        self.log("train/router_max_load", max_load(first))
        if balancing == ExpertBalancing():
            return 0.0
        losses = balancing.losses(routings, len(inputs_and_targets(batch)[1]), loads)
        for name, value in losses.items():
            self.log(f"train/{name}", value)
        return balancing.total(losses)

    @torch.no_grad()
    def _global_loads(self, routings: Sequence[Routing]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the loads of first choices and of all choices in each layer, over all ranks."""
        first = [expert_load(replace(r, experts=r.experts[:, :1])) for r in routings]
        loads = first + [expert_load(r) for r in routings]
        if num_ranks(self.trainer) > 1:
            joined = self.trainer.strategy.reduce(torch.cat(loads), reduce_op="mean")
            loads = list(joined.split([len(load) for load in loads]))
        return loads[: len(routings)], loads[len(routings) :]

    def _warn_of_unbalanced_experts(self) -> None:
        if self._warned_of_balance:
            return
        self._warned_of_balance = True
        assert self.network is not None
        if find_routers(self.network) and not any(
            isinstance(callback, RouterBiasBalancing) for callback in callbacks_of(self.trainer)
        ):
            rank_zero_warn(
                f"nothing balances the experts of {self.config.model_type}: no auxiliary loss is "
                "added with this configuration, and no callback moves the routers' biases; set "
                "balancing.load of CausalLM, such as 0.01, or add RouterBiasBalancing()"
            )


def max_load(loads: Sequence[Tensor]) -> Tensor:
    """Compute the largest load of an expert in any layer, times the number of experts."""
    return torch.stack([load.max() * len(load) for load in loads]).max()
