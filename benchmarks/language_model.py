"""Throughput of a language model with Lightning's Trainer, and of its data path.

The Trainer and a bare loop train the same network of about 1 M parameters on the same batches with
AdamW, clipping and a cosine schedule. The loop contains forward, backward, clipping, step and
schedule. The Trainer has the recipe's callbacks and logs every fourth step, more often than the
recipe. The data path is `TokenDataModule`'s training loader in this process. It is compared with a
bare loop on the network of the recipe `language_model/tiny`, which consumes tokens faster.

usage: python benchmarks/language_model.py [--pairs 32] [--steps 8] [--threads 1]
"""

import argparse
import logging
import platform
import tempfile
import time
import warnings
from typing import Any

import torch
from lightning import __version__ as lightning_version
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from paired import paired_ratio
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from lightning_plugins.callbacks import ExactResume
from lightning_plugins.datamodules import ResumableDataLoader, TokenDataModule
from lightning_plugins.litmodels import CausalLM
from lightning_plugins.optimizers import WarmupCosine
from lightning_plugins.recipes import load_recipe

CONTEXT, BATCH = 128, 16
SKIPPED_STEPS = 2
DATA_BATCHES = 200
TINY = load_recipe("language_model/tiny")["model"]["init_args"]["config"]
SHAPE = {
    "hidden_size": 144,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "tie_word_embeddings": False,
}


def model(steps: int, shape: dict[str, Any] = SHAPE) -> CausalLM:
    torch.manual_seed(0)
    return CausalLM(
        config=shape,
        context_length=CONTEXT,
        optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
        lr_scheduler=lambda o: WarmupCosine(o, total_steps=steps),
    )


def data() -> TokenDataModule:
    return TokenDataModule(context_length=CONTEXT, batch_size=BATCH)


class Stopwatch(Callback):
    """Measures CPU seconds of the steps after the first two, including the data loading."""

    seconds = 0.0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == SKIPPED_STEPS - 1:
            self.started = time.process_time()
        elif batch_idx >= SKIPPED_STEPS:
            self.seconds = time.process_time() - self.started


def under_lightning(steps: int) -> float:
    stopwatch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_steps=steps,
            limit_val_batches=0,
            gradient_clip_val=1.0,
            log_every_n_steps=4,
            logger=CSVLogger(folder),
            callbacks=[ExactResume(), stopwatch],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model(steps), datamodule=data())
    return stopwatch.seconds


def bare_loop(steps: int, batches: list[Tensor], shape: dict[str, Any] = SHAPE) -> float:
    lit = model(steps, shape)
    lit.configure_model()
    network = lit.network
    assert isinstance(network, nn.Module)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)
    schedule = LambdaLR(optimizer, WarmupCosine(optimizer, total_steps=steps).multiplier)
    for index, windows in enumerate(batches):
        if index == SKIPPED_STEPS:
            started = time.process_time()
        optimizer.zero_grad()
        logits = network(windows[:, :-1]).logits
        cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return time.process_time() - started


def data_path(loader: ResumableDataLoader) -> float:
    """Return CPU seconds per batch."""
    started = time.process_time()
    for _ in zip(range(DATA_BATCHES), loader, strict=False):
        pass
    return (time.process_time() - started) / DATA_BATCHES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8, help="steps per block")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    steps = arguments.steps
    loader = data()
    loader.prepare_data()
    loader.setup()
    batches = [windows for windows, _ in zip(loader.train_dataloader(), range(steps), strict=False)]
    lit = model(steps)
    lit.configure_model()
    print(
        f"LLaMA of {sum(p.numel() for p in lit.parameters()) / 1e6:.2f} M parameters, "
        f"{BATCH} windows of {CONTEXT} bytes per step, AdamW, blocks of {steps} steps, "
        f"{arguments.threads} thread(s), torch {torch.__version__}, lightning {lightning_version}, "
        f"{platform.machine()}\nratios of process CPU time, median [95 % interval]\n"
    )
    ratio = paired_ratio(
        lambda: under_lightning(steps), lambda: bare_loop(steps, batches), arguments.pairs
    )
    print(f"tokens per second, Lightning / bare loop: {ratio}")
    measured_steps = steps - SKIPPED_STEPS
    ratio = paired_ratio(
        lambda: data_path(loader.train_dataloader()),
        lambda: bare_loop(steps, batches, TINY) / measured_steps,
        arguments.pairs,
    )
    print(f"tokens per second, data path / bare loop with the tiny model: {ratio}")
    seconds = bare_loop(steps, batches) / measured_steps
    print(f"the bare loop: {BATCH * CONTEXT / seconds:,.0f} tokens per CPU second")


if __name__ == "__main__":
    main()
