"""Agents in real processes with a gloo group, without Lightning; starting them takes a second.

A fork server with torch preloaded starts the processes, so that tests can kill them. Each process
runs a module-level function ``work(agent, num_agents, *arguments)`` and saves its return value.
"""

import ctypes
import multiprocessing
import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from lightning_plugins.strategies.agent import Agent
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.fault_tolerant_peers import FaultTolerantPeers, host_store
from lightning_plugins.strategies.fixed_peers import FixedPeers
from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.meetings import Meetings, gloo_group
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.topologies import (
    Complete,
    ExplicitMatrix,
    Hierarchical,
    OnePeerExponential,
    RandomMatching,
    RandomPull,
    Ring,
    StaticExponential,
)
from lightning_plugins.strategies.wire import ErrorFeedback, Wire

TOPOLOGIES = {
    "ring": Ring(),
    "static exponential": StaticExponential(),
    "one-peer exponential": OnePeerExponential(),
    "complete": Complete(),
    "matching": RandomMatching(),
    "pull": RandomPull(1.3),
    "hierarchical": Hierarchical(2),
    "matrix": ExplicitMatrix(
        [[0.5, 0.5, 0, 0], [0.1, 0.6, 0.3, 0], [0, 0, 1, 0], [0.2, 0.2, 0.2, 0.4]]
    ),
}
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["decentralized_agents", "decentralized_trainers"])
_HARNESS = str(Path(__file__).parent)


def run_agents(work, num_agents, folder, *arguments, timeout_seconds=60):
    """Run the agents and return the result of ``work`` for each, or None if it did not finish."""
    agents = start_agents(work, num_agents, folder, *arguments)
    return results_of(agents, folder, timeout_seconds)


def start_agents(work, num_agents, folder, *arguments):
    Path(folder).mkdir(parents=True, exist_ok=True)
    # The fork server does not inherit pytest's path and silently skips modules it cannot import.
    if _HARNESS not in os.environ.get("PYTHONPATH", ""):
        os.environ["PYTHONPATH"] = f"{_HARNESS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    store = host_store()
    agents = [
        _CONTEXT.Process(
            target=_run, args=(work, k, num_agents, store.port, str(folder), arguments)
        )
        for k in range(num_agents)
    ]
    for agent in agents:
        agent.start()
    agents[0].store = store  # keeps the store open as long as the agents
    return agents


def results_of(agents, folder, timeout_seconds):
    deadline = time.monotonic() + timeout_seconds
    for agent in agents:
        agent.join(max(0.1, deadline - time.monotonic()))
    for agent in agents:
        if agent.is_alive():
            os.kill(agent.pid, signal.SIGKILL)
            agent.join()
    paths = [Path(folder) / f"{k}.pt" for k in range(len(agents))]
    return [torch.load(p, weights_only=True) if p.exists() else None for p in paths]


def _run(work, agent, num_agents, port, folder, arguments):
    torch.set_num_threads(1)
    os.environ["LIGHTNING_PLUGINS_STORE"] = f"127.0.0.1:{port}"
    result = work(agent, num_agents, *arguments)
    temporary = Path(folder) / f".{agent}.pt"
    torch.save(result, temporary)
    temporary.rename(Path(folder) / f"{agent}.pt")


def connected(agent, num_agents):
    address = os.environ["LIGHTNING_PLUGINS_STORE"].split(":")
    store = dist.TCPStore(address[0], int(address[1]), is_master=False)
    dist.init_process_group("gloo", store=store, rank=agent, world_size=num_agents)
    return FixedPeers(agent, CommLedger(), timedelta(seconds=20))


def network(seed=0):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    module[2].bias.requires_grad_(False)
    return module


def noise(agent, step, size):
    generator = torch.Generator().manual_seed(1000 * step + agent)
    return 0.1 * torch.randn(size, generator=generator)


def rounds_of_every_topology(agent, num_agents, names, rounds):
    """Add known noise as a local step, then gossip; one flat vector per topology."""
    peers = connected(agent, num_agents)
    ends = {}
    for name in names:
        module = network()
        communication = Communication(TOPOLOGIES[name], Schedule(), final_merge=False, seed=5)
        one = Agent(module, peers, communication)
        one.start(shared_init=True)
        for step in range(rounds):
            flat = nn.utils.parameters_to_vector(module.parameters()).detach()
            nn.utils.vector_to_parameters(
                flat + noise(agent, step, flat.shape), module.parameters()
            )
            one.after_step(step + 1, float("inf"))
        ends[name] = nn.utils.parameters_to_vector(module.parameters()).detach()
    return {"ends": ends, "ledger": peers.ledger.state_dict()}


def encoded_averages(agent, num_agents, name, rounds):
    """Average known vectors in the format of a wire and return each round's result."""
    peers = connected(agent, num_agents)
    feedback, wire = ErrorFeedback(), Wire(name)
    return [
        peers.average_encoded(noise(agent, step, (700,)), wire, feedback, "mean", "gossip")
        for step in range(rounds)
    ] + [peers.ledger.of(agent, "gossip").bytes_sent]


class Fault:
    """A fault of one agent before a round, during a transfer, or at the merge."""

    def __init__(self, agent, how, when, at_step):
        self.agent, self.how, self.when, self.at_step = agent, how, when, at_step

    def inject(self, peers, module):
        """Make this agent fail."""
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.how == "NaN":
            with torch.no_grad():
                next(module.parameters()).fill_(float("nan"))
        elif self.how == "raise":
            raise KeyError("raised by a test")
        elif self.how == "slow":
            time.sleep(4 * peers.timeout.total_seconds())


def rounds_with_a_fault(agent, num_agents, topology, fault, steps, timeout_seconds):
    """Gossip after each step and merge at the end, with a fault in one agent."""
    address = os.environ["LIGHTNING_PLUGINS_STORE"].split(":")
    store = dist.TCPStore(address[0], int(address[1]), is_master=False)
    ledger = CommLedger()
    timeout = timedelta(seconds=timeout_seconds)
    peers = FaultTolerantPeers(agent, ledger, timeout, store, num_agents)
    module = network()
    communication = Communication(topology, Schedule(), seed=5)
    one = Agent(module, peers, communication)
    one.start(shared_init=True)
    mine = fault is not None and fault.agent == agent
    local = None
    for step in range(1, steps + 1):
        peers.steps = step
        flat = nn.utils.parameters_to_vector(module.parameters()).detach()
        nn.utils.vector_to_parameters(flat + noise(agent, step, flat.shape), module.parameters())
        if step == steps:
            local = flat_state(module)
        if mine and step == fault.at_step:
            if fault.when == "before":
                fault.inject(peers, module)
            else:
                _inject_during_transfer(peers, fault, module)
        one.after_step(step, steps)
    return {
        "local": local,
        "merged": flat_state(module),
        "agents": list(peers.agents),
        "dropped": ledger.dropped,
    }


def _inject_during_transfer(peers, fault, module):
    """Inject the fault at the next transfer, after the agents have agreed to start it."""
    perform = peers.perform
    calls = 0

    def perform_with_fault(operation, *arguments):
        nonlocal calls
        calls += 1
        if calls == 2:
            fault.inject(peers, module)
        return perform(operation, *arguments)

    peers.perform = perform_with_fault


def flat_state(module):
    parts = [value.reshape(-1).double() for value in module.state_dict().values()]
    return torch.cat(parts).clone()


def overlapping_rounds(agent, num_agents, slow_seconds, fault):
    """Gossip in the background for four rounds, in pairs; agent 1 is late or fails at the third."""
    host, port = os.environ["LIGHTNING_PLUGINS_STORE"].split(":")
    store = dist.TCPStore(host, int(port), is_master=False)
    timeout = timedelta(seconds=20)
    group = gloo_group(store, agent, num_agents, timeout)
    meetings = Meetings(agent, store, timeout)
    peers = FixedPeers(agent, CommLedger(), timeout, group, meetings)
    module = network()
    communication = Communication(RandomMatching(), Schedule(), final_merge=False, seed=5)
    one = Agent(module, peers, communication, overlap=True)
    one.start(shared_init=True)
    result = {"error": "", "blocked": []}
    try:
        for step in range(1, 5):
            flat = nn.utils.parameters_to_vector(module.parameters()).detach()
            moved = flat + noise(agent, step, flat.shape)
            if agent == 1 and step == 3 and fault == "NaN":
                moved[:5] = float("nan")
            if agent == 1 and step == 3 and fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if agent == 1 and step == 3 and fault == "raise":
                peers.end("raised KeyError")
                raise KeyError("raised by a test")
            nn.utils.vector_to_parameters(moved, module.parameters())
            if agent == 1:
                time.sleep(slow_seconds)
            started = time.monotonic()
            one.after_step(step, float("inf"))
            result["blocked"].append(time.monotonic() - started)
        result["before"] = nn.utils.parameters_to_vector(module.parameters()).detach()
        state = one.state_dict()
        one.finish_gossip()
        result["after"] = nn.utils.parameters_to_vector(module.parameters()).detach()
        names, changes = state["in_background"]
        result["saved"] = [names, changes]
        peers.barrier()
    except Exception as error:
        result["error"] = f"{type(error).__name__}: {error}"
    return result


def peak_memory(agent, num_agents, topology):
    """Return the largest additional memory in a second round, in multiples of the weights."""
    peers = connected(agent, num_agents)
    # Freed tensors of any size return their memory to the system at once.
    ctypes.CDLL(None).mallopt(-3, 1 << 16)
    module = nn.Linear(4096, 2048)
    is_merge = topology == "merge"
    one = Agent(
        module,
        peers,
        Communication(
            TOPOLOGIES["matching" if is_merge else topology],
            Schedule(rate=0.0 if is_merge else 1.0),
            final_merge=is_merge,
        ),
    )
    one.start(shared_init=True)
    for step in (1, 2):
        peers.barrier()
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = memory_bytes("VmRSS")
        one.after_step(step, step if is_merge else float("inf"))
    size = sum(parameter.nbytes for parameter in module.parameters())
    return (memory_bytes("VmHWM") - before) / size


def memory_bytes(name):
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return 1024 * int(line.split()[1])


def a_round_with_nan_weights(agent, num_agents):
    """Set weights of the last agent to NaN; dropping agents is not allowed."""
    peers = connected(agent, num_agents)
    module = network()
    one = Agent(module, peers, Communication(Ring(), Schedule(), final_merge=False))
    one.start(shared_init=True)
    if agent == num_agents - 1:
        with torch.no_grad():
            next(module.parameters()).fill_(float("nan"))
    before = flat_state(module)
    try:
        one.after_step(1, float("inf"))
        error = ""
    except RuntimeError as raised:
        error = str(raised)
    return {"error": error, "unchanged": torch.equal(before, flat_state(module))}
