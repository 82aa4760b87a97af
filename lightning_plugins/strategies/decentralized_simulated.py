"""Decentralized training of many agents in one process, on one device."""

import math
from collections import deque
from typing import Any, Literal

import torch
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim import Optimizer

from lightning_plugins._lightning_compat import (
    callbacks_of,
    most_batches_a_step,
    optimizer_steps,
    training_loader_anew,
)
from lightning_plugins.strategies.agent_dataloaders import AgentDataLoaders, Data, agents_loader
from lightning_plugins.strategies.agent_switcher import AgentSwitcher
from lightning_plugins.strategies.batch_norm import recalibrate, running_statistics
from lightning_plugins.strategies.communicated_tensors import Buffers, OptimizerState, reset_state
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.configuration_checks import (
    check_arguments,
    check_loaders,
    check_trainer,
)
from lightning_plugins.strategies.decentralized import CHECKPOINT_KEY, RECALIBRATION_BATCHES
from lightning_plugins.strategies.ledger import CommLedger, ring_all_reduce_bytes, write_report
from lightning_plugins.strategies.stacked_agents import StackedAgents, mixed_rows
from lightning_plugins.strategies.topologies import RandomMatching, Topology


class SimulatedDecentralizedStrategy(SingleDeviceStrategy):
    """``num_agents`` agents take turns in one process: :class:`DecentralizedStrategy` on a laptop.

    The same topologies, schedules, policies, merges and books. A batch of the Trainer is a list
    with one batch of each agent; ``training_step`` runs for each in turn, with the agent's weights,
    buffers and optimizer state; ``trainer.global_step`` counts the steps of each agent. Validation
    runs for each agent too, so that logged values are means over agents. Checkpoints hold the mean
    of the agents' weights, and all agents, so that a run resumes exactly.

    Your module and DataModule need not know: the DataModule's ``train_dataloader`` is asked once
    for each agent, with ``trainer.global_rank`` and ``trainer.world_size`` answering for it. All
    agents draw from one random stream, so dropout differs from that of real processes.

    Args:
        num_agents: at least 1.
        topology: as in :class:`DecentralizedStrategy`.
        data: likewise.
        seed: likewise.
        buffers: likewise.
        optimizer_state: likewise.
        wire: likewise.

    Raises:
        ValueError: an argument outside its range, a number of agents that the topology cannot
            serve, or agents with different numbers of batches.
        MisconfigurationException: manual optimization, several optimizers, gradient accumulation,
            or callbacks that average the weights of one model.

    Example::

        Trainer(strategy=SimulatedDecentralizedStrategy(16, RandomPull(0.2)), max_steps=1000)
    """

    strategy_name = "decentralized_simulated"

    def __init__(
        self,
        num_agents: int = 16,
        topology: Topology | None = None,
        data: Data = "iid",
        seed: int = 0,
        buffers: Buffers = "mix",
        optimizer_state: OptimizerState = "keep",
        wire: Literal["weights", "bfloat16"] = "weights",
    ) -> None:
        super().__init__()
        if num_agents < 1:
            raise ValueError(f"num_agents={num_agents}: expected at least 1")
        check_arguments(data, buffers, optimizer_state, wire)
        self.num_agents = num_agents
        self.communication = Communication(topology or RandomMatching(), seed=seed)
        self.communication.topology.check(num_agents)
        self.data = data
        self.seed = seed
        self.buffers = buffers
        self.optimizer_state_policy = optimizer_state
        self.wire_dtype = torch.bfloat16 if wire == "bfloat16" else None
        self.ledger = CommLedger()
        self.parallel_devices: list[torch.device] | None = None
        """Lightning tells the device here."""
        self.report: dict[str, Any] = {}
        """What real agents would have sent, once a run has ended: :meth:`CommLedger.report`."""
        self._turn = 0
        self._before_merge: list[dict[str, Tensor]] | None = None
        self._rows: AgentSwitcher | None = None
        self._agents: StackedAgents | None = None
        self._resumed: dict[str, Any] | None = None
        self._total_steps = math.inf
        self._recent: deque[tuple[list[Any], int]] = deque(maxlen=RECALIBRATION_BATCHES)

    @property
    def root_device(self) -> torch.device:
        """The one device."""
        return self.parallel_devices[0] if self.parallel_devices else torch.device("cpu")

    def with_topology(self, topology: Topology) -> "SimulatedDecentralizedStrategy":
        """A new strategy for the same agents and data, with another topology and the defaults."""
        return SimulatedDecentralizedStrategy(
            self.num_agents, topology, self.data, self.seed, buffers=self.buffers
        )

    def check(self, trainer: Trainer) -> None:
        """Refuse a Trainer that this strategy cannot work in, before anything is prepared."""
        check_trainer(trainer, self.buffers, None)
        if (accumulated := most_batches_a_step(trainer)) != 1:
            raise MisconfigurationException(
                f"accumulate_grad_batches={accumulated}: agents take turns within one step, so it "
                "must be 1 in every epoch; give each agent larger batches"
            )
        if trainer.num_devices > 1:
            raise MisconfigurationException(
                f"devices={trainer.num_devices}: simulated agents share one device; set devices=1 "
                "or take strategy='decentralized'"
            )
        for callback in callbacks_of(trainer):
            if isinstance(callback, WeightAveraging | StochasticWeightAveraging):
                raise MisconfigurationException(
                    f"{type(callback).__name__} follows the weights of one model, and here one "
                    "module is all agents in turn: take strategy='decentralized', or leave it out"
                )

    def setup(self, trainer: Trainer) -> None:
        """Let every agent start from the module's weights."""
        is_fitting = trainer.state.fn == TrainerFn.FITTING
        if is_fitting:
            self.check(trainer)
        super().setup(trainer)
        if not is_fitting:
            return
        if len(self.optimizers) != 1 or not self._module.automatic_optimization:
            raise MisconfigurationException(
                "simulated agents need automatic optimization with one optimizer; take "
                "strategy='decentralized' for anything else"
            )
        self._rows = AgentSwitcher(self._module, self.optimizers, self.num_agents)
        self._agents = StackedAgents(
            self._rows.parameters.matrices, self.communication, self.ledger, self.wire_dtype
        )
        if self._resumed is not None:
            self.ledger.load_state_dict(self._resumed["ledger"])
            self._agents.load_state_dict(self._resumed["agents"])
            self._rows.load_buffers(self._resumed["rows"])

    def process_dataloader(self, dataloader: Any) -> Any:
        """One loader of lists of the agents' batches, for training."""
        trainer = self._module.trainer
        if not trainer.training:
            return dataloader
        loaders = []
        for agent in range(self.num_agents):
            # What the trainer answers to a DataModule that asks for whom it makes the loader.
            self.global_rank, self.world_size = agent, self.num_agents
            try:
                loader = training_loader_anew(trainer, dataloader)
            finally:
                self.global_rank, self.world_size = 0, 1
            loaders.append(agents_loader(loader, self.data, agent, self.num_agents, self.seed))
        lengths = [sized_len(loader) for loader in loaders]
        batches = [math.inf if length is None else float(length) for length in lengths]
        check_loaders(range(self.num_agents), batches)
        return AgentDataLoaders(loaders)

    def on_train_start(self) -> None:
        """Refuse a schedule that the run cannot keep."""
        self._total_steps = optimizer_steps(self._module.trainer)
        self.communication.check(self.num_agents, self._total_steps)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Remember the batches, where statistics will be re-estimated."""
        if self.buffers == "recalibrate":
            self._recent.append((batch, batch_idx))

    def training_step(self, batch: Any, *arguments: Any, **kwargs: Any) -> Any:
        """Of the agent whose turn it is, on its batch."""
        return super().training_step(batch[self._turn], *arguments, **kwargs)

    def optimizer_step(
        self, optimizer: Optimizer, closure: Any, model: Any = None, **kwargs: Any
    ) -> Any:
        """A step of each agent, then their round if it is time."""
        output = None
        for agent in range(self.num_agents):
            self._turn = agent
            self.rows.become(agent)
            output = super().optimizer_step(optimizer, closure, model, **kwargs)
        self._turn = 0
        steps = self._module.trainer.global_step + 1
        meeting = self.communication.after(steps, self._total_steps)
        if meeting is not None and meeting.kind == "merge":
            self._merge(steps)
        else:
            with_them = [] if self.buffers == "local" else self.rows.buffers.matrices
            if self.agents.after_step(steps, self._total_steps, with_them) is not None:
                self._treat_optimizer_state(meeting)
        self.rows.become(0)
        return output

    def validation_step(self, *arguments: Any, **kwargs: Any) -> Any:
        """Of each agent, so that what is logged is the mean over agents."""
        if self._rows is None:
            return super().validation_step(*arguments, **kwargs)
        output = None
        for agent in range(self.num_agents):
            self.rows.become(agent)
            output = super().validation_step(*arguments, **kwargs)
        self.rows.become(0)
        return output

    @property
    def has_merged(self) -> bool:
        """Whether the agents have merged and not trained since."""
        return self.agents.steps_at_merge == self._module.trainer.global_step

    def merge(self) -> None:
        """Let all agents take their mean now."""
        self._merge(self._module.trainer.global_step)

    def weights_before_merge(self) -> list[dict[str, Tensor]] | None:
        """Of all agents, by name; None unless they have merged."""
        return self._before_merge if self.has_merged else None

    def merged_tensors(self, kind: str = "measurement") -> dict[str, Tensor]:
        """What a merge now would give, by name: parameters and floating-point buffers."""
        return self.rows.means()

    def consensus_distance(self, merged: dict[str, Tensor]) -> Tensor:
        """Mean squared distance of the agents from ``merged``."""
        return self.agents.consensus_distance()

    def averaged(self, tensors: list[Tensor], kind: str = "measurement") -> list[Tensor]:
        """As they are: one process holds the statistics of all agents' batches."""
        return tensors

    def batches_of_agents(self, batch: Any) -> list[Any]:
        """The agents' batches in a batch of the Trainer."""
        return list(batch)

    def on_train_end(self) -> None:
        """Merge, unless all agents already hold the same; then write what real ones would send."""
        if self.communication.final_merge and not self.agents.are_alike():
            self.merge()
        steps = self._module.trainer.global_step
        self.report = write_report(self.ledger, self._module, steps, self.num_agents)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Write the mean of the agents, and all agents."""
        if self._rows is not None:
            state_dict = checkpoint["state_dict"]
            means = {name: mean for name, mean in self.rows.means().items() if name in state_dict}
            label: dict[str, Any] = {"weights": "merged", "num_agents": self.num_agents}
            if "optimizer_states" in checkpoint:
                label |= {
                    "agents": self.agents.state_dict(),
                    "rows": self.rows.state_dict(),
                    "ledger": self.ledger.state_dict(),
                }
            checkpoint = {**checkpoint, "state_dict": state_dict | means, CHECKPOINT_KEY: label}
        super().save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """Keep the agents for ``setup``, if there are as many."""
        checkpoint = super().load_checkpoint(checkpoint_path, weights_only)
        label = checkpoint.get(CHECKPOINT_KEY) or {}
        if self._module.trainer.state.fn == TrainerFn.FITTING and "rows" in label:
            if label["num_agents"] != self.num_agents:
                raise ValueError(
                    f"num_agents={self.num_agents}: {checkpoint_path} holds {label['num_agents']} "
                    "agents; resume with as many, or load its merged model with "
                    "load_from_checkpoint and start anew"
                )
            self._resumed = label
        return checkpoint

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        """Put the optimizer state of every agent back."""
        super().load_optimizer_state_dict(checkpoint)
        if self._resumed is not None:
            self.rows.load_optimizers(self._resumed["rows"])

    def teardown(self) -> None:
        """Leave the module with the weights of the first agent: the merged ones after a merge."""
        if self._rows is not None:
            self._rows.release()
        self._rows, self._agents, self._resumed, self._before_merge = None, None, None, None
        self._recent.clear()
        super().teardown()

    @property
    def rows(self) -> AgentSwitcher:
        """The agents' weights, while they train."""
        assert self._rows is not None, "there are no agents outside of fit"
        return self._rows

    @property
    def agents(self) -> StackedAgents:
        """The agents' rounds, while they train."""
        assert self._agents is not None, "there are no agents outside of fit"
        return self._agents

    @property
    def _module(self) -> LightningModule:
        assert self.lightning_module is not None
        return self.lightning_module

    def _merge(self, steps: int) -> None:
        self._before_merge = [
            {name: tensor.clone() for name, tensor in self.rows.tensors_of(agent).items()}
            for agent in range(self.num_agents)
        ]
        self.agents.merge(steps, self.rows.buffers.matrices if self.buffers == "mix" else [])
        self._recalibrate()

    def _treat_optimizer_state(self, meeting: Any) -> None:
        if self.optimizer_state_policy == "reset":
            for agent in range(self.num_agents):
                self.rows.become(agent)
                reset_state(self.optimizers)
        elif self.optimizer_state_policy == "average":
            agents = range(self.num_agents)
            plan = meeting.topology.plan(self.communication.seed, meeting.number, agents)
            for tensors, matrix in self.rows.optimizer_matrices():
                for tensor, row in zip(
                    tensors, mixed_rows(matrix, plan, self.wire_dtype), strict=True
                ):
                    tensor.copy_(row.view(tensor.shape))
                for agent in agents:
                    edges = len(plan.destinations(agent))
                    self.ledger.book(agent, "gossip", edges * matrix[0].nbytes, edges)

    def _recalibrate(self) -> None:
        if self.buffers != "recalibrate":
            return
        estimates = []
        for agent in range(self.num_agents):
            self.rows.become(agent)
            recalibrate(self._module, [(batches[agent], index) for batches, index in self._recent])
            estimates.append([one.clone() for one in running_statistics(self._module)])
        nbytes = sum(one.nbytes for one in estimates[0])
        sent = round(ring_all_reduce_bytes(nbytes, self.num_agents))
        for agent in range(self.num_agents):
            self.rows.become(agent)
            for own, *of_all in zip(running_statistics(self._module), *estimates, strict=True):
                own.copy_(torch.stack(of_all).mean(0))
            self.ledger.book(agent, "merge", sent, 2 * (self.num_agents - 1))
