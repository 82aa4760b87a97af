"""A Lightning strategy with agents of one or several processes: launching and collectives."""

import atexit
import subprocess
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.distributed import PrefixStore, Store

from lightning_plugins._lightning_compat.loaders import disable_sampler_replacement
from lightning_plugins._lightning_compat.loops import names_of_logged_values
from lightning_plugins._lightning_compat.processes import (
    connect_processes,
    default_backend,
    give_device_mesh,
    process_launcher,
    restart_seed,
    started_processes,
)
from lightning_plugins.strategies.configuration_checks import check_processes
from lightning_plugins.strategies.fault_tolerant_peers import FaultTolerantPeers, connect_to_store
from lightning_plugins.strategies.fixed_peers import FixedPeers
from lightning_plugins.strategies.import_roots import BothImportNames
from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.meetings import (
    Meetings,
    connect_to_first_agent,
    gloo_group,
    rendezvous,
)
from lightning_plugins.strategies.peers import Peers

OnPeerFailure = Literal["raise", "drop"]
StartMethod = Literal["popen", "spawn", "fork"]
Inside = Literal["ddp", "fsdp"]

_GRACE_SECONDS = 5.0
"""How long the processes that this one has started may report their own errors."""


class ProcessPerAgentStrategy(BothImportNames, ParallelStrategy):
    """Runs the agents' processes under any launcher, and implements Lightning's collectives.

    Process r is at place ``r % processes_per_agent`` of agent ``r // processes_per_agent``. The
    processes of an agent form torch's default process group. A process communicates with those of
    the same place in the other agents.

    Args:
        on_peer_failure: See :class:`DecentralizedStrategy`.
        min_agents: See :class:`DecentralizedStrategy`.
        timeout_seconds: See :class:`DecentralizedStrategy`.
        process_group_backend: See :class:`DecentralizedStrategy`.
        start_method: See :class:`DecentralizedStrategy`.
        processes_per_agent: See :class:`DecentralizedStrategy`.
        inside: See :class:`DecentralizedStrategy`.
    """

    is_distributed = True
    """Read by Lightning: values logged with ``sync_dist=True`` are reduced over processes."""

    def __init__(
        self,
        on_peer_failure: OnPeerFailure,
        min_agents: int,
        timeout_seconds: float,
        process_group_backend: str | None,
        start_method: StartMethod,
        processes_per_agent: int,
        inside: Inside,
    ) -> None:
        super().__init__()
        if processes_per_agent < 1:
            raise ValueError(f"processes_per_agent={processes_per_agent}: expected at least 1")
        if inside not in get_args(Inside):
            raise ValueError(f"inside={inside!r}: expected 'ddp' or 'fsdp'")
        if on_peer_failure not in ("raise", "drop"):
            raise ValueError(f"on_peer_failure={on_peer_failure!r}: expected 'raise' or 'drop'")
        if start_method not in ("popen", "spawn", "fork"):
            raise ValueError(f"start_method={start_method!r}: expected 'popen', 'spawn' or 'fork'")
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds={timeout_seconds}: expected more than 0")
        if min_agents < 1:
            raise ValueError(f"min_agents={min_agents}: expected at least 1")
        self.on_peer_failure = on_peer_failure
        self.min_agents = min_agents
        self.timeout = timedelta(seconds=timeout_seconds)
        self.process_group_backend = process_group_backend
        self.start_method = start_method
        self.processes_per_agent = processes_per_agent
        self.inside = inside
        self.ledger = CommLedger()
        self._num_nodes = 1
        self._peers: Peers | None = None
        self._has_own_group = False
        self._store: Store | None = None
        self._groups_inside = 0

    @property
    def num_agents(self) -> int:
        """Number of agents at the start of the run."""
        return self.world_size // self.processes_per_agent

    @property
    def agent_number(self) -> int:
        """Number of this process' agent."""
        return self.global_rank // self.processes_per_agent

    @property
    def place(self) -> int:
        """Place of this process in its agent."""
        return self.global_rank % self.processes_per_agent

    @property
    def peers(self) -> Peers:
        """The connection to the other agents."""
        assert self._peers is not None, "the processes are not connected yet"
        return self._peers

    @property
    def root_device(self) -> torch.device:
        """The device of this process."""
        assert self.parallel_devices is not None
        return self.parallel_devices[self.local_rank]

    @property
    def num_nodes(self) -> int:
        """Number of machines."""
        return self._num_nodes

    @num_nodes.setter
    def num_nodes(self, num_nodes: int) -> None:
        self._num_nodes = num_nodes

    @property
    def num_processes(self) -> int:
        """Number of processes on this machine."""
        return len(self.parallel_devices) if self.parallel_devices is not None else 0

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Arguments of ``DistributedSampler`` for loaders that the user divides."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    @property
    def is_global_zero(self) -> bool:
        """Whether this process writes logs and checkpoints: the first of the remaining agents'."""
        if self._peers is None:
            return super().is_global_zero
        return self._peers.is_first and self.place == 0

    def set_world_ranks(self) -> None:
        """Set the rank and the number of processes in the cluster environment."""
        environment = self.cluster_environment
        if environment is not None:
            environment.set_global_rank(self.node_rank * self.num_processes + self.local_rank)
            environment.set_world_size(self.num_nodes * self.num_processes)
        rank_zero_only.rank = self.global_rank  # type: ignore[attr-defined]

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = process_launcher(
            self,
            self.cluster_environment,
            self.num_processes,
            self.num_nodes,
            self.start_method,
        )

    def setup_environment(self) -> None:
        """Connect the processes."""
        super().setup_environment()
        self.set_world_ranks()
        assert self.lightning_module is not None
        disable_sampler_replacement(self.lightning_module.trainer)
        backend = self.process_group_backend or default_backend(self.root_device)
        if self.processes_per_agent > 1:
            check_processes(self.world_size, self.processes_per_agent, backend)
        if self._peers is None:
            self._peers = self._connected_peers(backend)
        elif not self._peers.can_drop:
            self._peers.end("")  # takes back the reason for which an earlier run ended
        # Code of users that calls torch.distributed gets a group of this agent alone, so it neither
        # waits for other agents nor mixes with their messages. Lightning's own calls do too.
        if not dist.is_initialized():
            dist.init_process_group(
                backend,
                store=self._store_inside(),
                rank=self.place,
                world_size=self.processes_per_agent,
                timeout=self.timeout,
            )
            self._has_own_group = True
        if self.processes_per_agent > 1:
            self._peers.inside = FixedPeers(self.place, CommLedger(), self.timeout)
            if self.inside == "fsdp":
                give_device_mesh(self.lightning_module, self.root_device, self.processes_per_agent)

    def _store_inside(self) -> Store:
        if self.processes_per_agent == 1:
            return dist.HashStore()
        self._groups_inside += 1  # a strategy may run several Trainer methods
        name = f"inside/{self.agent_number}/{self._groups_inside}"
        assert self._store is not None, "the processes are not connected yet"
        store = PrefixStore(name, self._store)
        rendezvous(store, self.place, self.processes_per_agent, f"agent {self.agent_number}'s")
        return store

    def _connected_peers(self, backend: str) -> Peers:
        environment = self.cluster_environment
        assert environment is not None
        if self.world_size > 1:
            restart_seed()
        agent = self.agent_number
        if self.on_peer_failure == "drop":
            self._store = connect_to_store(self.timeout)
            return FaultTolerantPeers(
                agent,
                self.ledger,
                self.timeout,
                self._store,
                self.num_agents,
                self.min_agents,
                backend,
                self.place,
                self.processes_per_agent,
            )
        if self.world_size > 1 and backend == "gloo":
            self._store = connect_to_first_agent(
                environment.main_address,
                environment.main_port,
                self.global_rank,
                self.world_size,
                "the run's" if self.processes_per_agent > 1 else "",
            )
            store = PrefixStore(f"place/{self.place}", self._store)
            group = gloo_group(store, agent, self.num_agents, self.timeout)
            meetings = Meetings(agent, store, self.timeout)
            meetings.details = self._logged_names
            return FixedPeers(agent, self.ledger, self.timeout, group, meetings)
        if self.world_size > 1:
            connect_processes(environment, backend, self.timeout, self.root_device)
        return FixedPeers(self.global_rank, self.ledger, self.timeout)

    def _logged_names(self) -> dict[str, Any]:
        """Return what explains a disagreement between agents."""
        assert self.lightning_module is not None
        trainer = self.lightning_module.trainer
        details: dict[str, Any] = {"optimizer steps": trainer.global_step}
        return details | {"logged values": names_of_logged_values(trainer)}

    def on_exception(self, exception: BaseException) -> None:
        """Report to the other agents why this one ends, and leave no process behind."""
        if self._peers is not None:
            self._peers.end(_reason(exception))
        if started := started_processes(self._launcher):
            atexit.register(_end, started)
        super().on_exception(exception)

    def teardown(self) -> None:
        """Release the metrics and the process group of this agent."""
        if self._peers is not None:
            self._peers.release_metrics()
        # Sharded weights cannot be read without the group.
        has_shards = self.processes_per_agent > 1 and self.inside == "fsdp"
        if self._has_own_group and dist.is_initialized() and not has_shards:
            dist.destroy_process_group()
        self._has_own_group = False
        super().teardown()

    def model_to_device(self) -> None:
        """Move the model to the device of this process."""
        assert self.model is not None
        self.model.to(self.root_device)

    def barrier(self, name: str | None = None) -> None:
        """Wait for the other processes, unless an exception is being handled."""
        if self._can_communicate():
            self.peers.barrier(name)
            if self.peers.inside is not None:
                self.peers.inside.barrier(name)
            self._update_rank_zero()

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """Return the object of process ``src``."""
        if not self._can_communicate():
            return obj
        agent, place = divmod(src, self.processes_per_agent)
        if self.peers.inside is not None:
            obj = self.peers.inside.broadcast_object(obj, place)
        return self.peers.broadcast_object(obj, agent)

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """Reduce ``tensor`` over all processes by mean, sum, maximum or minimum.

        Raises:
            ValueError: ``group`` is not None, or ``reduce_op`` is another operation.
        """
        if not isinstance(tensor, Tensor) or not self._can_communicate():
            return tensor
        op = str(reduce_op or "sum").lower().rpartition(".")[2].replace("avg", "mean")
        if group is not None or op not in ("mean", "sum", "max", "min"):
            raise ValueError(
                f"group={group}, reduce_op={reduce_op}: expected no group, and one of mean, sum, "
                "max, min"
            )
        reduced = self.peers.reduce(tensor, op)
        return self.peers.inside.reduce(reduced, op) if self.peers.inside is not None else reduced

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        """Stack the tensors of all processes, ``(processes, *shape)``.

        Raises:
            ValueError: ``sync_grads`` is set; agents do not share gradients.
        """
        if sync_grads:
            raise ValueError(
                "sync_grads=True: agents of decentralized training do not share gradients"
            )
        if not self._can_communicate():
            return tensor.unsqueeze(0)
        of_agents = torch.stack(self.peers.gather(tensor))
        if self.peers.inside is None:
            return of_agents
        return torch.stack(self.peers.inside.gather(of_agents), 1).flatten(0, 1)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Whether ``decision`` is true in all processes, or in any."""
        own = torch.tensor(int(decision), device=self.root_device)
        return bool(self.reduce(own, reduce_op="min" if all else "max"))

    def _update_rank_zero(self) -> None:
        # The first remaining agent takes over if rank 0 was dropped.
        rank = 0 if self.is_global_zero else self.global_rank
        rank_zero_only.rank = rank  # type: ignore[attr-defined]

    def _can_communicate(self) -> bool:
        # While this agent handles an exception, the others do not take part in collectives.
        module = self.lightning_module
        trainer = module._trainer if module is not None else None
        return self._peers is not None and not (trainer is not None and trainer.interrupted)

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "_peers": None, "_store": None}


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """Kill what is left of ``processes``, which may be stopped or wait for each other."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        time.sleep(0.05)
    for process in processes:
        if process.poll() is None:
            process.kill()


def _reason(exception: BaseException) -> str:
    if type(exception).__name__ == "SIGTERMException":  # of either import name
        return "was terminated by SIGTERM"
    lines = str(exception).splitlines()
    return f"raised {type(exception).__name__}: {lines[0][:200] if lines else ''}"
