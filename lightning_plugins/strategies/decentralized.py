"""Decentralized training: every agent trains its own model, and agents gossip."""

import json
import math
from collections import deque
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from lightning_plugins._lightning_compat.loops import optimizer_steps
from lightning_plugins._lightning_compat.processes import (
    optimizers_to_device,
    prepare_manual_backward,
    wrapped_in_ddp,
)
from lightning_plugins.strategies.agent import Agent
from lightning_plugins.strategies.agent_checkpointing import AgentCheckpointing
from lightning_plugins.strategies.agent_dataloaders import Data, agent_dataloader, part_of_agent
from lightning_plugins.strategies.batch_norm import recalibrate, running_statistics
from lightning_plugins.strategies.communicated_tensors import (
    Buffers,
    OptimizerState,
    communicated_buffers,
)
from lightning_plugins.strategies.communication import Communication, sparse
from lightning_plugins.strategies.configuration_checks import (
    check_arguments,
    check_loaders,
    check_overlap,
    check_shards,
    check_trainer,
)
from lightning_plugins.strategies.ledger import CommLedger, write_report
from lightning_plugins.strategies.merge_weights import MergeWeights
from lightning_plugins.strategies.preemption import add_preemption
from lightning_plugins.strategies.process_per_agent import (
    Inside,
    OnPeerFailure,
    StartMethod,
)
from lightning_plugins.strategies.timed_rounds import TimedAgent, check_timed
from lightning_plugins.strategies.topologies import RandomMatching, Topology
from lightning_plugins.strategies.wire import WireName

RECALIBRATION_BATCHES = 32


class DecentralizedStrategy(AgentCheckpointing):
    """Trains agents that each have their own weights and data, one per process, and that gossip.

    All agents start from the same weights. After the optimizer step of a round they mix their
    weights along a topology, and after the last step they merge: every agent takes the mean.
    :class:`lightning_plugins.callbacks.CommunicationSchedule` sets the rounds; without it, the run
    has 300 rounds, and agents gossip in every fifth of them and merge at the end. Zhu et al., On
    the Surprising Effectiveness of a Single Global Merging in Decentralized Learning (ICLR 2026,
    arXiv 2507.06542), find that little communication keeps agents mergeable, so that one merge at
    the end recovers much of server-based training.

    Torchmetrics and values logged with ``sync_dist=True`` are reduced over agents; other logged
    values are those of the first agent. The ``state_dict`` of a checkpoint is the mean of the
    agents' weights, and separate files next to it hold each agent's state for exact resume.

    Args:
        topology: The topology of gossip; None pairs agents at random.
        data: ``iid`` deals the batches of a batch sampler, or the samples of any other sampler, to
            the agents in turn, and refuses samplers that draw by weights; a partition such as
            :class:`lightning_plugins.datamodules.DirichletPartition` splits the samples by label;
            ``user`` leaves a loader unchanged that is already different in each process. Every
            agent validates on all samples.
        seed: Seed of random topologies and of the sample order.
        shared_init: Start all agents from the weights of the first. Agents that start from
            different weights do not merge usefully.
        buffers: Treatment of floating-point buffers, such as batch normalization statistics. They
            ``mix`` like the weights, stay ``local``, or, as in the released code, mix in gossip and
            ``recalibrate`` at the final merge. There, one process re-estimates them on training
            data; here, each agent on its own last 32 batches, and the estimates are averaged.
        optimizer_state: What a gossip round does to the optimizer state: ``keep`` it, as in the
            released code; ``average`` it, which sends its bytes too; or ``reset`` it.
        wire: Format of the tensors that agents exchange in gossip, in pairs and averages: the dtype
            of the ``weights``, ``bfloat16``, or ``int8`` with a scale per block of 256 values and
            error feedback. Merges, checkpoints and measurements are exact.
        overlap: Gossip beside the next training steps. The difference to the weights that the other
            agents had at that step is added just before the next round or merge, which keeps the
            mean. Buffers then mix only in merges.
        merge_weights: Weights of the agents in the mean that merges, checkpoints and
            ``MergedEvaluation`` compute: ``uniform``; ``samples``, in proportion to the training
            samples that each agent has seen; or the name of a logged value, in proportion to each
            agent's own last value. It must be at least 0, higher for better agents, and logged
            without ``sync_dist`` before the merge. Gossip is unweighted.
        save_merged: Save the mean of the agents in checkpoints, not the first agent's weights.
        on_peer_failure: ``raise`` ends the run when an agent fails. ``drop`` continues without it
            and requires our supervisor or SLURM; see the documentation.
        min_agents: With ``drop``, the run ends when fewer agents remain.
        timeout_seconds: Timeout of a transfer. With ``drop``, an agent that does not respond for
            twice as long is dropped, so choose more than the longest wait for another agent's
            validation.
        process_group_backend: ``gloo`` or ``nccl``; None chooses by device.
        start_method: How Lightning starts the processes: ``popen``, ``spawn`` or ``fork``.
        processes_per_agent: Processes of an agent, which train one copy of the weights on different
            batches, as with DDP; ``devices * num_nodes`` is the number of all processes. ``iid``
            deals the samples to all processes; a partition splits the samples of an agent. Requires
            gloo.
        inside: ``ddp``: every process of an agent has all weights. ``fsdp``: they are sharded by
            ``fully_shard`` in the module's ``configure_model``, which is written as for
            ``ModelParallelStrategy``.

    Raises:
        ValueError: An argument is outside its range, the topology does not support the number of
            agents, or agents have different numbers of batches.
        RuntimeError: The agents' models have different shapes, or an agent fails.
        MisconfigurationException: The Trainer uses a feature that agents do not support.

    Example::

        import lightning_plugins.strategies
        Trainer(accelerator="cpu", devices=4, strategy="decentralized")
    """

    def __init__(
        self,
        topology: Topology | None = None,
        data: Data = "iid",
        seed: int = 0,
        shared_init: bool = True,
        buffers: Buffers = "mix",
        optimizer_state: OptimizerState = "keep",
        wire: WireName = "weights",
        overlap: bool = False,
        merge_weights: str = "uniform",
        save_merged: bool = True,
        on_peer_failure: OnPeerFailure = "raise",
        min_agents: int = 1,
        timeout_seconds: float = 300.0,
        process_group_backend: str | None = None,
        start_method: StartMethod = "popen",
        processes_per_agent: int = 1,
        inside: Inside = "ddp",
    ) -> None:
        check_arguments(data, buffers, optimizer_state, wire)
        super().__init__(
            on_peer_failure,
            min_agents,
            timeout_seconds,
            process_group_backend,
            start_method,
            processes_per_agent,
            inside,
        )
        self.communication = sparse(topology or RandomMatching(), seed)
        """Topology and schedule; a callback may replace it before training starts."""
        self.data = data
        self.seed = seed
        self.shared_init = shared_init
        self.buffers = buffers
        self.optimizer_state_policy = optimizer_state
        self.wire = wire
        self.overlap = overlap
        self.merge_weights = MergeWeights(merge_weights)
        self.save_merged = save_merged
        self.report: dict[str, Any] = {}
        """The cost of communication, after a run has ended: :meth:`CommLedger.report`."""
        self._agent: Agent | None = None
        self._resumed_state: dict[str, Any] | None = None
        self._is_resuming = False
        self._total_steps = math.inf
        self._recent: deque[tuple[Any, int]] = deque(maxlen=RECALIBRATION_BATCHES)

    def with_topology(self, topology: Topology) -> "DecentralizedStrategy":
        """Return a new strategy for the same agents and data that gossips after each step."""
        strategy = DecentralizedStrategy(
            topology,
            self.data,
            self.seed,
            buffers=self.buffers,
            timeout_seconds=self.timeout.total_seconds(),
            process_group_backend=self.process_group_backend,
            start_method=self.start_method,
            processes_per_agent=self.processes_per_agent,
            inside=self.inside,
        )
        strategy.communication = Communication(topology, seed=self.seed)
        return strategy

    def check(self, trainer: Trainer) -> None:
        """Refuse unsupported Trainer features before data is prepared."""
        check_trainer(trainer, self.buffers, self._layer_sync)

    def setup(self, trainer: Trainer) -> None:
        """Move the model to the device and give all agents the same initial weights."""
        assert self.accelerator is not None
        assert self.model is not None
        self.accelerator.setup(trainer)
        is_fitting = trainer.state.fn == TrainerFn.FITTING
        if is_fitting:
            self.check(trainer)
            self.communication.topology.check(self.num_agents)
        self.model = self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        if self.processes_per_agent > 1:
            self.model = self._model_of_processes(is_fitting)
        if is_fitting:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        if is_fitting:
            optimizers_to_device(self.optimizers, self.root_device)
            self._set_up_agent()
            is_timed = isinstance(self.agent, TimedAgent)
            add_preemption(trainer, self.peers, len(self.optimizers), at_once=is_timed)

    def process_dataloader(self, dataloader: Any) -> Any:
        """Restrict a training loader to this agent's share; return other loaders unchanged."""
        if not self._module.trainer.training:
            return dataloader
        compare = self._compare_orders if self.world_size > 1 else None
        if self.data != "iid" and self.processes_per_agent > 1:
            loader = agent_dataloader(
                dataloader, self.data, self.agent_number, self.num_agents, self.seed, compare
            )
            return part_of_agent(loader, self.place, self.processes_per_agent)
        return agent_dataloader(
            dataloader, self.data, self.global_rank, self.world_size, self.seed, compare
        )

    def _compare_orders(self, digest: int) -> None:
        """Refuse a sampler that yields another order on other agents."""
        own = torch.tensor([digest], device=self.root_device)
        of_all = [int(part) for part in self.peers.gather(own)]
        other = [a for a, part in zip(self.peers.agents, of_all, strict=True) if part != of_all[0]]
        if other:
            raise ValueError(
                f"the training sampler yields another order on agents {other} than on agent "
                f"{self.peers.agents[0]}, so its samples cannot be dealt out: if it divides the "
                "samples itself, set data='user'; otherwise seed its generator equally everywhere"
            )

    def on_train_start(self) -> None:
        """Check that loaders have equal lengths and that the schedule fits the run."""
        trainer = self._module.trainer
        batches = torch.tensor([float(trainer.num_training_batches)], device=self.root_device)
        counts = [float(part) for part in self.all_gather(batches)]
        processes = range(self.processes_per_agent)
        if len(processes) == 1:
            check_loaders(self.peers.agents, counts)
        else:
            names = [f"{agent}, process {p}" for agent in self.peers.agents for p in processes]
            check_loaders(names, counts)
        # With several optimizers global_step counts each; a step of the run is one of each.
        self._total_steps = optimizer_steps(trainer)
        if len(self.optimizers) > 1 and trainer.max_steps > 0:
            self._total_steps = trainer.max_steps // len(self.optimizers)
        self.communication.check(len(self.peers.agents), self._total_steps)
        if isinstance(self.agent, TimedAgent):
            check_timed(self, trainer, self._total_steps)
            return
        if self.overlap:
            obstacle = None
            if self.peers.can_drop:
                obstacle = "on_peer_failure='drop'; set 'raise'"
            elif self.world_size > 1 and self.peers.store is None:
                obstacle = "NCCL; set process_group_backend='gloo' and accelerator='cpu'"
            check_overlap(self.communication, self.optimizer_state_policy, obstacle)
        self.peers.reduce_metrics_of(self._module)

    def on_validation_start(self) -> None:
        """Reduce metrics that were created since the start."""
        self.peers.reduce_metrics_of(self._module)

    def on_test_start(self) -> None:
        """Reduce metrics over agents."""
        self.peers.reduce_metrics_of(self._module)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Note the trainable parameters; keep the batch if statistics will be re-estimated."""
        self.agent.observe_parameters()
        before = self.merge_weights.samples
        self.merge_weights.count(self._module, batch)
        if isinstance(self.agent, TimedAgent):
            self.agent.start_step(self.merge_weights.samples - before)
        if self.buffers == "recalibrate":
            self._recent.append((batch, batch_idx))

    def optimizer_step(
        self, optimizer: Optimizer, closure: Any, model: Any = None, **kwargs: Any
    ) -> Any:
        """Take the step, then communicate if a round is due."""
        self.agent.observe_parameters()
        output = super().optimizer_step(optimizer, closure, model, **kwargs)
        # Lightning increments global_step after this method returns.
        taken = self._module.trainer.global_step + 1
        if taken % len(self.optimizers) == 0:
            steps = taken // len(self.optimizers)
            self.peers.steps = steps
            round_ = self.agent.after_step(steps, self._total_steps)
            if round_ is not None and round_.kind == "merge":
                self._recalibrate()
            if isinstance(self.agent, TimedAgent) and self.agent.has_ended:
                self._module.trainer.should_stop = True
        return output

    @property
    def has_merged(self) -> bool:
        """Whether the agents have merged and have not trained since."""
        steps = self._module.trainer.global_step // max(1, len(self.optimizers))
        return self.agent.steps_at_merge == steps

    def merge(self) -> None:
        """Merge now; all agents must call this method."""
        self.agent.merge(self._module.trainer.global_step // max(1, len(self.optimizers)))
        self._recalibrate()

    def weights_before_merge(self) -> list[dict[str, Tensor]] | None:
        """Return this agent's weights before the merge, by name; None if it has not merged."""
        before = self.agent.before_merge if self.has_merged else None
        return None if before is None else [before]

    def merged_tensors(self, kind: str = "measurement") -> dict[str, Tensor]:
        """Compute the merged parameters and floating-point buffers, by name."""
        tensors = self.agent.parameters() | communicated_buffers(self._module)
        means = self.agent.mean(list(tensors.values()), kind, is_merge=True)
        return dict(zip(tensors, means, strict=True))

    def consensus_distance(self, merged: dict[str, Tensor]) -> Tensor:
        """Compute the mean squared distance of the agents from ``merged``."""
        return self.agent.consensus_distance([merged[name] for name in self.agent.parameters()])

    def averaged(self, tensors: list[Tensor], kind: str = "measurement") -> list[Tensor]:
        """Average each of ``tensors`` over all processes."""
        means = self.agent.mean(tensors, kind)
        inside = self.peers.inside
        return means if inside is None else [inside.reduce(mean, "mean") for mean in means]

    def batches_of_agents(self, batch: Any) -> list[Any]:
        """Return the batches of this process' agents: a list of one."""
        return [batch]

    def on_train_end(self) -> None:
        """Merge if the agents differ, then write the cost of communication.

        They differ if the run ended early, or if a callback such as weight averaging has replaced
        the weights since the merge.
        """
        self.agent.finish_gossip()
        if self.communication.final_merge and not self.agent.has_same_parameters():
            self.merge()
        own = json.dumps(self.ledger.state_dict()).encode()
        parts = self.peers.gather_bytes(own, self.root_device)
        ledger = CommLedger.merged(json.loads(part) for part in parts)
        if self.peers.inside is not None:
            own = json.dumps(ledger.state_dict()).encode()
            places = self.peers.inside.gather_bytes(own, self.root_device)
            ledger = CommLedger.merged(json.loads(part) for part in places)
        steps = self._module.trainer.global_step // max(1, len(self.optimizers))
        self.report = write_report(ledger, self._module, steps, self.num_agents)

    def teardown(self) -> None:
        """Release the agent."""
        if self.processes_per_agent > 1:
            self.model = self._module
        if isinstance(self._agent, TimedAgent):
            self._agent.stop()
        super().teardown()
        self._agent = None
        self._resumed_state = None
        self._is_resuming = False
        self._recent.clear()

    def _model_of_processes(self, is_fitting: bool) -> nn.Module:
        if self.inside == "fsdp":
            check_shards(self._module)
            return self._module
        return wrapped_in_ddp(self, self._module, self.root_device) if is_fitting else self._module

    def pre_backward(self, closure_loss: Tensor) -> None:
        """Prepare a manual backward pass of an agent of several processes."""
        is_manual = not self._module.automatic_optimization
        if is_manual and isinstance(self.model, DistributedDataParallel):
            prepare_manual_backward(self, self.model, closure_loss)

    def _set_up_agent(self) -> None:
        is_timed = self.communication.schedule.every is not None
        self._agent = (TimedAgent if is_timed else Agent)(
            self._module,
            self.peers,
            self.communication,
            self.optimizers,
            self.buffers,
            self.optimizer_state_policy,
            self.wire,
            self.overlap,
            None if self.merge_weights.by == "uniform" else self._merge_factor,
        )
        self.merge_weights.samples = 0
        self.merge_weights.counts = is_timed or self.merge_weights.by == "samples"
        if self._resumed_state is not None:
            self.ledger.load_state_dict(self._resumed_state["ledger"])
            self._agent.load_state_dict(self._resumed_state["agent"])
            self.merge_weights.samples = self._resumed_state.get("samples", 0)
        elif not self._agent.start(self.shared_init):
            rank_zero_warn(
                "shared_init=False and the agents start from different weights: their mean will be "
                "worse than each of them; set shared_init=True unless this is intended"
            )

    def _merge_factor(self, kind: str) -> float:
        return self.merge_weights.factor(self._module, self.peers, kind)

    def _recalibrate(self) -> None:
        if self.buffers != "recalibrate":
            return
        recalibrate(self._module, list(self._recent))
        statistics = running_statistics(self._module)
        for own, mean in zip(statistics, self.averaged(statistics, "merge"), strict=True):
            own.copy_(mean)
