"""Starts the agents of a run on this machine and keeps the others running when one fails.

usage: python -m lightning_plugins.strategies.supervisor AGENTS (SCRIPT | -m MODULE) [ARGUMENTS ...]
       python -m lightning_plugins.strategies.supervisor AGENTS --processes-per-agent K ...
       python -m lightning_plugins.strategies.supervisor host PORT [ADDRESS]

The supervisor is not an agent. It hosts the list of remaining agents, reports the exit of an agent
to the others at once, and kills agents that were dropped. If a process of an agent fails, it kills
the agent's other processes. It forwards SIGTERM and SIGINT to the agents. Its exit code is 0 if at
least one agent completed the run, and 143 if SIGTERM ended it.

``host`` only hosts the list, for agents that are started by something else, such as SLURM; set
LIGHTNING_PLUGINS_STORE=ADDRESS:PORT/SECRET for them, with a random SECRET. It listens on the
network interface of ADDRESS; without one, only this machine can connect. The store has no
encryption: use it in a network that strangers cannot reach.

e.g. python -m lightning_plugins.strategies.supervisor 4 -m lightning_plugins fit \
--config decentralized/digits --trainer.strategy.on_peer_failure drop
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from torch.distributed import PrefixStore

from lightning_plugins.strategies.fault_tolerant_peers import STORE_VARIABLE, host_store

_GRACE_SECONDS = 10.0


class Supervisor:
    """The agents' parent process.

    Args:
        command: The command of one agent.
        num_agents: Number of agents to start.
        processes_per_agent: Number of processes of each agent.
        grace_seconds: How long the other agents may run after the first one has completed.

    Raises:
        ValueError: A number is below 1, or ``command`` is empty.
    """

    def __init__(
        self,
        command: Sequence[str],
        num_agents: int,
        grace_seconds: float = _GRACE_SECONDS,
        processes_per_agent: int = 1,
    ) -> None:
        if processes_per_agent < 1:
            raise ValueError(f"{processes_per_agent} processes per agent: expected at least 1")
        if num_agents < 1:
            raise ValueError(f"{num_agents} agents: expected at least 1")
        if not command:
            raise ValueError("no command: give a script, or -m and a module")
        self.command = list(command)
        self.num_agents = num_agents
        self.grace_seconds = grace_seconds
        self.processes_per_agent = processes_per_agent
        self.processes: list[subprocess.Popen] = []
        self._received = 0

    def run(self) -> int:
        """Start the agents, wait for them, and return the exit code of this process."""
        self._secret = secrets.token_hex(16)
        self._hosted = host_store()
        self._store = PrefixStore(self._secret, self._hosted)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._forward_signal)
        self._ports = [_free_port() for _ in range(self.num_agents)]
        try:
            for rank in range(self.num_agents * self.processes_per_agent):
                self.processes.append(self._start(rank))
            return self._watch()
        finally:
            _kill(self.processes)
            for process in self.processes:
                process.wait()

    def _watch(self) -> int:
        reported: set[int] = set()
        first_end: float | None = None
        agents = [self._processes_of(agent) for agent in range(self.num_agents)]
        while any(process.poll() is None for process in self.processes):
            for number, own in enumerate(agents):
                codes = [process.poll() for process in own]
                failed = [code for code in codes if code]
                if None in codes and self._store.check([f"dropped/{number}"]):
                    # It may be suspended, and would overwrite the others' files on waking.
                    _kill(own)
                elif failed and number not in reported:
                    reported.add(number)
                    self._store.set(f"exited/{number}", f"ended with {_describe(failed[0])}")
                    print(f"agent {number} ended with {_describe(failed[0])}", file=sys.stderr)
                    _kill(own)
                elif 0 in codes and first_end is None:
                    first_end = time.monotonic()
            if first_end is not None and time.monotonic() > first_end + self.grace_seconds:
                break
            time.sleep(0.05)
        ended = [n for n, own in enumerate(agents) if all(p.poll() == 0 for p in own)]
        if len(ended) < self.num_agents:
            names = ", ".join(map(str, ended)) or "none"
            print(f"agents that completed the run, of {self.num_agents}: {names}", file=sys.stderr)
        return 0 if ended else 128 + self._received if self._received else 1

    def _start(self, rank: int) -> subprocess.Popen:
        return subprocess.Popen(self.command, env=self._environment(rank))

    def _processes_of(self, agent: int) -> list[subprocess.Popen]:
        first = agent * self.processes_per_agent
        return self.processes[first : first + self.processes_per_agent]

    def _environment(self, rank: int) -> dict[str, str]:
        return {
            **os.environ,
            STORE_VARIABLE: f"127.0.0.1:{self._hosted.port}/{self._secret}",
            "LOCAL_RANK": str(rank),
            "NODE_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self._ports[rank // self.processes_per_agent]),
        }

    def _forward_signal(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)


def _kill(processes: Sequence[subprocess.Popen]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _describe(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def main(arguments: Sequence[str]) -> int:
    """Run as a command."""
    if len(arguments) in (2, 3) and arguments[0] == "host" and arguments[1].isdigit():
        store = host_store(int(arguments[1]), *arguments[2:])
        print(f"the list of remaining agents is hosted at port {store.port}", flush=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.pause()
        return 0
    if len(arguments) < 2 or not arguments[0].isdigit():
        print(__doc__, end="", file=sys.stderr)
        return 2
    num_agents, arguments = int(arguments[0]), list(arguments[1:])
    processes_per_agent = 1
    if arguments[:1] == ["--processes-per-agent"]:
        if len(arguments) < 3 or not arguments[1].isdigit():
            print(__doc__, end="", file=sys.stderr)
            return 2
        processes_per_agent, arguments = int(arguments[1]), arguments[2:]
    # -P: agents of this package do not search the current folder, not even before its first line.
    is_own = arguments[:2] == ["-m", "lightning_plugins"]
    options = ["-P"] if is_own or sys.flags.safe_path else []
    command = [sys.executable, *options, *arguments]
    return Supervisor(command, num_agents, processes_per_agent=processes_per_agent).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
