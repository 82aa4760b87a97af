"""Starts the agents of a run on this machine and keeps the others running when one fails.

usage: python -m lightning_plugins.strategies.supervisor AGENTS (SCRIPT | -m MODULE) [ARGUMENTS ...]
       python -m lightning_plugins.strategies.supervisor host PORT [ADDRESS]

The supervisor is not an agent. It hosts the list of remaining agents, reports the exit of an agent
to the others at once, and kills agents that were dropped. It forwards SIGTERM and SIGINT to the
agents. Its exit code is 0 if at least one agent completed the run, and 143 if SIGTERM ended it.

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
        grace_seconds: How long the other agents may run after the first one has completed.

    Raises:
        ValueError: ``num_agents`` is below 1, or ``command`` is empty.
    """

    def __init__(
        self, command: Sequence[str], num_agents: int, grace_seconds: float = _GRACE_SECONDS
    ) -> None:
        if num_agents < 1:
            raise ValueError(f"{num_agents} agents: expected at least 1")
        if not command:
            raise ValueError("no command: give a script, or -m and a module")
        self.command = list(command)
        self.num_agents = num_agents
        self.grace_seconds = grace_seconds
        self.agents: list[subprocess.Popen] = []
        self._received = 0

    def run(self) -> int:
        """Start the agents, wait for them, and return the exit code of this process."""
        self._secret = secrets.token_hex(16)
        self._hosted = host_store()
        self._store = PrefixStore(self._secret, self._hosted)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._forward_signal)
        self.agents = [
            subprocess.Popen(self.command, env=self._environment(agent))
            for agent in range(self.num_agents)
        ]
        try:
            return self._watch()
        finally:
            for agent in self.agents:
                if agent.poll() is None:
                    agent.kill()
                agent.wait()

    def _watch(self) -> int:
        reported: set[int] = set()
        first_end: float | None = None
        while any(agent.poll() is None for agent in self.agents):
            for number, agent in enumerate(self.agents):
                code = agent.poll()
                if code is None and self._store.check([f"dropped/{number}"]):
                    # It may be suspended, and would overwrite the others' files on waking.
                    agent.kill()
                elif code is not None and code != 0 and number not in reported:
                    reported.add(number)
                    self._store.set(f"exited/{number}", f"ended with {_describe(code)}")
                    print(f"agent {number} ended with {_describe(code)}", file=sys.stderr)
                elif code == 0 and first_end is None:
                    first_end = time.monotonic()
            if first_end is not None and time.monotonic() > first_end + self.grace_seconds:
                break
            time.sleep(0.05)
        ended = [number for number, agent in enumerate(self.agents) if agent.poll() == 0]
        if len(ended) < self.num_agents:
            names = ", ".join(map(str, ended)) or "none"
            print(f"agents that completed the run, of {self.num_agents}: {names}", file=sys.stderr)
        return 0 if ended else 128 + self._received if self._received else 1

    def _environment(self, agent: int) -> dict[str, str]:
        return {
            **os.environ,
            STORE_VARIABLE: f"127.0.0.1:{self._hosted.port}/{self._secret}",
            "LOCAL_RANK": str(agent),
            "NODE_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
        }

    def _forward_signal(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        for agent in self.agents:
            if agent.poll() is None:
                agent.send_signal(number)


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
    # -P: agents of this package do not search the current folder, not even before its first line.
    is_own = list(arguments[1:3]) == ["-m", "lightning_plugins"]
    options = ["-P"] if is_own or sys.flags.safe_path else []
    return Supervisor([sys.executable, *options, *arguments[1:]], int(arguments[0])).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
