"""Interrupts runs at random steps, continues each with one command, and compares the ends.

Arguments: a folder, the number of runs per signal, and the options of ``lightning-plugins fit``.
Prints a JSON list of the differences. Each run is a forked process of its own, so that the imports
are done once.
"""

import json
import os
import random
import signal
import sys
from pathlib import Path

import torch
from kill_and_resume import first_difference
from lightning.pytorch import Callback

import lightning_plugins.cli  # noqa: F401
from lightning_plugins.__main__ import main

HOOKS = ("on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end")
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
EXIT_CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}


class SendSignal(Callback):
    """Sends a signal to this process, once, at a step of the first run in the folder."""

    def __init__(self, step: int, hook: str, number: int) -> None:
        def send(trainer, *_, **__):
            if trainer.global_step == step and not os.path.exists("sent"):
                Path("sent").touch()
                os.kill(os.getpid(), number)

        setattr(self, hook, send)


def command(*arguments):
    """Return exit code and output of the command line in a process of its own."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        with open("output.txt", "w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = 1
        try:
            code = main(list(arguments))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return code, Path("output.txt").read_text("utf-8", errors="replace")


def end_of_run(folder):
    (path,) = Path(folder).rglob("last.ckpt")
    return torch.load(path, weights_only=True)


def interrupted(number, step, hook, options, expected):
    """Interrupt one run, continue it in the same folder, and describe the first difference."""
    send = ["--trainer.callbacks+=program_interrupted_runs.SendSignal"]
    values = {"step": step, "hook": hook, "number": int(number)}
    send += [f"--trainer.callbacks.{name}={value}" for name, value in values.items()]
    code, text = command("fit", *options, *send)
    if code != EXIT_CODES[number]:
        return f"exit {code}: {text[-2000:]}"
    if number != signal.SIGKILL and "fit --resume runs/" not in text:
        return f"the command that continues is missing: {text[-500:]}"
    code, text = command("fit", "--resume", "last")
    if code != 0:
        return f"continued with exit {code}: {text[-2000:]}"
    found = end_of_run("runs")
    parts = ("global_step", "state_dict", "optimizer_states", "lr_schedulers")
    differences = (first_difference(expected[part], found[part], part) for part in parts)
    return next(filter(None, differences), None)


def program(folder, repeats, *options):
    torch.set_num_threads(1)
    chance = random.Random()
    options = [*options, *QUIET]
    root = Path(folder)
    (root / "uninterrupted").mkdir(parents=True)
    os.chdir(root / "uninterrupted")
    code, text = command("fit", *options)
    assert code == 0, text
    expected = end_of_run("runs")
    steps = expected["global_step"]
    problems = []
    for index in range(int(repeats)):
        for number in EXIT_CODES:
            step, hook = chance.randrange(1, steps - 3), chance.choice(HOOKS)
            (root / f"{number.name}{index}").mkdir()
            os.chdir(root / f"{number.name}{index}")
            problem = interrupted(number, step, hook, options, expected)
            if problem is not None:
                problems.append(f"{number.name} in {hook} at step {step}: {problem}")
    print(json.dumps(problems))


if __name__ == "__main__":
    sys.modules["program_interrupted_runs"] = sys.modules["__main__"]
    program(*sys.argv[1:])
