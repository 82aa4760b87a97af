"""One agent of decentralized training: its model and its communication with the others."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_plugins.nn.shards import local
from lightning_plugins.strategies.agent_health import (
    drop_agents_of_other_shapes,
    drop_failed_agents,
)
from lightning_plugins.strategies.agent_shards import squared_sum
from lightning_plugins.strategies.communicated_tensors import (
    Buffers,
    CommunicatedTensors,
    FlatBuffers,
    OptimizerState,
    are_finite,
    as_real,
    communicated_buffers,
    communicated_parameters,
    mix_in_place,
    mixed,
)
from lightning_plugins.strategies.communication import Communication, Round
from lightning_plugins.strategies.meetings import Outcome
from lightning_plugins.strategies.optimizer_state import agree_on_state, reset_state
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
        overlap: Gossip beside the next steps: the change of a round is added to the weights just
            before the next round or merge. Buffers then mix only in merges.
        merge_factor: Returns this agent's weight in a mean of the given kind, divided by the mean
            of the agents' weights; None weights all equally.
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
        overlap: bool = False,
        merge_factor: Callable[[str], float] | None = None,
    ) -> None:
        self.module = module
        self.peers = peers
        self.communication = communication
        self.optimizers = optimizers
        self.buffers = buffers
        self.optimizer_state = optimizer_state
        self.wire = Wire(wire)
        self.overlap = overlap
        self.merge_factor = merge_factor
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
        # The parameters of the round in the background, and the changes of their flat buffers.
        self._in_background: tuple[list[str], Outcome] | None = None

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
        fingerprint = CommunicatedTensors(self.module, True).flat.fingerprint
        drop_agents_of_other_shapes(self.peers, fingerprint, self._device)
        if shared_init:
            self.peers.broadcast([local(tensor) for tensor in tensors.values()], "start")
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
        differs = any(not torch.equal(part, of_all[0]) for part in of_all)
        return not self.peers.any_in_agent(torch.tensor([int(differs)], device=self._device))

    def after_step(self, steps: int, total_steps: float) -> Round | None:
        """Gossip or merge if the schedule has a round after ``steps`` optimizer steps.

        Returns:
            The round that took place, or None.

        Raises:
            RuntimeError: A transfer failed, or received values are not finite.
        """
        self.peers.steps = steps
        round_ = self.communication.after(steps, total_steps)
        if round_ is not None:
            self.observe_parameters()
            if round_.kind == "merge":
                self.merge(steps)
            elif self.communication.schedule.shape != "adaptive" or self._has_drifted():
                self._gossip(round_)
            else:
                round_ = None
        if steps == total_steps:
            self.finish_gossip()
        return round_

    def merge(self, steps: int) -> None:
        """Replace every agent's weights by the mean of all, or by the outer optimizer's step."""
        self.peers.steps = steps
        self.finish_gossip()
        if self.buffers == "mix":
            self._average_buffers_in_agent()
        mergeable = CommunicatedTensors(self.module, self.buffers == "mix", also=self._trained)
        flats = mergeable.flat.pack()
        # Also when the caller keeps buffers out of the mean.
        others = communicated_buffers(self.module).items()
        copies = mergeable.flat.copies(flats)
        copies |= {name: b.detach().clone() for name, b in others if name not in copies}
        means = self._checked_mean(mergeable, flats, "merge")
        self.before_merge = copies
        if self._outer is not None:
            self._outer.step(mergeable.parameters_of(means))
        mergeable.flat.unpack(self._finite(means))
        self.steps_at_merge = steps
        self._active.clear()

    @torch.no_grad()
    def finish_gossip(self) -> None:
        """Wait for a round in the background and add its change to the weights.

        Raises:
            RuntimeError: The transfer failed, or received values are not finite.
        """
        if self._in_background is None:
            return
        (names, outcome), self._in_background = self._in_background, None
        changes = self.peers.result_of(outcome)
        if changes is not None:
            own = communicated_parameters(self.module, names)
            flat = FlatBuffers({name: own[name] for name in names})
            flat.unpack([x.add_(change) for x, change in zip(flat.pack(), changes, strict=True)])

    @torch.no_grad()
    def mean(self, tensors: Sequence[Tensor], kind: str, is_merge: bool = False) -> list[Tensor]:
        """Average each of ``tensors`` over agents, with one message per dtype.

        Args:
            tensors: Tensors of the same shapes on all agents.
            kind: The ledger's kind of traffic.
            is_merge: Weight the agents as in a merge.
        """
        means: dict[int, Tensor] = {}
        reals = [as_real(tensor.detach()) for tensor in tensors]
        for dtype in dict.fromkeys(real.dtype for real in reals):
            chosen = [i for i, real in enumerate(reals) if real.dtype == dtype]
            flat = torch.cat([reals[i].reshape(-1) for i in chosen])
            drop_failed_agents(self.peers, [flat], len(flat))
            if is_merge:
                (flat,) = self._weighted_average([flat], kind)
            else:
                flat = self.peers.reduce(flat, "mean", kind)
            parts = flat.split([reals[i].numel() for i in chosen])
            means |= {i: part.view(reals[i].shape) for i, part in zip(chosen, parts, strict=True)}
        return [
            torch.view_as_complex(means[i]) if tensor.is_complex() else means[i]
            for i, tensor in enumerate(tensors)
        ]

    @torch.no_grad()
    def consensus_distance(self, means: Sequence[Tensor]) -> Tensor:
        """Compute ``1/n sum_i ||x_i - x̄||^2`` over the parameters, given their ``means``."""
        own = list(self.parameters().values())
        moved = [as_real(x) - as_real(mean) for x, mean in zip(own, means, strict=True)]
        squared = squared_sum(moved, own, self.peers)
        return self.peers.reduce(squared, "mean", "measurement")

    def state_dict(self) -> dict[str, Any]:
        """Return the state, other than the weights, that exact resume requires."""
        background = None
        if self._in_background is not None:
            names, outcome = self._in_background
            background = [names, self.peers.result_of(outcome)]
        return {
            "steps_at_merge": self.steps_at_merge,
            "outer": self._outer.state_dict() if self._outer else None,
            "reference": self._reference,
            "trained": sorted(self._trained),
            "rests": self._feedback.rests,
            "in_background": background,
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
        if state["in_background"] is not None:
            names, changes = state["in_background"]
            moved = changes and [change.to(self._device) for change in changes]
            self._in_background = names, Outcome.of(moved)

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    @torch.no_grad()
    def _gossip(self, round_: Round) -> None:
        if len(self.peers.agents) == 1:
            return
        if self.overlap:
            self._gossip_in_background(round_)
            return
        mergeable = self._mergeable()
        flats = mergeable.flat.pack()
        if self.peers.can_drop:
            drop_failed_agents(self.peers, flats, mergeable.flat.fingerprint)
        mergeable.flat.unpack(self._result(round_, mergeable, flats))
        if self.optimizer_state == "reset":
            reset_state(self.optimizers)
        if self._reference is not None:
            self._reference = {
                name: as_real(tensor.detach()).clone()
                for name, tensor in communicated_parameters(self.module, self._active).items()
            }
        self._active.clear()

    def _gossip_in_background(self, round_: Round) -> None:
        self.finish_gossip()
        mergeable = CommunicatedTensors(self.module, False, also=self._active)
        flats = mergeable.flat.pack()

        def change() -> list[Tensor]:
            before = [flat.clone() for flat in flats]
            after = self._result(round_, mergeable, flats)
            return [x.sub_(old) for x, old in zip(after, before, strict=True)]

        self._in_background = mergeable.names, self.peers.in_background(change)
        self._active.clear()

    def _result(
        self, round_: Round, mergeable: CommunicatedTensors, flats: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """Exchange ``flats``, which it may change, and return the agent's after the round."""

        def plan() -> Any:
            return round_.topology.plan(self.communication.seed, round_.number, self.peers.agents)

        is_finite = are_finite(flats)
        if plan().is_average:
            return self._finite(self._averaged(mergeable, flats), is_finite)
        values = [self._with_rest(f"pair {index}", flat) for index, flat in enumerate(flats)]
        sent = [self.wire.encode(value) for value in values]
        made, received = self.peers.exchange(sent, plan, "gossip", mergeable.flat.fingerprint)
        if self.wire.has_feedback and received:
            for index, (value, own) in enumerate(zip(values, sent, strict=True)):
                self._feedback.keep(f"pair {index}", value, self.wire.decode(own, value))
        weights = list(made.sources(self.peers.agent).values())
        result = []
        for index, own in enumerate(flats):
            arrived = [tensors[index] for tensors in received.values()]
            result.append(self._mixed(own, sent[index], arrived, weights))
        return self._finite(result, is_finite, received)

    def _mixed(
        self, own: Tensor, sent: Tensor, arrived: Sequence[Tensor], weights: Sequence[float]
    ) -> Tensor:
        if sent.dtype == own.dtype and own.dtype in (torch.float32, torch.float64):
            mix_in_place(own, arrived, weights)
            return own
        decoded = (self.wire.decode(one, own) for one in arrived)
        return mixed(own, self.wire.decode(sent, own), decoded, weights)

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

    def _checked_mean(
        self, mergeable: CommunicatedTensors, flats: Sequence[Tensor], kind: str
    ) -> list[Tensor]:
        if len(self.peers.agents) == 1:
            return [flat.clone() for flat in flats]
        drop_failed_agents(self.peers, flats, mergeable.flat.fingerprint)
        return self._weighted_average(flats, kind)

    def _weighted_average(self, flats: Sequence[Tensor], kind: str) -> list[Tensor]:
        if self.merge_factor is None or len(self.peers.agents) == 1:
            return self.peers.average(flats, kind)
        while True:
            agents = self.peers.agents
            factor = self.merge_factor(kind)
            wide = [torch.promote_types(flat.dtype, torch.float32) for flat in flats]
            scaled = [flat.to(dtype) * factor for flat, dtype in zip(flats, wide, strict=True)]
            means = self.peers.average(scaled, kind)
            if self.peers.agents == agents:  # else the weights of the remaining agents differ
                return [mean.to(flat.dtype) for mean, flat in zip(means, flats, strict=True)]

    def _finite(
        self, result: Sequence[Tensor], own_is_finite: bool = True, received: Any = None
    ) -> Sequence[Tensor]:
        """Return ``result`` if all of its values are finite; ``received`` names the sources."""
        if are_finite(result):
            return result
        bad = [
            str(agent)
            for agent, tensors in (received or {}).items()
            if not are_finite(
                [self.wire.decode(s, x) for s, x in zip(tensors, result, strict=True)]
            )
        ]
        # Where own values are not finite, neither are the differences that replaced the received.
        source = f"agent {', '.join(bad)}" if bad else "another agent"
        own = f"agent {self.peers.agent}"
        raise RuntimeError(
            f"weights of {source if own_is_finite else own} are not finite, so {own} did not apply "
            "them; lower the learning rate or resume from the last checkpoint"
        )

    def _average_buffers_in_agent(self) -> None:
        """Average the floating-point buffers over the processes of this agent."""
        if self.peers.inside is not None:
            for buffer in communicated_buffers(self.module).values():
                own = as_real(buffer)
                own.copy_(self.peers.inside.reduce(own, "mean"))

    def _mergeable(self) -> CommunicatedTensors:
        if self.buffers != "local":
            self._average_buffers_in_agent()
        averaged: Sequence[Optimizer] = ()
        if self.optimizer_state == "average":
            averaged = self.optimizers
            agree_on_state(self.peers, averaged, communicated_parameters(self.module, self._active))
        return CommunicatedTensors(self.module, self.buffers != "local", averaged, self._active)

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
        parts = [as_real(x.detach()) for x in own.values()]
        references = (self._reference[name] for name in own)
        moves = [x.double() - old.double() for x, old in zip(parts, references, strict=True)]
        moved = squared_sum(moves, own.values(), self.peers)
        norm = squared_sum(parts, own.values(), self.peers)
        drift = self.peers.reduce((moved / norm).reshape(1), "mean")
        return float(drift) > self.communication.schedule.threshold
