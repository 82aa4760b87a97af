"""One agent of decentralized training: its model and its communication with the others."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_plugins.strategies.communicated_tensors import (
    Buffers,
    CommunicatedTensors,
    OptimizerState,
    add_missing_state,
    are_finite,
    as_real,
    communicated_buffers,
    communicated_parameters,
    mixed,
    reset_state,
    state_layout,
)
from lightning_plugins.strategies.communication import Communication, Round
from lightning_plugins.strategies.outer_optimizer import OuterState
from lightning_plugins.strategies.peers import Peers
from lightning_plugins.strategies.wire import ErrorFeedback, Wire, WireName


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
        wire: Format of the tensors that agents exchange in gossip. Merges are exact.
    """

    def __init__(
        self,
        module: nn.Module,
        peers: Peers,
        communication: Communication,
        optimizers: Sequence[Optimizer] = (),
        buffers: Buffers = "mix",
        optimizer_state: OptimizerState = "keep",
        wire: WireName = "weights",
    ) -> None:
        self.module = module
        self.peers = peers
        self.communication = communication
        self.optimizers = optimizers
        self.buffers = buffers
        self.optimizer_state = optimizer_state
        self.wire = Wire(wire)
        self.steps_at_merge: int | None = None
        self.before_merge: dict[str, Tensor] | None = None
        """Parameters and floating-point buffers just before the last merge, by name."""
        self._outer: OuterState | None = None
        self._reference: dict[str, Tensor] | None = None
        self._feedback = ErrorFeedback()
        # Parameters that required gradients since the last round, and at any time. Manual
        # optimization with toggle_optimizer disables the gradients of all others at each step.
        self._active: set[str] = set()
        self._trained: set[str] = set()

    def observe_parameters(self) -> None:
        """Note which parameters require gradients; call it before each optimizer step."""
        trainable = communicated_parameters(self.module)
        self._active.update(trainable)
        self._trained.update(trainable)
        if self._reference is not None:
            for name, tensor in trainable.items():
                if name not in self._reference:
                    self._reference[name] = as_real(tensor.detach()).clone()

    def parameters(self) -> dict[str, Tensor]:
        """Return the parameters that have been trainable at any time, by name.

        A layer that was trained and then frozen differs between agents, so merges include it.
        """
        return communicated_parameters(self.module, self._trained)

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
            [
                part
                for tensor in self.parameters().values()
                for part in as_real(tensor).double().reshape(-1, 1 + tensor.is_complex()).sum(0)
            ]
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
        self.peers.steps = steps
        round_ = self.communication.after(steps, total_steps)
        if round_ is None:
            return None
        self.observe_parameters()
        if round_.kind == "merge":
            self.merge(steps)
            return round_
        if self.communication.schedule.shape == "adaptive" and not self._has_drifted():
            return None
        self._gossip(round_)
        return round_

    def merge(self, steps: int) -> None:
        """Replace every agent's weights by the mean of all, or by the outer optimizer's step."""
        self.peers.steps = steps
        mergeable = CommunicatedTensors(self.module, self.buffers == "mix", also=self._trained)
        own = self.parameters() | communicated_buffers(self.module)
        self.before_merge = {name: tensor.detach().clone() for name, tensor in own.items()}
        means = self._checked_mean(mergeable, "merge")
        if self._outer is not None:
            self._outer.step(mergeable.parameters_of(means))
        self._commit(mergeable, means)
        self.steps_at_merge = steps
        self._active.clear()

    @torch.no_grad()
    def mean(self, tensors: Sequence[Tensor], kind: str) -> list[Tensor]:
        """Average each of ``tensors`` over agents, with one message per dtype."""
        means: dict[int, Tensor] = {}
        reals = [as_real(tensor.detach()) for tensor in tensors]
        for dtype in dict.fromkeys(real.dtype for real in reals):
            chosen = [i for i, real in enumerate(reals) if real.dtype == dtype]
            flat = torch.cat([reals[i].reshape(-1) for i in chosen])
            self._drop_failed_agents([flat], len(flat))
            parts = self.peers.reduce(flat, "mean", kind).split([reals[i].numel() for i in chosen])
            means |= {i: part.view(reals[i].shape) for i, part in zip(chosen, parts, strict=True)}
        return [
            torch.view_as_complex(means[i]) if tensor.is_complex() else means[i]
            for i, tensor in enumerate(tensors)
        ]

    @torch.no_grad()
    def consensus_distance(self, means: Sequence[Tensor]) -> Tensor:
        """Compute ``1/n sum_i ||x_i - x̄||^2`` over the parameters, given their ``means``."""
        own = self.parameters().values()
        squared = sum(
            (as_real(x).double() - as_real(mean).double()).square().sum()
            for x, mean in zip(own, means, strict=True)
        )
        return self.peers.reduce(torch.as_tensor(squared), "mean", "measurement")

    def state_dict(self) -> dict[str, Any]:
        """Return the state, other than the weights, that exact resume requires."""
        return {
            "steps_at_merge": self.steps_at_merge,
            "outer": self._outer.state_dict() if self._outer else None,
            "reference": self._reference,
            "trained": sorted(self._trained),
            "rests": self._feedback.rests,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`; the weights must already be loaded."""
        self._remember_start()
        self.steps_at_merge = state["steps_at_merge"]
        if self._outer is not None and state["outer"] is not None:
            self._outer.load_state_dict(state["outer"])
        if self._reference is not None and state["reference"] is not None:
            self._reference = {n: x.to(self._device) for n, x in state["reference"].items()}
        self._trained = set(state["trained"])
        self._feedback.rests = {n: x.to(self._device) for n, x in state["rests"].items()}

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

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
            self._commit(mergeable, self._averaged(mergeable, flats))
        else:
            values = [self._with_rest(f"pair {index}", flat) for index, flat in enumerate(flats)]
            sent = [self.wire.encode(value) for value in values]
            made, received = self.peers.exchange(sent, plan, "gossip", mergeable.flat.fingerprint)
            as_sent = [self.wire.decode(s, x) for s, x in zip(sent, flats, strict=True)]
            decoded = {
                agent: [self.wire.decode(s, x) for s, x in zip(tensors, flats, strict=True)]
                for agent, tensors in received.items()
            }
            weights = list(made.sources(self.peers.agent).values())
            result = [
                mixed(own, own_as_sent, [tensors[index] for tensors in decoded.values()], weights)
                for index, (own, own_as_sent) in enumerate(zip(flats, as_sent, strict=True))
            ]
            self._commit(mergeable, result, decoded)
            if self.wire.has_feedback and received:
                for index, (value, own) in enumerate(zip(values, as_sent, strict=True)):
                    self._feedback.keep(f"pair {index}", value, own)
        if self.optimizer_state == "reset":
            reset_state(self.optimizers)
        if self._reference is not None:
            self._reference = {
                name: as_real(tensor.detach()).clone()
                for name, tensor in communicated_parameters(self.module, self._active).items()
            }
        self._active.clear()

    def _averaged(self, mergeable: CommunicatedTensors, flats: Sequence[Tensor]) -> list[Tensor]:
        """Average over all agents in the wire's format and apply the outer optimizer."""
        if not self.wire.rounds:
            means = self.peers.average(flats, "gossip")
            if self._outer is not None:
                self._outer.step(mergeable.parameters_of(means))
            return means
        means = []
        anchor = self._anchor(mergeable, flats)
        for index, (flat, base) in enumerate(zip(flats, anchor, strict=True)):
            flat = flat - base
            value = self._with_rest(f"average {index}", flat)
            mean, as_sent = self.peers.average_encoded(
                value, self.wire, self._feedback, f"mean {index}", "gossip"
            )
            if self.wire.has_feedback:
                self._feedback.keep(f"average {index}", value, as_sent)
            # Without an outer optimizer agents keep the digits that rounding removes, as in pairs.
            average = mean if self._outer is not None else mixed(flat, as_sent, [mean], [1.0])
            means.append(base + average.to(flat.dtype))
        if self._outer is not None:
            self._outer.step(mergeable.parameters_of(means))
        return means

    def _anchor(self, mergeable: CommunicatedTensors, flats: Sequence[Tensor]) -> list[Tensor]:
        """Return the common weights from which agents send differences: zero without any."""
        anchor = [torch.zeros_like(flat) for flat in flats]
        if self._outer is not None:
            for name, view in mergeable.parameters_of(anchor).items():
                if name in self._outer.anchor:
                    view.copy_(self._outer.anchor[name])
        return anchor

    def _with_rest(self, key: str, flat: Tensor) -> Tensor:
        return self._feedback.add_to(key, flat) if self.wire.has_feedback else flat

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
        averaged: Sequence[Optimizer] = ()
        if self.optimizer_state == "average":
            averaged = self.optimizers
            self._agree_on_state()
        return CommunicatedTensors(self.module, self.buffers != "local", averaged, self._active)

    def _agree_on_state(self) -> None:
        """Create zeros for optimizer state that other agents have and this agent lacks.

        An optimizer creates the state of a parameter at its first gradient, and a parameter may be
        unused on some agents.
        """
        parameters = communicated_parameters(self.module, self._active)
        own = json.dumps(state_layout(self.optimizers, parameters)).encode()
        digest = int.from_bytes(hashlib.sha256(own).digest()[:7], "big")
        of_all = self.peers.gather(torch.tensor([digest], device=self._device))
        if all(int(part) == digest for part in of_all):
            return
        for content in self.peers.gather_bytes(own, self._device):
            add_missing_state(self.optimizers, parameters, json.loads(content))

    def _remember_start(self) -> None:
        self.observe_parameters()
        start = {n: as_real(x.detach()) for n, x in communicated_parameters(self.module).items()}
        if self.communication.outer is not None:
            self._outer = OuterState(self.communication.outer, start)
        if self.communication.schedule.shape == "adaptive":
            self._reference = {name: tensor.clone() for name, tensor in start.items()}

    def _has_drifted(self) -> bool:
        assert self._reference is not None
        assert self.communication.schedule.threshold is not None
        own = communicated_parameters(self.module, self._active)
        pairs = [
            (as_real(x.detach()).double(), self._reference[name].double())
            for name, x in own.items()
        ]
        moved = sum((x - old).square().sum() for x, old in pairs)
        norm = sum(x.square().sum() for x, _ in pairs)
        drift = self.peers.reduce(torch.as_tensor(moved / norm).reshape(1), "mean")
        return float(drift) > self.communication.schedule.threshold
