"""Throughput of a language model with Lightning's Trainer, of its data path, and its memory.

Lightning's Trainer, a bare loop, a loop in the manner of nanoGPT and the Trainer of transformers
train the same network of about 1 M parameters with AdamW, clipping and a cosine schedule. The bare
loop contains forward, backward, clipping, step and schedule on batches that are already tensors;
nanoGPT's also draws random windows from a memory map. Lightning's Trainer has `ExactResume` and
`PretrainingMonitor` and logs every fourth step, more often than the recipe. The data path is
`TokenDataModule`'s training loader in this process, with whole windows and with masked documents.
Memory is the growth of the process's peak in one pass with a vocabulary of 50304 tokens.

usage: python benchmarks/language_model.py [--pairs 32] [--steps 8] [--threads 1]
       [--only loops|data|memory]
"""

import argparse
import logging
import multiprocessing
import platform
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import torch
import transformers
from lightning import __version__ as lightning_version
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from paired import paired_ratio
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from lightning_plugins.callbacks import ExactResume, PretrainingMonitor
from lightning_plugins.datamodules import ResumableDataLoader, TokenDataModule
from lightning_plugins.datamodules.tokens.token_file import map_tokens
from lightning_plugins.litmodels import CausalLM
from lightning_plugins.optimizers import WarmupCosine

CONTEXT, BATCH = 128, 16
SKIPPED_STEPS = 2
DATA_BATCHES = 200
SHAPE = {
    "hidden_size": 144,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "tie_word_embeddings": False,
}


def model(steps: int) -> CausalLM:
    torch.manual_seed(0)
    return CausalLM(
        config=SHAPE,
        context_length=CONTEXT,
        optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
        lr_scheduler=lambda o: WarmupCosine(o, total_steps=steps),
    )


def data(mask_documents: bool = False) -> TokenDataModule:
    return TokenDataModule(context_length=CONTEXT, batch_size=BATCH, mask_documents=mask_documents)


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
            callbacks=[ExactResume(), PretrainingMonitor(peak_flops=1e11), stopwatch],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model(steps), datamodule=data())
    return stopwatch.seconds


def under_transformers(steps: int, batches: list[Tensor]) -> float:
    """Return CPU seconds of the same steps under the Trainer of transformers."""
    lit = model(steps)
    lit.configure_model()
    times: list[float] = []

    class Times(transformers.TrainerCallback):
        def on_step_end(self, *arguments, **options):
            times.append(time.process_time())

    rows = [{"input_ids": window[:-1], "labels": window[1:]} for b in batches for window in b]
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            max_steps=steps,
            max_grad_norm=1.0,
            learning_rate=1e-3,
            weight_decay=0.1,
            lr_scheduler_type="cosine",
            logging_steps=4,
            disable_tqdm=True,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
        )
        trainer = transformers.Trainer(lit.network, settings, train_dataset=rows)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.add_callback(Times())
        trainer.train()
    return times[-1] - times[SKIPPED_STEPS - 1]


def nanogpt_batches(tokens: np.ndarray, steps: int) -> Iterator[Tensor]:
    """Draw random windows from a memory map."""
    for _ in range(steps):
        starts = torch.randint(len(tokens) - CONTEXT - 1, (BATCH,))
        rows = [tokens[start : start + CONTEXT + 1].astype(np.int64) for start in starts]
        yield torch.stack([torch.from_numpy(row) for row in rows])


def bare_loop(steps: int, batches: Iterable[Tensor]) -> float:
    lit = model(steps)
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
    """Return tokens per CPU second, the median of ten passes over 200 batches."""
    rates = []
    for _ in range(10):
        batches = iter(loader)
        next(batches)
        started = time.process_time()
        for _ in range(DATA_BATCHES):
            next(batches)
        rates.append(DATA_BATCHES * BATCH * CONTEXT / (time.process_time() - started))
    return statistics.median(rates)


def peak_growth(chunked: bool) -> int:
    """Return the growth of the process's peak memory in KiB in one pass; in a new process."""
    config = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    lit = CausalLM("llama", 50304, CONTEXT, config, chunked_loss=chunked)
    lit.configure_model()
    windows = torch.randint(50304, (BATCH, CONTEXT + 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lit.loss(windows).backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8, help="steps per block")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("loops", "data", "memory"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    transformers.utils.logging.set_verbosity_error()
    print(
        f"{BATCH} windows of {CONTEXT} tokens per step, {arguments.threads} thread(s), torch "
        f"{torch.__version__}, lightning {lightning_version}, transformers "
        f"{transformers.__version__}, {platform.machine()}\n"
    )
    wanted = [arguments.only] if arguments.only else ["loops", "data", "memory"]
    if "loops" in wanted:
        compare_loops(arguments.steps, arguments.pairs)
    if "data" in wanted:
        for mask_documents in (False, True):
            loader = data(mask_documents)
            loader.prepare_data()
            loader.setup()
            kind = "masked documents" if mask_documents else "whole windows"
            rate = data_path(loader.train_dataloader())
            print(f"data path, {kind}: {rate / 1e6:.1f} M tokens per CPU second", flush=True)
    if "memory" in wanted:
        context = multiprocessing.get_context("spawn")
        with context.Pool(1, maxtasksperchild=1) as pool:
            plain, chunked = pool.map(peak_growth, [False, True], chunksize=1)
        print(
            f"peak memory, {BATCH * CONTEXT} tokens, vocabulary 50304: plain {plain / 2**10:.0f} "
            f"MiB, chunked {chunked / 2**10:.0f} MiB, ratio {chunked / plain:.2f}"
        )


def compare_loops(steps: int, pairs: int) -> None:
    loader = data()
    loader.prepare_data()
    loader.setup()
    batches = [windows for windows, _ in zip(loader.train_dataloader(), range(steps), strict=False)]
    tokens = map_tokens(loader.train_dataset.paths[0])
    lit = model(steps)
    lit.configure_model()
    print(
        f"LLaMA of {sum(p.numel() for p in lit.parameters()) / 1e6:.2f} M parameters, AdamW, "
        f"blocks of {steps} steps; tokens per second as ratios of process CPU time, median [95 %]"
    )
    for name, other in (
        ("bare loop", lambda: bare_loop(steps, batches)),
        ("loop like nanoGPT's", lambda: bare_loop(steps, nanogpt_batches(tokens, steps))),
        ("Trainer of transformers", lambda: under_transformers(steps, batches)),
    ):
        ratio = paired_ratio(lambda: under_lightning(steps), other, pairs)
        print(f"Lightning / {name}: {ratio}", flush=True)
    seconds = bare_loop(steps, batches) / (steps - SKIPPED_STEPS)
    print(f"the bare loop: {BATCH * CONTEXT / seconds:,.0f} tokens per CPU second")


if __name__ == "__main__":
    main()
