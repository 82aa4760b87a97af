"""One agent of decentralized training: its model and its communication with the others."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_plugins.strategies.communicated_tensors import (
    Buffers,
    CommunicatedTensors,
    OptimizerState,
    are_finite,
    communicated_buffers,
    communicated_parameters,
    mixed,
    reset_state,
)
from lightning_plugins.strategies.communication import Communication, Round
from lightning_plugins.strategies.outer_optimizer import OuterState
from lightning_plugins.strategies.peers import Peers


class Agent:
    """Gossips and merges the weights of one model; training it is left to the caller.

    Call :meth:`after_step` after each optimizer step. Received tensors are written to new memory
    and replace the model's only after the whole transfer has arrived and every value is finite.

    Args:
        module: The agent's own model.
        peers: The connection to the other agents.
        communication: The topology and the schedule of gossip and merges.
        optimizers: The model's optimizers; required if ``optimizer_state`` is not ``keep``.
        buffers: ``mix`` includes floating-point buffers in gossip and merges; ``local`` keeps each
            agent's own; ``recalibrate`` includes them in gossip only, and the caller re-estimates
            them after a merge.
        optimizer_state: What a round does to the optimizer state: ``keep`` it, ``average`` it like
            the weights, or ``reset`` it.
        wire_dtype: Dtype of the tensors that pairs exchange; None uses that of the weights. Means
            over all agents are computed in full precision.
    """

    def __init__(
        self,
        module: nn.Module,
        peers: Peers,
        communication: Communication,
        optimizers: Sequence[Optimizer] = (),
        buffers: Buffers = "mix",
        optimizer_state: OptimizerState = "keep",
        wire_dtype: torch.dtype | None = None,
    ) -> None:
        self.module = module
        self.peers = peers
        self.communication = communication
        self.optimizers = optimizers
        self.buffers = buffers
        self.optimizer_state = optimizer_state
        self.wire_dtype = wire_dtype
        self.steps_at_merge: int | None = None
        self.before_merge: dict[str, Tensor] | None = None
        """Parameters and floating-point buffers just before the last merge, by name."""
        self._outer: OuterState | None = None
        self._reference: list[Tensor] | None = None

    @torch.no_grad()
    def start(self, shared_init: bool) -> bool:
        """Check that all models have the same shape and optionally copy the first agent's weights.

        Args:
            shared_init: Copy parameters and buffers from the first agent to all others.

        Returns:
            Whether all agents now have the same parameters.

        Raises:
            RuntimeError: The models have different shapes.
        """
        tensors = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        self._drop_agents_of_other_shapes(CommunicatedTensors(self.module, True).flat.fingerprint)
        if shared_init:
            self.peers.broadcast(list(tensors.values()), "start")
        self._remember_start()
        return self.has_same_parameters("start")

    @torch.no_grad()
    def has_same_parameters(self, kind: str = "control") -> bool:
        """Whether the sum of each parameter is the same on all agents."""
        sums = torch.stack(
            [t.double().sum() for t in communicated_parameters(self.module).values()]
        )
        of_all = self.peers.gather(sums, kind)
        return all(torch.equal(part, of_all[0]) for part in of_all)

    def after_step(self, steps: int, total_steps: float) -> Round | None:
        """Gossip or merge if the schedule has a round after ``steps`` optimizer steps.

        Returns:
            The round that took place, or None.

        Raises:
            RuntimeError: A transfer failed, or received values are not finite.
        """
        round_ = self.communication.after(steps, total_steps)
        if round_ is None:
            return None
        if round_.kind == "merge":
            self.merge(steps)
            return round_
        if self.communication.schedule.shape == "adaptive" and not self._has_drifted():
            return None
        self._gossip(round_)
        return round_

    def merge(self, steps: int) -> None:
        """Replace every agent's weights by the mean of all, or by the outer optimizer's step."""
        mergeable = CommunicatedTensors(self.module, self.buffers == "mix")
        own = communicated_parameters(self.module) | communicated_buffers(self.module)
        self.before_merge = {name: tensor.detach().clone() for name, tensor in own.items()}
        means = self._checked_mean(mergeable, "merge")
        self._commit(mergeable, self._outer.step(means) if self._outer else means)
        self.steps_at_merge = steps

    @torch.no_grad()
    def mean(self, tensors: Sequence[Tensor], kind: str) -> list[Tensor]:
        """Average each of ``tensors`` over agents, with one message per dtype."""
        means: dict[int, Tensor] = {}
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            chosen = [i for i, tensor in enumerate(tensors) if tensor.dtype == dtype]
            flat = torch.cat([tensors[i].detach().reshape(-1) for i in chosen])
            self._drop_failed_agents([flat], len(flat))
            parts = self.peers.reduce(flat, "mean", kind).split(
                [tensors[i].numel() for i in chosen]
            )
            means |= {i: part.view(tensors[i].shape) for i, part in zip(chosen, parts, strict=True)}
        return [means[i] for i in range(len(tensors))]

    @torch.no_grad()
    def consensus_distance(self, means: Sequence[Tensor]) -> Tensor:
        """Compute ``1/n sum_i ||x_i - x̄||^2`` over the parameters, given their ``means``."""
        own = communicated_parameters(self.module).values()
        squared = sum(
            ((x.double() - mean.double()) ** 2).sum() for x, mean in zip(own, means, strict=True)
        )
        return self.peers.reduce(torch.as_tensor(squared), "mean", "measurement")

    def state_dict(self) -> dict[str, Any]:
        """Return the state, other than the weights, that exact resume requires."""
        return {
            "steps_at_merge": self.steps_at_merge,
            "outer": self._outer.state_dict() if self._outer else None,
            "reference": self._reference,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`; the weights must already be loaded."""
        self._remember_start()
        self.steps_at_merge = state["steps_at_merge"]
        if self._outer is not None and state["outer"] is not None:
            self._outer.load_state_dict(state["outer"])
        if self._reference is not None and state["reference"] is not None:
            for own, loaded in zip(self._reference, state["reference"], strict=True):
                own.copy_(loaded)

    @torch.no_grad()
    def _gossip(self, round_: Round) -> None:
        if len(self.peers.agents) == 1:
            return
        mergeable = self._mergeable()
        flats = mergeable.flat.pack()
        if self.peers.can_drop:
            self._drop_failed_agents(flats, mergeable.flat.fingerprint)

        def plan() -> Any:
            return round_.topology.plan(self.communication.seed, round_.number, self.peers.agents)

        if plan().is_average:
            means = self.peers.average(flats, "gossip")
            self._commit(mergeable, self._outer.step(means) if self._outer else means)
        else:
            sent = [flat.to(self.wire_dtype or flat.dtype) for flat in flats]
            made, received = self.peers.exchange(sent, plan)
            weights = list(made.sources(self.peers.agent).values())
            result = [
                mixed(own, own_as_sent, [tensors[index] for tensors in received.values()], weights)
                for index, (own, own_as_sent) in enumerate(zip(flats, sent, strict=True))
            ]
            self._commit(mergeable, result, received)
        if self.optimizer_state == "reset":
            reset_state(self.optimizers)
        if self._reference is not None:
            self._reference = self._parameters_flat()

    def _checked_mean(self, mergeable: CommunicatedTensors, kind: str) -> list[Tensor]:
        flats = mergeable.flat.pack()
        if len(self.peers.agents) == 1:
            return flats
        self._drop_failed_agents(flats, mergeable.flat.fingerprint)
        return self.peers.average(flats, kind)

    def _commit(
        self,
        mergeable: CommunicatedTensors,
        result: Sequence[Tensor],
        received: Any = None,
    ) -> None:
        if not are_finite(result):
            bad = [agent for agent, tensors in (received or {}).items() if not are_finite(tensors)]
            sources = ", ".join(map(str, bad or [self.peers.agent]))
            raise RuntimeError(
                f"weights of agent {sources} are not finite, so agent {self.peers.agent} did not "
                "apply them; lower the learning rate or resume from the last checkpoint"
            )
        mergeable.flat.unpack(result)

    def _drop_failed_agents(self, flats: Sequence[Tensor], fingerprint: int) -> None:
        """Drop agents whose weights are not finite or not of the common shape, on all agents."""
        own = torch.tensor([int(are_finite(flats)), fingerprint], device=flats[0].device)
        gathered = self.peers.gather(
            own
        )  # may drop agents, so it comes before reading peers.agents
        reports = {
            agent: (bool(part[0]), int(part[1]))
            for agent, part in zip(self.peers.agents, gathered, strict=True)
        }
        shapes = [shape for _, shape in reports.values()]
        common = max(shapes, key=shapes.count)
        failed = {
            agent: "weights that are not finite" if not finite else "a model of another shape"
            for agent, (finite, shape) in reports.items()
            if not finite or shape != common
        }
        if failed:
            self.peers.drop(failed)

    def _drop_agents_of_other_shapes(self, fingerprint: int) -> None:
        device = next(self.module.parameters()).device
        of_all = self.peers.gather(torch.tensor([fingerprint], device=device), "start")
        shapes = [int(part) for part in of_all]
        common = max(shapes, key=shapes.count)
        other = [a for a, s in zip(self.peers.agents, shapes, strict=True) if s != common]
        if other:
            self.peers.drop(dict.fromkeys(other, "a model of another shape"))

    def _mergeable(self) -> CommunicatedTensors:
        averaged = self.optimizers if self.optimizer_state == "average" else ()
        return CommunicatedTensors(self.module, self.buffers != "local", averaged)

    def _remember_start(self) -> None:
        mergeable = self._mergeable()
        if self.communication.outer is not None:
            self._outer = OuterState(
                self.communication.outer, mergeable.flat.pack(), mergeable.parameter_sizes
            )
        if self.communication.schedule.shape == "adaptive":
            self._reference = self._parameters_flat()

    def _parameters_flat(self) -> list[Tensor]:
        return CommunicatedTensors(self.module, False).flat.pack()

    def _has_drifted(self) -> bool:
        assert self._reference is not None
        assert self.communication.schedule.threshold is not None
        own = self._parameters_flat()
        moved = sum(
            (x.double() - old.double()).square().sum()
            for x, old in zip(own, self._reference, strict=True)
        )
        norm = sum(x.double().square().sum() for x in own)
        drift = self.peers.reduce(torch.as_tensor(moved / norm).reshape(1), "mean")
        return float(drift) > self.communication.schedule.threshold
