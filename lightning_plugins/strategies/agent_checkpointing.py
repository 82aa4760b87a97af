"""Checkpoints of decentralized training: the merged model, and each process' own state."""

import os
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_plugins.strategies.agent import Agent
from lightning_plugins.strategies.agent_checkpoints import AgentCheckpoints
from lightning_plugins.strategies.agent_shards import (
    contains_shards,
    like,
    optimizer_state_as,
    own_parts,
    sharded_as,
    whole_tensors,
)
from lightning_plugins.strategies.communicated_tensors import Buffers, communicated_buffers
from lightning_plugins.strategies.merge_weights import MergeWeights
from lightning_plugins.strategies.process_per_agent import ProcessPerAgentStrategy

CHECKPOINT_KEY = "decentralized"


class AgentCheckpointing(ProcessPerAgentStrategy):
    """Writes and reads the checkpoints of agents; see :class:`DecentralizedStrategy`."""

    buffers: Buffers
    merge_weights: MergeWeights
    save_merged: bool
    _agent: Agent | None = None
    _resumed_state: dict[str, Any] | None = None
    _is_resuming = False

    @property
    def agent(self) -> Agent:
        """The agent of this process during fit."""
        assert self._agent is not None, "the agent exists only during fit"
        return self._agent

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Write the mean of the agents as a checkpoint, and each agent's state next to it."""
        label: dict[str, Any] = {"agents": [], "weights": "local", "save": None}
        label |= {"world_size": self.world_size, "processes_per_agent": self.processes_per_agent}
        can_communicate = self._can_communicate()
        if not can_communicate:
            label["interrupted"] = True
            if contains_shards(checkpoint):
                rank_zero_warn(f"the processes of an agent have failed: {filepath} is not saved")
                return
        elif self._agent is not None:
            save = f"{checkpoint['global_step']:08d}-{uuid4().hex[:8]}"
            # The path may contain a monitored value that differs between agents.
            first = self.peers.agents[0] * self.processes_per_agent
            save, filepath = self.broadcast([save, str(filepath)], first)
            label["save"] = save
            if "optimizer_states" in checkpoint:
                own = {CHECKPOINT_KEY: {"agent": self.agent.state_dict()}, **checkpoint}
                own[CHECKPOINT_KEY]["ledger"] = self.ledger.state_dict()
                own[CHECKPOINT_KEY]["samples"] = self.merge_weights.samples
                AgentCheckpoints(filepath).write(save, self.global_rank, own_parts(own))
            if self.save_merged:
                checkpoint = {**checkpoint, "state_dict": self._mean_of(checkpoint["state_dict"])}
                label["weights"] = "merged"
            self.barrier()
        if can_communicate and self.peers.inside is not None:
            checkpoint = whole_tensors(checkpoint)
        if self.is_global_zero:
            label["agents"] = list(self.peers.agents) if self._peers else []
            content = {**checkpoint, CHECKPOINT_KEY: label}
            self.checkpoint_io.save_checkpoint(content, filepath, storage_options=storage_options)
            if label["save"] and AgentCheckpoints(filepath).folder.exists():
                AgentCheckpoints(filepath).keep_only(str(label["save"]))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """Load this process' own state if all have theirs, otherwise the merged model."""
        # Lightning would unpickle a checkpoint from a URL.
        checkpoint = super().load_checkpoint(checkpoint_path, True)
        if self._module.trainer.state.fn != TrainerFn.FITTING:
            return checkpoint
        label = checkpoint.get(CHECKPOINT_KEY) or {}
        before = label.get("world_size"), label.get("processes_per_agent", 1)
        own = None
        if label.get("save") and before == (self.world_size, self.processes_per_agent):
            path = AgentCheckpoints(checkpoint_path).path(label["save"], self.global_rank)
            own = path if os.path.exists(path) else None
        self._is_resuming = self.reduce_boolean_decision(own is not None)
        if self._is_resuming:
            checkpoint = super().load_checkpoint(own, True)  # type: ignore[arg-type]
            self._resumed_state = checkpoint[CHECKPOINT_KEY]
        elif label.get("save"):
            agents = before[0] // before[1]
            rank_zero_warn(
                f"{checkpoint_path} was saved by {agents} agents and there are {self.num_agents} "
                "now, or an agent's file next to it is missing: all agents start from the merged "
                "model, so this run will differ from the uninterrupted one"
            )
        return checkpoint

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load the weights into the module, whose parameters may be sharded."""
        own = self._module.state_dict(keep_vars=True)
        state = sharded_as(own, checkpoint["state_dict"], self._is_resuming)
        super().load_model_state_dict({**checkpoint, "state_dict": state}, strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load the optimizer states, which may be sharded."""
        saved = zip(self.optimizers, checkpoint["optimizer_states"], strict=True)
        states = [optimizer_state_as(own, state, self._is_resuming) for own, state in saved]
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": states})

    def remove_checkpoint(self, filepath: Any) -> None:
        """Remove the checkpoint and the agents' files."""
        super().remove_checkpoint(filepath)
        if self.is_global_zero:
            AgentCheckpoints(filepath).remove()

    @property
    def _module(self) -> LightningModule:
        assert self.lightning_module is not None
        return self.lightning_module

    def _mean_of(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Return ``state_dict`` with its mergeable tensors averaged over agents.

        Averages the tensors to be saved, not those of the model: callbacks such as weight averaging
        save weights that the model does not have.
        """
        mergeable = self.agent.parameters()
        if self.buffers != "local":
            mergeable |= communicated_buffers(self._module)
        names = [name for name in mergeable if isinstance(state_dict.get(name), Tensor)]
        means = self.agent.mean([state_dict[name] for name in names], "checkpoint", is_merge=True)
        merged = {
            name: like(mean, state_dict[name], is_part=True)
            for name, mean in zip(names, means, strict=True)
        }
        return {**state_dict, **merged}
