"""Runs programs, and functions on ranks forked from a process that has imported torch."""

import faulthandler
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path


def launch(*command, limit=400):
    """Run a program; its processes are killed together after ``limit`` seconds."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        text, _ = process.communicate(timeout=limit)
    except BaseException as error:  # also the time limit of pytest
        os.killpg(process.pid, signal.SIGKILL)
        text, _ = process.communicate()
        raise AssertionError(f"the processes hang: {text[-3000:]}") from error
    assert process.returncode == 0, text[-3000:]


@dataclass(frozen=True)
class Ended:
    """How a rank ended: exit code (None: it was killed at the limit), seconds, and its output."""

    code: int | None
    seconds: float
    text: str


def run_ranks(processes, folder, function, *arguments, limit=120.0):
    """How each rank ended; a rank that fails ends the others, as torchrun does."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    port, began = _free_port(), time.monotonic()
    running = {}
    for rank in range(processes):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            _be_rank(rank, processes, port, folder, function, arguments)
        running[pid] = rank
    ended = {}
    stop_at = began + limit
    while running:
        now = time.monotonic()
        for pid, rank in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del running[pid]
                code = os.waitstatus_to_exitcode(status)
                ended[rank] = Ended(code, now - began, (folder / f"{rank}.log").read_text())
                if code:
                    stop_at = min(stop_at, now + 3)
        if now > stop_at:
            for pid, rank in running.items():
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                ended[rank] = Ended(None, now - began, (folder / f"{rank}.log").read_text())
            break
        time.sleep(0.02)
    return [ended[rank] for rank in range(processes)]


def succeed(ended):
    """Raise an error with the output of the ranks unless all have ended without one."""
    failed = [(one.seconds, rank, one) for rank, one in enumerate(ended) if one.code != 0]
    if failed:
        texts = [f"rank {rank}: {one.code}\n{one.text[-2000:]}" for _, rank, one in sorted(failed)]
        raise RuntimeError("\n".join(texts[::-1]))


def _be_rank(rank, processes, port, folder, function, arguments):
    code = 1
    try:
        log = os.open(folder / f"{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        faulthandler.enable()  # a thread of torch can end the process without an exception
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(processes),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "NODE_RANK": "0",
            # By these, Lightning recognizes torchrun.
            "TORCHELASTIC_RUN_ID": "none",
            "GROUP_RANK": "0",
            "LOCAL_WORLD_SIZE": str(processes),
        }
        function(*arguments)
        _leave_process_group()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # without the tests and results of the parent process


def _leave_process_group():
    """End the threads of gloo, which can otherwise end the process with a signal when it exits."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
