"""Started by torchrun: trainings of small language models under ``ModelParallelStrategy``.

usage: program_sharded.py DATA_PARALLEL_SIZE TENSOR_PARALLEL_SIZE OUTPUT_FILE
"""

import logging
import os
import sys
import warnings

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.distributed.tensor import DTensor

from lightning_plugins.callbacks import LateSAM
from lightning_plugins.callbacks.replica_check import ReplicaCheck
from lightning_plugins.datamodules import ResumableDataLoader
from lightning_plugins.litmodels import CausalLM
from lightning_plugins.nn.shards import local

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
TIED = {**SIZES, "tie_word_embeddings": True}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2} | dict.fromkeys(
    ("resid_pdrop", "attn_pdrop", "embd_pdrop"), 0.0
)
VOCABULARY, CONTEXT, SAMPLES, BATCH = 32, 12, 16, 4


def case(architecture="llama", config=SIZES, sam=None, **trainer):
    return {"architecture": architecture, "config": config, "sam": sam, "trainer": trainer}


CASES = {
    "plain": case(),
    "clipped by norm": case(gradient_clip_val=0.3),
    "clipped by value": case(gradient_clip_val=0.01, gradient_clip_algorithm="value"),
    "accumulated": case(accumulate_grad_batches=2),
    "tied": case(config=TIED),
    "gpt2": case("gpt2", GPT2),
    "sam": case(sam={}),
    "asam": case(sam={"mode": "asam", "rho": 0.5}),
    "usam": case(sam={"mode": "usam"}),
    "sam, accumulated exactly": case(sam={}, accumulate_grad_batches=2),
    "sam by micro-batch, accumulated": case(
        sam={"accumulation": "micro-batch"}, accumulate_grad_batches=2
    ),
    "sam, clipped by norm": case(sam={}, gradient_clip_val=0.3),
    "sam of some parameters": case(sam={"parameters": "q_proj|lm_head"}),
}


class Drifting(Callback):
    """Changes one weight of rank 1 alone, before the given batch."""

    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.batch and trainer.global_rank == 1:
            with torch.no_grad():
                local(next(pl_module.parameters())).flatten()[0] += 1e-3


class Unsharded(CausalLM):
    """Ignores the device mesh, so that each rank trains a replica on batches of its own."""

    def configure_model(self):
        self.network = self.network or self._make_network()

    def train_dataloader(self):
        return ResumableDataLoader.for_trainer(self.trainer, Tokens(), BATCH)


class Tokens(torch.utils.data.Dataset):
    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randint(VOCABULARY, (CONTEXT + 1,), generator=generator)


class Model(CausalLM):
    def train_dataloader(self):
        shares = 1
        if self.device_mesh is not None:
            shares = self.device_mesh["data_parallel"].size()
        return ResumableDataLoader.for_trainer(self.trainer, Tokens(), BATCH // shares)


class Batches(Callback):
    """Records which samples this process has seen."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(batch.clone())


def train(case, strategy, devices, seed=3):
    torch.manual_seed(seed)
    model = Model(
        case["architecture"],
        VOCABULARY,
        CONTEXT,
        case["config"],
        optimizer=lambda named: torch.optim.SGD(named, lr=0.5),
    )
    batches = Batches()
    callbacks = [batches]
    if case["sam"] is not None:
        callbacks.append(LateSAM(start=0, local=False, **case["sam"]))
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        max_epochs=1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **case["trainer"],
    )
    trainer.fit(model)
    return {name: whole(value) for name, value in model.state_dict().items()}, batches.seen


def whole(tensor):
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


def refusal(strategy, model_class, *callbacks):
    """The error that a training ends with, or None."""
    torch.manual_seed(3)
    model = model_class(
        "llama", VOCABULARY, CONTEXT, SIZES, optimizer=lambda named: torch.optim.SGD(named, lr=0.5)
    )
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        max_epochs=1,
        callbacks=[ReplicaCheck(), *callbacks],
        **dict.fromkeys(quiet, False),
    )
    try:
        trainer.fit(model)
    except MisconfigurationException as error:
        return str(error)
    return None


def refusals(model_parallel):
    return {
        "ddp": refusal("ddp", Model),
        "ddp, changed before the second step": refusal("ddp", Model, Drifting(1)),
        "ddp, changed before the third step": refusal("ddp", Model, Drifting(2)),
        "sharded": refusal(model_parallel(), Model),
        "not sharded": refusal(model_parallel(), Unsharded),
    }


def main(data_parallel, tensor_parallel, output):
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    results, seen = {}, []
    for name, chosen in CASES.items():
        if tensor_parallel > 1 and chosen["architecture"] == "gpt2":
            continue
        strategy = ModelParallelStrategy(
            data_parallel, tensor_parallel, process_group_backend="gloo"
        )
        # Only rank 0's draw of the weights may count.
        rank = int(os.environ["RANK"])
        results[name], seen = train(
            chosen, strategy, data_parallel * tensor_parallel, seed=3 if rank == 0 else 50 + rank
        )
    messages = {}
    if data_parallel * tensor_parallel == 2:
        messages = refusals(
            lambda: ModelParallelStrategy(
                data_parallel, tensor_parallel, process_group_backend="gloo"
            )
        )
    torch.save({"weights": results, "seen": seen, "refusals": messages}, f"{output}.{rank}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
