"""The recipe language_model/tiny on one, two and four ranks, through the command line.

usage: sharded_recipe.py OUTPUT_FOLDER
"""

import functools
import os
import signal
import sys
from pathlib import Path

import torch
from forked_ranks import run_ranks, succeed
from lightning.pytorch import Callback
from program_sharded import quiet

from lightning_plugins.__main__ import main as command_line

LAYOUTS = {"one": (1, 1), "fsdp2": (2, 1), "tp": (1, 2), "fsdp2 and tp": (2, 2)}
STEPS, SAVED = 6, 3
GLOBAL_BATCH = 8


class Losses(Callback):
    """Writes this rank's losses, and the last weights of rank 0; may end in SIGKILL."""

    def __init__(self, file: str, killed_at: int = 0):
        self.file, self.killed_at, self.losses = file, killed_at, {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses[trainer.global_step] = outputs["loss"].item()
        if trainer.global_step == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_end(self, trainer, pl_module):
        weights = {
            name: value.full_tensor() if hasattr(value, "full_tensor") else value.clone()
            for name, value in pl_module.state_dict().items()
        }
        found = {"losses": self.losses, "weights": weights}
        found["validation"] = trainer.callback_metrics["val/loss"].item()
        torch.save(found, f"{self.file}.{trainer.global_rank}")


def fit(layout, corpus, folder, source=None, killed_at=0, distributed=False):
    quiet()
    data_parallel, tensor_parallel = LAYOUTS[layout]
    options = {
        "config": "language_model/tiny",
        "data.corpus": corpus,
        "data.data_dir": f"{corpus}/prepared",
        "data.batch_size": GLOBAL_BATCH // data_parallel,
        "data.context_length": 32,
        "model.context_length": 32,
        "trainer.devices": data_parallel * tensor_parallel,
        "trainer.max_steps": STEPS,
        "trainer.val_check_interval": STEPS,
        "trainer.limit_val_batches": 2,
        "trainer.num_sanity_val_steps": 0,
        "trainer.enable_progress_bar": False,
        "trainer.logger": False,
        "trainer.default_root_dir": folder,
    }
    if layout != "one":
        options |= {
            "trainer.strategy": "ModelParallelStrategy",
            "trainer.strategy.data_parallel_size": data_parallel,
            "trainer.strategy.tensor_parallel_size": tensor_parallel,
            "trainer.strategy.save_distributed_checkpoint": distributed,
            "trainer.strategy.process_group_backend": "gloo",
        }
    keep = {"dirpath": folder, "filename": "{step}", "every_n_train_steps": SAVED, "save_top_k": -1}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    arguments += ["--trainer.callbacks+=ModelCheckpoint"]
    arguments += [f"--trainer.callbacks.{name}={value}" for name, value in keep.items()]
    arguments += ["--trainer.callbacks+=sharded_recipe.Losses"]
    arguments += [f"--trainer.callbacks.file={folder}/found"]
    arguments += [f"--trainer.callbacks.killed_at={killed_at}"]
    if source is not None:
        arguments += [f"--ckpt_path={source}"]
    assert command_line(["fit", *arguments]) == 0


def run(layout, corpus, folder, **options):
    """How the ranks ended."""
    folder.mkdir(parents=True)
    processes = LAYOUTS[layout][0] * LAYOUTS[layout][1]
    train = functools.partial(fit, layout, corpus, folder, **options)
    return run_ranks(processes, folder / "logs", train)


def found(folder):
    """Losses of each step, averaged over the ranks; validation loss; weights."""
    ranks = [torch.load(file, weights_only=True) for file in sorted(folder.glob("found.*"))]
    losses = {
        step: sum(rank["losses"][step] for rank in ranks) / len(ranks)
        for step in ranks[0]["losses"]
    }
    return losses, ranks[0]["validation"], ranks[0]["weights"]


def corpus_in(folder):
    folder.mkdir()
    text = " ".join(f"{number} times {number} is {number**2}." for number in range(900))
    (folder / "train.txt").write_text(text)
    (folder / "val.txt").write_text(text[:3000])
    return folder


def is_run(source, form, target):
    """One process writes no distributed checkpoint."""
    return form == "consolidated" or source != "one"


def main(folder):
    """Run each layout, kill and resume it, and resume it from the checkpoints of the others."""
    corpus = corpus_in(folder / "corpus")
    for layout in LAYOUTS:
        succeed(run(layout, corpus, folder / layout))
    for layout in LAYOUTS:
        for form in ("consolidated", "distributed"):
            if layout == "one" and form == "distributed":
                continue
            distributed = form == "distributed"
            killed = folder / f"{layout}, {form}, killed"
            ends = run(layout, corpus, killed, killed_at=SAVED + 1, distributed=distributed)
            assert all(one.code in (-signal.SIGKILL, None) for one in ends), ends
            source = killed / f"step={SAVED}.ckpt"
            assert source.is_dir() == distributed
            for target in LAYOUTS:
                if is_run(layout, form, target):
                    to = folder / f"{layout}, {form}, to {target}"
                    succeed(run(target, corpus, to, source=source, distributed=distributed))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
