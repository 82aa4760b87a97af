"""Switching one module between simulated agents without copying weights."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_plugins.strategies.communicated_tensors import (
    as_real,
    communicated_buffers,
    communicated_parameters,
)


class AgentSwitcher:
    """Stores all agents' weights as rows of matrices and points the module's tensors at one row.

    Args:
        module: The module that all agents share. Every agent starts from its current weights.
        optimizers: The module's optimizers; every agent has its own optimizer state.
        num_agents: Number of agents.
    """

    def __init__(self, module: nn.Module, optimizers: Sequence[Optimizer], num_agents: int) -> None:
        self.module = module
        self.optimizers = optimizers
        self.num_agents = num_agents
        self.parameters = _Matrices(communicated_parameters(module), num_agents)
        self.buffers = _Matrices(communicated_buffers(module), num_agents)
        self._owners = _owners_of_buffers(module)
        # Integer counters and non-persistent buffers: each agent has its own copy.
        self._others = [
            {
                name: buffer.clone()
                for name, buffer in module.named_buffers()
                if name not in self.buffers.names
            }
            for _ in range(num_agents)
        ]
        self._states: list[list[dict]] = [
            [defaultdict(dict) for _ in optimizers] for _ in range(num_agents)
        ]
        # While steps are batched: all agents' states in one tensor each, and their identities.
        self._stacked_states: list[Any] | None = None
        self._viewed: list[int] = []
        self._present: int | None = None
        self.switch_to(0)

    def switch_to(self, agent: int) -> None:
        """Make the module and the optimizers hold the state of ``agent``."""
        if agent == self._present:
            return
        self.store_current()
        for parameter, view in self.parameters.views(self.module.get_parameter, agent):
            parameter.data = view
            parameter.grad = None
        for name, view in self.buffers.named_views(agent):
            owner, key = self._owners[name]
            owner._buffers[key] = view
        for name, buffer in self._others[agent].items():
            owner, key = self._owners[name]
            owner._buffers[key] = buffer
        for optimizer, state in zip(self.optimizers, self._states[agent], strict=True):
            optimizer.state = state  # type: ignore[assignment]
        self._present = agent

    def stacked_parameters(self) -> dict[str, Tensor]:
        """Return views ``(agents, *shape)`` of all agents' parameters, by name."""
        return self.parameters.stacked()

    def stack(self) -> None:
        """Make the module's parameters and the optimizers hold all agents at the same time."""
        self.store_current()
        for name, view in self.parameters.stacked().items():
            parameter = self.module.get_parameter(name)
            parameter.grad = None
            parameter.data = view
        for index, optimizer in enumerate(self.optimizers):
            if self._stacked_states is None:
                own = [agent[index] for agent in self._states]
                optimizer.state = _stacked_state(own)  # type: ignore[assignment]
            else:
                optimizer.state = self._stacked_states[index]

    def unstack(self) -> None:
        """Return to one agent at a time, the first; the agents' states are views."""
        states = [optimizer.state for optimizer in self.optimizers]
        for parameter in (self.module.get_parameter(name) for name in self.parameters.names):
            parameter.grad = None
        tensors = [id(v) for state in states for own in state.values() for v in own.values()]
        if tensors != self._viewed:
            self._viewed = tensors
            self._states = [
                [_state_of_agent(state, agent) for state in states]
                for agent in range(self.num_agents)
            ]
        self._stacked_states = states
        self.switch_to(0)

    def separate(self) -> None:
        """Give each agent its own optimizer state after batched steps."""
        if self._stacked_states is not None:
            self.store_current()
            for states in self._states:
                for state in states:
                    for own in state.values():
                        own |= {k: v.clone() for k, v in own.items() if isinstance(v, Tensor)}
            self._stacked_states, self._viewed = None, []
            self._present = None
            self.switch_to(0)

    def check_trainable(self) -> None:
        """Refuse a parameter that became trainable, because all agents would share its values.

        Raises:
            MisconfigurationException: A parameter was frozen when the agents were created.
        """
        joined = set(communicated_parameters(self.module)) - self.parameters.names
        if joined:
            raise MisconfigurationException(
                f"{', '.join(sorted(joined))} became trainable during the run: simulated agents "
                "share parameters that are frozen at the start; let them require gradients when "
                "the run starts, or use strategy='decentralized'"
            )

    def store_current(self) -> None:
        """Store the tensors of the current agent that training may have replaced."""
        agent = self._present
        if agent is None:
            return
        for name in self._others[agent]:
            owner, key = self._owners[name]
            self._others[agent][name] = owner._buffers[key]  # type: ignore[assignment]
        self._states[agent] = [optimizer.state for optimizer in self.optimizers]
        self._present = None

    def release(self) -> None:
        """Give the module its own tensors again, with the values of the current agent."""
        self.store_current()
        for parameter in self.module.parameters():
            parameter.data = parameter.data.clone()
        for owner, key in self._owners.values():
            owner._buffers[key] = owner._buffers[key].clone()  # type: ignore[union-attr]

    def tensors_of(self, agent: int) -> dict[str, Tensor]:
        """Return the parameters and floating-point buffers of one agent, by name."""
        return dict(self.parameters.named_views(agent)) | dict(self.buffers.named_views(agent))

    def means(self) -> dict[str, Tensor]:
        """Average parameters and floating-point buffers over agents, by name."""
        return self.parameters.means() | self.buffers.means()

    def optimizer_matrices(self) -> list[tuple[list[Tensor], Tensor]]:
        """Return each floating-point optimizer state: the agents' tensors, and a matrix of them."""
        self.store_current()
        found = []
        for index in range(len(self.optimizers)):
            states = [agent[index] for agent in self._states]
            _complete(states)
            for parameter, state in states[0].items():
                for key, value in state.items():
                    is_mixed = isinstance(value, Tensor) and not _is_integer(value)
                    if is_mixed:
                        tensors = [as_real(one[parameter][key]) for one in states]
                        found.append((tensors, torch.stack([t.reshape(-1) for t in tensors])))
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return all agents' buffers and optimizer states; ``StackedAgents`` saves parameters."""
        self.store_current()
        optimizers: list[list[dict[str, Any]]] = []
        for agent in range(self.num_agents):
            self.switch_to(agent)
            optimizers.append([optimizer.state_dict()["state"] for optimizer in self.optimizers])
        self.store_current()
        self.switch_to(0)
        return {
            "buffers": self.buffers.matrices,
            "others": [dict(own) for own in self._others],
            "optimizers": optimizers,
        }

    def load_buffers(self, state: Mapping[str, Any]) -> None:
        """Restore the agents' buffers."""
        for own, loaded in zip(self.buffers.matrices, state["buffers"], strict=True):
            own.copy_(loaded)
        for agent, others in enumerate(state["others"]):
            for name, value in others.items():
                self._others[agent][name].copy_(value)

    def load_optimizers(self, state: Mapping[str, Any]) -> None:
        """Restore the agents' optimizer states; all agents share the parameter groups."""
        self._stacked_states, self._viewed = None, []
        for agent, states in enumerate(state["optimizers"]):
            self.switch_to(agent)
            for optimizer, own in zip(self.optimizers, states, strict=True):
                groups = optimizer.state_dict()["param_groups"]
                optimizer.load_state_dict({"state": own, "param_groups": groups})
            self.store_current()
        self.switch_to(0)


class _Matrices:
    """Named tensors of all agents: one matrix ``(agents, numel)`` per dtype."""

    def __init__(self, tensors: Mapping[str, Tensor], num_agents: int) -> None:
        self.names = set(tensors)
        self._places: dict[str, tuple[int, int, torch.Size]] = {}
        self._complex = {name for name, tensor in tensors.items() if tensor.is_complex()}
        flats: dict[torch.dtype, list[Tensor]] = {}
        for name, tensor in tensors.items():
            # Complex tensors have a matrix of their own, so that pairs start at even places.
            parts = flats.setdefault(tensor.dtype, [])
            offset = sum(part.numel() for part in parts)
            index = list(flats).index(tensor.dtype)
            real = as_real(tensor.detach())
            self._places[name] = (index, offset, real.shape)
            parts.append(real.reshape(-1))
        self.matrices = [torch.cat(parts).repeat(num_agents, 1) for parts in flats.values()]
        self._views: list[dict[str, Tensor]] = [
            {name: self._view(name, agent) for name in tensors} for agent in range(num_agents)
        ]

    def _view(self, name: str, agent: int) -> Tensor:
        index, offset, shape = self._places[name]
        view = self.matrices[index][agent, offset : offset + shape.numel()].view(shape)
        return torch.view_as_complex(view) if name in self._complex else view

    def stacked(self) -> dict[str, Tensor]:
        views = {}
        for name, (index, offset, shape) in self._places.items():
            part = self.matrices[index][:, offset : offset + shape.numel()]
            view = part.unflatten(1, shape) if shape else part.squeeze(1)
            views[name] = torch.view_as_complex(view) if name in self._complex else view
        return views

    def named_views(self, agent: int) -> list[tuple[str, Tensor]]:
        return list(self._views[agent].items())

    def views(self, of_name: Any, agent: int) -> list[tuple[Any, Tensor]]:
        return [(of_name(name), view) for name, view in self._views[agent].items()]

    def means(self) -> dict[str, Tensor]:
        flats = [
            matrix.to(torch.promote_types(matrix.dtype, torch.float32)).mean(0).to(matrix.dtype)
            for matrix in self.matrices
        ]
        reals = {
            name: flats[index][offset : offset + shape.numel()].view(shape)
            for name, (index, offset, shape) in self._places.items()
        }
        return {
            name: torch.view_as_complex(real) if name in self._complex else real
            for name, real in reals.items()
        }


def _stacked_state(states: Sequence[Mapping[Any, dict[str, Any]]]) -> dict[Any, dict[str, Any]]:
    """Stack the agents' moments; step counts, which are equal, are those of the first agent."""
    stacked: dict[Any, dict[str, Any]] = defaultdict(dict)
    for parameter, own in states[0].items():
        for key, value in own.items():
            is_moment = isinstance(value, Tensor) and key != "step"
            parts = [state[parameter][key] for state in states]
            stacked[parameter][key] = torch.stack(parts) if is_moment else value
    return stacked


def _state_of_agent(state: Mapping[Any, dict[str, Any]], agent: int) -> dict[Any, dict[str, Any]]:
    views: dict[Any, dict[str, Any]] = defaultdict(dict)
    for parameter, own in state.items():
        for key, value in own.items():
            is_moment = isinstance(value, Tensor) and key != "step"
            views[parameter][key] = value[agent] if is_moment else value
    return views


def _is_integer(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


def _complete(states: Sequence[Mapping[Any, dict[str, Any]]]) -> None:
    """Give every agent the optimizer state that others have, as zeros, in one order."""
    found: dict[Any, dict[str, Tensor]] = {}
    for state in states:
        for parameter, own in state.items():
            for key, value in own.items():
                if isinstance(value, Tensor) and not _is_integer(value):
                    found.setdefault(parameter, {}).setdefault(key, value)
    for state in states:
        for parameter, tensors in found.items():
            for key, value in tensors.items():
                if not isinstance(state[parameter].get(key), Tensor):
                    state[parameter][key] = torch.zeros_like(value)


def _owners_of_buffers(module: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    owners = {}
    for name, _ in module.named_buffers():
        path, _, key = name.rpartition(".")
        owners[name] = (module.get_submodule(path), key)
    return owners
