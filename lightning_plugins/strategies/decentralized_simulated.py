"""Decentralized training of many agents in one process, on one device."""

import math
from collections import deque
from typing import Any

import torch
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim import Optimizer

from lightning_plugins._import_names import of_root
from lightning_plugins._lightning_compat.loaders import rebuilt_training_loader
from lightning_plugins._lightning_compat.loops import (
    callbacks_of,
    largest_accumulation_factor,
    optimizer_steps,
)
from lightning_plugins.strategies.agent_checkpointing import CHECKPOINT_KEY
from lightning_plugins.strategies.agent_dataloaders import (
    AgentDataLoaders,
    Data,
    agent_dataloader,
    order_of,
)
from lightning_plugins.strategies.agent_switcher import AgentSwitcher
from lightning_plugins.strategies.batch_norm import recalibrate, running_statistics
from lightning_plugins.strategies.batched_agents import (
    BatchedAgents,
    CannotBatchError,
    batched_agents,
)
from lightning_plugins.strategies.communicated_tensors import Buffers, OptimizerState
from lightning_plugins.strategies.communication import Communication, sparse
from lightning_plugins.strategies.configuration_checks import (
    check_arguments,
    check_loaders,
    check_overlap,
    check_trainer,
)
from lightning_plugins.strategies.decentralized import RECALIBRATION_BATCHES
from lightning_plugins.strategies.import_roots import BothImportNames
from lightning_plugins.strategies.ledger import CommLedger, ring_all_reduce_bytes, write_report
from lightning_plugins.strategies.optimizer_state import reset_state
from lightning_plugins.strategies.stacked_agents import StackedAgents
from lightning_plugins.strategies.topologies import RandomMatching, Topology
from lightning_plugins.strategies.wire import Wire, WireName


class SimulatedDecentralizedStrategy(BothImportNames, SingleDeviceStrategy):
    """Simulates :class:`DecentralizedStrategy` with ``num_agents`` agents in one process.

    Topologies, schedules, policies, merges and the ledger are the same. A batch of the Trainer is a
    list with one batch per agent. ``training_step`` runs once per agent, with that agent's weights,
    buffers and optimizer state, and ``trainer.global_step`` counts the steps of each agent.
    Validation also runs once per agent, so logged values are means over agents. Checkpoints contain
    the mean of the agents' weights and the state of every agent, so a run resumes exactly.

    ``train_dataloader`` is called once per agent, with ``trainer.global_rank`` and
    ``trainer.world_size`` of that agent. All agents draw from one random stream, so dropout differs
    from that of real processes.

    Args:
        num_agents: Number of agents, at least 1.
        topology: See :class:`DecentralizedStrategy`.
        data: See :class:`DecentralizedStrategy`.
        seed: See :class:`DecentralizedStrategy`.
        buffers: See :class:`DecentralizedStrategy`.
        optimizer_state: See :class:`DecentralizedStrategy`.
        wire: See :class:`DecentralizedStrategy`.
        overlap: See :class:`DecentralizedStrategy`.
        batched: Run ``training_step`` once for all agents, with ``torch.func.vmap``, which is
            several times faster for small networks. It requires a module without buffers, whose
            step depends only on weights and batch, and SGD, Adam or AdamW without clipping. None
            does so for networks of up to a million parameters without convolutions, if the step
            also draws no random numbers and changes nothing in the module, which the first step
            tests. True refuses what cannot be batched; False takes the agents one after the other.

    Raises:
        ValueError: An argument is outside its range, the topology does not support the number of
            agents, or agents have different numbers of batches.
        MisconfigurationException: The run uses manual optimization, several optimizers, gradient
            accumulation, or a callback that averages the weights of one model.

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
        wire: WireName = "weights",
        overlap: bool = False,
        batched: bool | None = None,
    ) -> None:
        super().__init__()
        if num_agents < 1:
            raise ValueError(f"num_agents={num_agents}: expected at least 1")
        check_arguments(data, buffers, optimizer_state, wire)
        self.num_agents = num_agents
        self.communication = sparse(topology or RandomMatching(), seed)
        self.communication.topology.check(num_agents)
        self.data = data
        self.seed = seed
        self.buffers = buffers
        self.optimizer_state_policy = optimizer_state
        self.wire = wire
        self.overlap = overlap
        self.batched = batched
        self.ledger = CommLedger()
        self.parallel_devices: list[torch.device] | None = None
        """Set by Lightning."""
        self.report: dict[str, Any] = {}
        """The bytes of real agents, after a run has ended: :meth:`CommLedger.report`."""
        self._turn = 0
        self._before_merge: list[dict[str, Tensor]] | None = None
        self._rows: AgentSwitcher | None = None
        self._agents: StackedAgents | None = None
        self._batched: BatchedAgents | None = None
        self._resumed: dict[str, Any] | None = None
        self._total_steps = math.inf
        self._recent: deque[tuple[list[Any], int]] = deque(maxlen=RECALIBRATION_BATCHES)

    @property
    def root_device(self) -> torch.device:
        """The device that all agents share."""
        return self.parallel_devices[0] if self.parallel_devices else torch.device("cpu")

    def with_topology(self, topology: Topology) -> "SimulatedDecentralizedStrategy":
        """Return a new strategy for the same agents and data that gossips after each step."""
        strategy = SimulatedDecentralizedStrategy(
            self.num_agents,
            topology,
            self.data,
            self.seed,
            buffers=self.buffers,
            batched=self.batched,
        )
        strategy.communication = Communication(topology, seed=self.seed)
        return strategy

    def check(self, trainer: Trainer) -> None:
        """Refuse unsupported Trainer features before data is prepared."""
        check_trainer(trainer, self.buffers, None)
        if (accumulated := largest_accumulation_factor(trainer)) != 1:
            raise MisconfigurationException(
                f"accumulate_grad_batches={accumulated}: simulated agents require 1 in every "
                "epoch; use larger batches instead"
            )
        if trainer.num_devices > 1:
            raise MisconfigurationException(
                f"devices={trainer.num_devices}: simulated agents share one device; set devices=1 "
                "or use strategy='decentralized'"
            )
        averaging = tuple(
            of_root(trainer, f"callbacks.{name}")
            for name in ("WeightAveraging", "StochasticWeightAveraging")
        )
        for callback in callbacks_of(trainer):
            if isinstance(callback, averaging):
                raise MisconfigurationException(
                    f"{type(callback).__name__} averages the weights of one model, but simulated "
                    "agents share one module: use strategy='decentralized' or remove the callback"
                )

    def setup(self, trainer: Trainer) -> None:
        """Create the agents, all with the module's weights."""
        is_fitting = trainer.state.fn == TrainerFn.FITTING
        if is_fitting:
            self.check(trainer)
        super().setup(trainer)
        if not is_fitting:
            return
        if len(self.optimizers) != 1 or not self._module.automatic_optimization:
            raise MisconfigurationException(
                "simulated agents require automatic optimization with one optimizer; otherwise use "
                "strategy='decentralized'"
            )
        self._rows = AgentSwitcher(self._module, self.optimizers, self.num_agents)
        self._agents = StackedAgents(
            self._rows.parameters.matrices,
            self.communication,
            self.ledger,
            self.wire,
            self.overlap,
        )
        if self._resumed is not None:
            self.ledger.load_state_dict(self._resumed["ledger"])
            self._agents.load_state_dict(self._resumed["agents"])
            self._rows.load_buffers(self._resumed["rows"])

    def process_dataloader(self, dataloader: Any) -> Any:
        """Join the agents' training loaders into one; return other loaders unchanged."""
        trainer = self._module.trainer
        if not trainer.training:
            return dataloader
        loaders: list[Any] = []
        for agent in range(self.num_agents):
            # The trainer reports these to a DataModule that divides the data by rank.
            self.global_rank, self.world_size = agent, self.num_agents
            try:
                loader = rebuilt_training_loader(trainer, dataloader)
            finally:
                self.global_rank, self.world_size = 0, 1
            common = order_of(loaders[0]) if loaders else None
            loaders.append(
                agent_dataloader(
                    loader, self.data, agent, self.num_agents, self.seed, common=common
                )
            )
        lengths = [sized_len(loader) for loader in loaders]
        batches = [math.inf if length is None else float(length) for length in lengths]
        check_loaders(range(self.num_agents), batches)
        return AgentDataLoaders(loaders)

    def on_train_start(self) -> None:
        """Check that the schedule fits the run."""
        choice = self.batched
        if choice is None and self._resumed is not None and not self._resumed.get("batched"):
            choice = False
        self._batched = batched_agents(choice, self._module, self.optimizers[0], self.rows)
        self._total_steps = optimizer_steps(self._module.trainer)
        self.communication.check(self.num_agents, self._total_steps)
        if self.overlap:
            check_overlap(self.communication, self.optimizer_state_policy, None)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Keep the batches if statistics will be re-estimated."""
        if self.buffers == "recalibrate":
            self._recent.append((batch, batch_idx))
        self.rows.check_trainable()

    def training_step(self, batch: Any, *arguments: Any, **kwargs: Any) -> Any:
        """Run the current agent's training step on its batch, or all agents' steps at once."""
        if self._batched is not None:
            with self.precision_plugin.train_step_context():
                return self._batched.step(batch, *arguments, *kwargs.values())
        return super().training_step(batch[self._turn], *arguments, **kwargs)

    def backward(
        self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Compute gradients; a batched step has computed them together with the loss."""
        if self._batched is None:
            return super().backward(closure_loss, optimizer, *args, **kwargs)
        self._batched.set_gradients()
        return closure_loss

    def optimizer_step(
        self, optimizer: Optimizer, closure: Any, model: Any = None, **kwargs: Any
    ) -> Any:
        """Take a step of each agent, then communicate if a round is due."""
        output = None
        if self._batched is not None:
            self.rows.stack()
            try:
                output = super().optimizer_step(optimizer, closure, model, **kwargs)
            except CannotBatchError:
                self._batched = None
            self.rows.unstack()
            if self._batched is None:
                self.rows.separate()
        if self._batched is None:
            for agent in range(self.num_agents):
                self._turn = agent
                self.rows.switch_to(agent)
                output = super().optimizer_step(optimizer, closure, model, **kwargs)
            self._turn = 0
        steps = self._module.trainer.global_step + 1
        round_ = self.communication.after(steps, self._total_steps)
        if round_ is not None and round_.kind == "merge":
            self._merge(steps)
        else:
            is_local = self.buffers == "local" or self.overlap
            extra_matrices = [] if is_local else self.rows.buffers.matrices
            if self.agents.after_step(steps, self._total_steps, extra_matrices) is not None:
                self._apply_optimizer_state_policy(round_)
        self.rows.switch_to(0)
        return output

    def validation_step(self, *arguments: Any, **kwargs: Any) -> Any:
        """Run the validation step of each agent, so that logged values are means over agents."""
        if self._rows is None:
            return super().validation_step(*arguments, **kwargs)
        output = None
        for agent in range(self.num_agents):
            self.rows.switch_to(agent)
            output = super().validation_step(*arguments, **kwargs)
        self.rows.switch_to(0)
        return output

    @property
    def has_merged(self) -> bool:
        """Whether the agents have merged and have not trained since."""
        return self.agents.steps_at_merge == self._module.trainer.global_step

    def merge(self) -> None:
        """Merge now."""
        self._merge(self._module.trainer.global_step)

    def weights_before_merge(self) -> list[dict[str, Tensor]] | None:
        """Return all agents' weights before the merge, by name; None if they have not merged."""
        return self._before_merge if self.has_merged else None

    def merged_tensors(self, kind: str = "measurement") -> dict[str, Tensor]:
        """Compute the merged parameters and floating-point buffers, by name."""
        return self.rows.means()

    def consensus_distance(self, merged: dict[str, Tensor]) -> Tensor:
        """Compute the mean squared distance of the agents from their mean."""
        return self.agents.consensus_distance()

    def averaged(self, tensors: list[Tensor], kind: str = "measurement") -> list[Tensor]:
        """Return ``tensors``, which one process computed from all agents' batches."""
        return tensors

    def batches_of_agents(self, batch: Any) -> list[Any]:
        """Return the agents' batches."""
        return list(batch)

    def on_train_end(self) -> None:
        """Merge if the agents differ, then write the bytes that real agents would have sent."""
        self.agents.finish_gossip()
        if self.communication.final_merge and not self.agents.have_same_parameters():
            self.merge()
        steps = self._module.trainer.global_step
        self.report = write_report(self.ledger, self._module, steps, self.num_agents)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Write the mean of the agents and the state of every agent."""
        if self._rows is not None:
            state_dict = checkpoint["state_dict"]
            means = {name: mean for name, mean in self.rows.means().items() if name in state_dict}
            label: dict[str, Any] = {"weights": "merged", "num_agents": self.num_agents}
            if "optimizer_states" in checkpoint:
                label |= {
                    "agents": self.agents.state_dict(),
                    "rows": self.rows.state_dict(),
                    "ledger": self.ledger.state_dict(),
                    "batched": self._batched is not None,
                }
            checkpoint = {**checkpoint, "state_dict": state_dict | means, CHECKPOINT_KEY: label}
        super().save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """Load a checkpoint and keep the agents' states for ``setup``."""
        # Lightning would unpickle a checkpoint from a URL.
        checkpoint = super().load_checkpoint(checkpoint_path, True)
        label = checkpoint.get(CHECKPOINT_KEY) or {}
        if self._module.trainer.state.fn == TrainerFn.FITTING and "rows" in label:
            if label["num_agents"] != self.num_agents:
                raise ValueError(
                    f"num_agents={self.num_agents}: {checkpoint_path} holds {label['num_agents']} "
                    "agents; resume with the same number, or start a new run from its merged model "
                    "with load_from_checkpoint"
                )
            self._resumed = label
        return checkpoint

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        """Restore the optimizer state of every agent."""
        super().load_optimizer_state_dict(checkpoint)
        if self._resumed is not None:
            self.rows.load_optimizers(self._resumed["rows"])

    def teardown(self) -> None:
        """Leave the module with the first agent's weights, which after a merge are the mean."""
        if self._rows is not None:
            self._rows.release()
        self._rows, self._agents, self._resumed, self._before_merge = None, None, None, None
        self._batched = None
        self._recent.clear()
        super().teardown()

    @property
    def rows(self) -> AgentSwitcher:
        """The agents' weights during fit."""
        assert self._rows is not None, "the agents exist only during fit"
        return self._rows

    @property
    def agents(self) -> StackedAgents:
        """The agents' communication during fit."""
        assert self._agents is not None, "the agents exist only during fit"
        return self._agents

    @property
    def _module(self) -> LightningModule:
        assert self.lightning_module is not None
        return self.lightning_module

    def _merge(self, steps: int) -> None:
        self.agents.finish_gossip()
        self._before_merge = [
            {name: tensor.clone() for name, tensor in self.rows.tensors_of(agent).items()}
            for agent in range(self.num_agents)
        ]
        self.agents.merge(steps, self.rows.buffers.matrices if self.buffers == "mix" else [])
        self._recalibrate()

    def _apply_optimizer_state_policy(self, round_: Any) -> None:
        if self.optimizer_state_policy == "reset":
            for agent in range(self.num_agents):
                self.rows.switch_to(agent)
                reset_state(self.optimizers)
        elif self.optimizer_state_policy == "average":
            agents = range(self.num_agents)
            plan = round_.topology.plan(self.communication.seed, round_.number, agents)
            for index, (tensors, matrix) in enumerate(self.rows.optimizer_matrices()):
                self.agents.mix(matrix, plan, f"optimizer {index}")
                for tensor, row in zip(tensors, matrix, strict=True):
                    tensor.copy_(row.view(tensor.shape))
                for agent in agents:
                    edges = len(plan.destinations(agent))
                    sent = edges * Wire(self.wire).nbytes(matrix[0])
                    self.ledger.record(agent, "gossip", sent, edges)

    def _recalibrate(self) -> None:
        if self.buffers != "recalibrate":
            return
        estimates = []
        for agent in range(self.num_agents):
            self.rows.switch_to(agent)
            recalibrate(self._module, [(batches[agent], index) for batches, index in self._recent])
            estimates.append([one.clone() for one in running_statistics(self._module)])
        nbytes = sum(one.nbytes for one in estimates[0])
        sent = round(ring_all_reduce_bytes(nbytes, self.num_agents))
        for agent in range(self.num_agents):
            self.rows.switch_to(agent)
            for own, *of_all in zip(running_statistics(self._module), *estimates, strict=True):
                own.copy_(torch.stack(of_all).mean(0))
            self.ledger.record(agent, "merge", sent, 2 * (self.num_agents - 1))
