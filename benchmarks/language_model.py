"""Throughput of a language model with Lightning's Trainer, of its data path, and its memory.

Lightning's Trainer, a bare loop, a loop in the manner of nanoGPT and the Trainer of transformers
train the same network of about 1 M parameters with AdamW, clipping and a cosine schedule. The bare
loop contains forward, backward, clipping, step and schedule on batches that are already tensors;
nanoGPT's also draws random windows from a memory map. Lightning's Trainer has `ExactResume` and
`PretrainingMonitor` and logs every fourth step, more often than the recipe. The loops alternate in
one process, four steps each. The data path is
`TokenDataModule`'s training loader in this process, with whole windows and with masked documents.
Memory is the growth of the process's peak in one pass with a vocabulary of 50304 tokens.

usage: python benchmarks/language_model.py [--blocks 32] [--threads 1]
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
from itertools import cycle, islice

import numpy as np
import torch
import transformers
from lightning import __version__ as lightning_version
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from paired import median_ratio
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from lightning_plugins.callbacks import ExactResume, PretrainingMonitor
from lightning_plugins.datamodules import ResumableDataLoader, TokenDataModule
from lightning_plugins.datamodules.tokens.token_file import map_tokens
from lightning_plugins.litmodels import CausalLM
from lightning_plugins.optimizers import WarmupCosine

CONTEXT, BATCH = 128, 16
BLOCK, SKIPPED_BLOCKS = 4, 2
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


class BareLoop:
    """Forward, backward, clipping, step and schedule on batches that are already tensors."""

    def __init__(self, steps: int, batches: Iterable[Tensor]) -> None:
        lit = model(steps)
        lit.configure_model()
        network = lit.network
        assert isinstance(network, nn.Module)
        self.network = network.train()
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)
        multiplier = WarmupCosine(self.optimizer, total_steps=steps).multiplier
        self.schedule = LambdaLR(self.optimizer, multiplier)
        self.batches = iter(batches)

    def seconds_of_a_block(self) -> float:
        """Train a block of steps and return its CPU seconds."""
        started = time.process_time()
        for windows in islice(self.batches, BLOCK):
            self.optimizer.zero_grad()
            logits = self.network(windows[:, :-1]).logits
            cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten()).backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
        return time.process_time() - started


class Blocks:
    """Measures blocks of steps of a Trainer, and of other loops between them.

    A block ends in the hook after its last step, so that logging belongs to the next block. Other
    loops alternate with the Trainer's blocks, so drift of the machine affects all of them.
    """

    def __init__(self, **others: BareLoop) -> None:
        self.others = others
        self.ratios: dict[str, list[float]] = {name: [] for name in others}
        self.steps = 0
        self.started = 0.0

    def step(self) -> None:
        self.steps += 1
        if self.steps % BLOCK:
            return
        own = time.process_time() - self.started
        for name, other in self.others.items():
            ratio = other.seconds_of_a_block() / own
            if self.steps > SKIPPED_BLOCKS * BLOCK:
                self.ratios[name].append(ratio)
        self.started = time.process_time()


class AfterSteps(Callback):
    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.blocks.step()


def under_lightning(steps: int, blocks: Blocks) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_steps=steps,
            limit_val_batches=0,
            gradient_clip_val=1.0,
            log_every_n_steps=BLOCK,
            logger=CSVLogger(folder),
            callbacks=[ExactResume(), PretrainingMonitor(peak_flops=1e11), AfterSteps(blocks)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model(steps), datamodule=data())


def under_transformers(steps: int, batches: list[Tensor], blocks: Blocks) -> None:
    lit = model(steps)
    lit.configure_model()

    class AfterStepsOfTransformers(transformers.TrainerCallback):
        def on_step_end(self, *arguments, **options):
            blocks.step()

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
            logging_steps=BLOCK,
            disable_tqdm=True,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
        )
        trainer = transformers.Trainer(lit.network, settings, train_dataset=rows)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.add_callback(AfterStepsOfTransformers())
        trainer.train()


def nanogpt_batches(tokens: np.ndarray) -> Iterator[Tensor]:
    """Draw random windows from a memory map."""
    while True:
        starts = torch.randint(len(tokens) - CONTEXT - 1, (BATCH,))
        rows = [tokens[start : start + CONTEXT + 1].astype(np.int64) for start in starts]
        yield torch.stack([torch.from_numpy(row) for row in rows])


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
    parser.add_argument("--blocks", type=int, default=32)
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
        compare_loops(arguments.blocks)
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


def compare_loops(num_blocks: int) -> None:
    loader = data()
    loader.prepare_data()
    loader.setup()
    batches = list(islice(loader.train_dataloader(), 2 * BLOCK))
    tokens = map_tokens(loader.train_dataset.paths[0])
    lit = model(1)
    lit.configure_model()
    print(
        f"LLaMA of {sum(p.numel() for p in lit.parameters()) / 1e6:.2f} M parameters, AdamW; "
        f"tokens per second as ratios of CPU time over blocks of {BLOCK} steps, median [95 %]"
    )
    steps = BLOCK * (num_blocks + SKIPPED_BLOCKS)
    blocks = Blocks(
        bare=BareLoop(steps, cycle(batches)), nanogpt=BareLoop(steps, nanogpt_batches(tokens))
    )
    under_lightning(steps, blocks)
    own = median_ratio(blocks.ratios["bare"])
    print(f"Lightning / bare loop: {own}")
    print(f"Lightning / loop like nanoGPT's: {median_ratio(blocks.ratios['nanogpt'])}", flush=True)
    others = Blocks(bare=BareLoop(steps, cycle(batches)))
    under_transformers(steps, batches, others)
    other = median_ratio(others.ratios["bare"])
    print(f"Trainer of transformers / bare loop: {other}")
    print(f"Lightning / Trainer of transformers, of the medians: {own.median / other.median:.3f}")
    loop = BareLoop(steps, cycle(batches))
    loop.seconds_of_a_block()
    rate = BLOCK * BATCH * CONTEXT / loop.seconds_of_a_block()
    print(f"the bare loop: {rate:,.0f} tokens per CPU second", flush=True)


if __name__ == "__main__":
    main()
