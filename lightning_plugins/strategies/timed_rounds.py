"""Rounds by the clock, for agents of unequal speeds."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_plugins._import_names import of_root
from lightning_plugins._lightning_compat.loops import callbacks_of
from lightning_plugins.strategies.agent import Agent
from lightning_plugins.strategies.communicated_tensors import CommunicatedTensors, are_finite
from lightning_plugins.strategies.communication import Round
from lightning_plugins.strategies.fixed_peers import FixedPeers
from lightning_plugins.strategies.topologies import Topology


class TimedAgent(Agent):
    """An agent that meets the others every so many seconds, whatever their numbers of steps.

    After each step, the agent compares the clock with the time of the next meeting. At a meeting,
    agents wait for each other, at most for one step of the slowest. The next meeting is at the
    first multiple of the interval after the last arrival. An agent that has taken its last step
    goes to the next meeting at once, and that meeting ends the run of all agents.

    Each agent has a mass: the number of samples that its weights have learned from. A step adds its
    samples. A meeting mixes the masses ``m`` and the products ``m x`` by the same matrix, whose
    columns sum to 1, and the new weights are their ratio. The mean of the weights in proportion to
    the masses is therefore unchanged (push-sum: Kempe et al., Gossip-Based Computation of Aggregate
    Information, FOCS 2003; Assran et al., Stochastic Gradient Push, arXiv 1811.10792). The final
    merge is this mean.

    Args:
        arguments: The arguments of :class:`Agent`; ``peers`` must be :class:`FixedPeers`.
        clock: Returns seconds.
        options: The keyword arguments of :class:`Agent`.
    """

    peers: FixedPeers

    def __init__(
        self, *arguments: Any, clock: Callable[[], float] = time.monotonic, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        assert self.communication.schedule.seconds is not None
        self.seconds = self.communication.schedule.seconds
        self.merge_factor = self._share_of_mean
        self.samples = 0.0  # since the last meeting
        self.masses: dict[int, float] = {}
        """Masses of all agents: at a meeting before the mix, otherwise after it."""
        self.has_ended = False
        """Whether a meeting has ended the run."""
        self._clock = clock
        self._started: float | None = None
        self._next = self.seconds
        self._meetings = 0

    def start_step(self, samples: float) -> None:
        """Count the samples of a step. The clock starts at the first, which parts the agents."""
        self.samples += samples
        if self._started is None:
            self._started = self._clock()
            self._part()

    def stop(self) -> None:
        """Let all operations take part in anything again."""
        self.peers.apart, self.peers.when = None, "after step"

    @torch.no_grad()
    def after_step(self, steps: int, total_steps: float) -> Round | None:
        """Meet the other agents if it is time.

        Args:
            steps: Optimizer steps that this agent has taken.
            total_steps: Optimizer steps after which the run ends, taken by any agent.

        Returns:
            The round that took place, or None.
        """
        is_last = steps >= total_steps
        if self.has_ended or not (is_last or self._elapsed() >= self._next):
            return None
        self.observe_parameters()
        self._meet(is_last)
        number = self._meetings - 1
        if self.has_ended and self.communication.final_merge:
            self.merge(steps)
            return Round("merge", number, self.communication.topology)
        round_ = Round("gossip", number, self.communication.topology)
        self._gossip(round_)
        if not self.has_ended:
            self._part()
        return round_

    def merge(self, steps: int) -> None:
        """Replace every agent's weights by the mean in proportion to the masses."""
        super().merge(self._meetings)  # the same on all agents, unlike their steps
        self.steps_at_merge = steps
        self.merge_factor = None  # the agents are equal, so checkpoints need no weights

    def _meet(self, is_last: bool) -> None:
        self.peers.apart, self.peers.when = None, "at meeting"
        self._meetings += 1
        self.peers.steps = self._meetings
        own = [self.samples, self._elapsed(), float(is_last)]
        parts = torch.stack(self.peers.gather(torch.tensor(own, dtype=torch.float64)))
        self._next = (float(parts[:, 1].max()) // self.seconds + 1) * self.seconds
        self.has_ended = bool(parts[:, 2].any())
        for agent, samples in zip(self.peers.agents, parts[:, 0].tolist(), strict=True):
            self.masses[agent] = self.masses.get(agent, 0.0) + samples
        self.samples = 0.0

    def _elapsed(self) -> float:
        return 0.0 if self._started is None else self._clock() - self._started

    def _part(self) -> None:
        self.peers.apart = (
            f"every={self.communication.schedule.every!r}: agents take their own steps between "
            "meetings, so nothing may need all of them there: log without sync_dist=True, remove "
            "callbacks that stop the run or save checkpoints, or set every_n_steps"
        )

    def _result(
        self, round_: Round, mergeable: CommunicatedTensors, flats: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        plan = round_.topology.plan(self.communication.seed, round_.number, self.peers.agents)
        if plan.is_average:
            result = self._finite(self._weighted_average(flats, "gossip"), are_finite(flats))
        else:
            by_mass = ByMass(round_.topology, tuple(self.masses.items()))
            result = super()._result(replace(round_, topology=by_mass), mergeable, flats)
        self.masses = mixed_masses(plan.rows, self.masses)
        return result

    def _share_of_mean(self, kind: str) -> float:
        total = sum(self.masses.values())
        return self.masses[self.peers.agent] * len(self.masses) / total if total else 1.0


@dataclass(frozen=True)
class ByMass(Topology):
    """A topology whose weights are multiplied by the mass of the sender and normalized.

    Args:
        topology: The topology of the agents.
        masses: The agents, in increasing order, and their masses.
    """

    topology: Topology
    masses: tuple[tuple[int, float], ...]

    def received(self, num_agents: int, seed: int, round_number: int) -> list[dict[int, float]]:
        """Return the weights ``w_ij m_j / sum_k w_ik m_k``."""
        rows = self.topology.received(num_agents, seed, round_number)
        masses = [mass for _, mass in self.masses]
        after = mixed_masses(dict(enumerate(rows)), dict(enumerate(masses)))
        return [
            {j: weight * masses[j] / after[i] for j, weight in row.items()} if after[i] else row
            for i, row in enumerate(rows)
        ]


def mixed_masses(
    rows: Mapping[int, Mapping[int, float]], masses: Mapping[int, float]
) -> dict[int, float]:
    """Return the masses of the agents after a round with the weights ``rows``."""
    return {
        agent: sum((weight * masses[other] for other, weight in row.items()), 0.0)
        + (1 - sum(row.values())) * masses[agent]
        for agent, row in rows.items()
    }


def check_timed(strategy: Any, trainer: Trainer, total_steps: float) -> None:
    """Refuse what agents that take their own steps cannot do.

    Args:
        strategy: The :class:`DecentralizedStrategy`.
        trainer: Its Trainer.
        total_steps: Optimizer steps of the run; infinity if it has no known end.

    Raises:
        ValueError: The message names the setting and its remedy.
    """
    communication = strategy.communication
    timeout = strategy.timeout.total_seconds()
    topologies = (communication.topology, communication.window_topology)
    kinds = [of_root(trainer, f"callbacks.{name}") for name in ("Checkpoint", "EarlyStopping")]
    kinds.append(of_root(trainer, "callbacks.Timer"))
    callbacks = [type(c).__name__ for c in callbacks_of(trainer) if isinstance(c, tuple(kinds))]
    named = callbacks[0] if callbacks else ""
    refused = {
        "a run without a known end; set trainer.max_steps": total_steps == float("inf"),
        "on_peer_failure='drop'; set 'raise'": strategy.peers.can_drop,
        f"processes_per_agent={strategy.processes_per_agent}; set 1": strategy.peers.inside,
        "NCCL; set process_group_backend='gloo' and accelerator='cpu'": (
            strategy.world_size > 1 and strategy.peers.store is None
        ),
        "overlap=True; set False": strategy.overlap,
        f"wire={strategy.wire!r}; set 'weights'": strategy.wire != "weights",
        f"optimizer_state={strategy.optimizer_state_policy!r}; set 'keep'": (
            strategy.optimizer_state_policy != "keep"
        ),
        f"merge_weights={strategy.merge_weights.by!r}, because merges weight agents by samples; "
        "set 'uniform'": strategy.merge_weights.by not in ("uniform", "samples"),
        "outer_lr; remove it": communication.outer,
        "a topology that does not preserve the mean; use RandomMatching, Ring or Complete": any(
            topology is not None and not topology.doubly_stochastic for topology in topologies
        ),
        f"timeout_seconds={timeout:g}, because agents wait for the next meeting at the end; set "
        "more than the interval": timeout <= communication.schedule.seconds,
        "validation, which agents would begin at different times; set limit_val_batches=0, and "
        "validate after fit": trainer.enable_validation,
        f"{named}, which needs all agents between meetings; remove it (for checkpoints, "
        "enable_checkpointing=False, and save one after fit)": callbacks,
        "min_steps and min_epochs; remove them": (trainer.min_steps or trainer.min_epochs),
        "resuming; start a new run from the weights of the checkpoint": trainer.ckpt_path,
    }
    if found := [reason for reason, is_used in refused.items() if is_used]:
        raise ValueError(
            f"every={communication.schedule.every!r} does not support {found[0]}, or set "
            "every_n_steps"
        )
