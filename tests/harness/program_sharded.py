"""Started by torchrun: trainings of small language models under ``ModelParallelStrategy``.

usage: program_sharded.py DATA_PARALLEL_SIZE TENSOR_PARALLEL_SIZE OUTPUT_FILE
"""

import functools
import logging
import os
import sys
import warnings

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.functional import cross_entropy

from lightning_plugins.callbacks import (
    BlockSharpness,
    ExactResume,
    LateAdversarialTraining,
    LateSAM,
    StagedTraining,
    TrainingStage,
)
from lightning_plugins.callbacks.replica_check import ReplicaCheck
from lightning_plugins.datamodules import ResumableDataLoader
from lightning_plugins.litmodels import CausalLM
from lightning_plugins.nn.shards import local
from lightning_plugins.optimizers import (
    AdamMini,
    AdamWPower,
    BlockwiseAdamMini,
    BlockwiseAdamW,
    Lion,
)

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
QUIET = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
VOCABULARY, CONTEXT, SAMPLES, BATCH = 32, 12, 16, 4


def case(
    architecture="llama",
    config=SIZES,
    sam=None,
    callback=None,
    plugin=None,
    momentum=0.0,
    optimizer=None,
    **trainer,
):
    """Options of a training; ``callback`` or ``optimizer`` makes the plugin that it is about."""
    if sam is not None:
        plugin, callback = "LateSAM", functools.partial(LateSAM, start=0, local=False, **sam)
    return {
        "architecture": architecture,
        "config": config,
        "plugin": plugin,
        "callback": callback,
        "optimizer": optimizer or functools.partial(torch.optim.SGD, lr=0.5, momentum=momentum),
        "trainer": trainer,
    }


def stages():
    """The head alone, then everything; a validation pass lies between the stages."""
    second = {"lm_head": 0.5, ".*": 0.25}
    return StagedTraining([TrainingStage(1, {"lm_head": 0.5}), TrainingStage(1, second)])


def adversarial():
    return LateAdversarialTraining(start=0, eps=0.1, steps=2, random_start=False)


def of_optimizer(cls, architecture="llama", config=SIZES, **arguments):
    """Adam with a large epsilon: the direction of gradients near zero depends on rounding."""
    optimizer = functools.partial(cls, eps=1e-3, **arguments)
    return case(architecture, config, plugin=cls.__name__, optimizer=optimizer)


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
    "two stages": case(callback=stages, plugin="StagedTraining", max_epochs=2),
    "block sharpness": case(
        callback=functools.partial(BlockSharpness, every_n_steps=1), plugin="BlockSharpness"
    ),
    "grad power": of_optimizer(AdamWPower, lr=0.01, p=1.2, compile=True),
    "blockwise rates": of_optimizer(BlockwiseAdamW, lr=1e-3),
    "blockwise rates, fused projection": of_optimizer(BlockwiseAdamW, "gpt2", GPT2, lr=1e-3),
    "lion": case(optimizer=functools.partial(Lion, lr=1e-3), plugin="Lion"),
    "adam-mini": of_optimizer(AdamMini, lr=0.01, head_dim=16),
    "adam-mini, fused projection": of_optimizer(AdamMini, "gpt2", GPT2, lr=0.01, head_dim=8),
    "blockwise rates of adam-mini": of_optimizer(BlockwiseAdamMini, lr=1e-3, head_dim=16),
    "adversarial": case("classifier", callback=adversarial, plugin="LateAdversarialTraining"),
}


FOUR_PROCESSES = ("clipped by norm", "tied", "sam", "grad power", "adam-mini")


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
        return ResumableDataLoader.for_trainer(self.trainer, Tokens(), BATCH // shares(self))

    def val_dataloader(self):
        return ResumableDataLoader.for_trainer(self.trainer, Tokens(), BATCH, shuffle=False)


class Batches(Callback):
    """Records which samples this process has seen."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if isinstance(batch, torch.Tensor):
            self.seen.append(batch.clone())


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.rand(1, 4, 4, generator=generator), index % 3


class Classifier(LightningModule):
    """A small network, sharded or split as the device mesh says."""

    def configure_model(self):
        torch.manual_seed(3)
        self.network = nn.Sequential(
            nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3, bias=False)
        )
        if self.device_mesh is not None:
            split = {"1": ColwiseParallel(), "3": RowwiseParallel()}
            parallelize_module(self.network, self.device_mesh["tensor_parallel"], split)
            if self.device_mesh["data_parallel"].size() > 1:
                fully_shard(self.network, mesh=self.device_mesh["data_parallel"])

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, batch_idx):
        return cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def train_dataloader(self):
        return ResumableDataLoader.for_trainer(self.trainer, Images(), BATCH // shares(self))


def model_of(case):
    if case["architecture"] == "classifier":
        return Classifier()
    return Model(
        case["architecture"],
        VOCABULARY,
        CONTEXT,
        case["config"],
        optimizer=case["optimizer"],
    )


def shares(module):
    return 1 if module.device_mesh is None else module.device_mesh["data_parallel"].size()


def train(case, strategy, devices, seed=3):
    """Weights, measured curves and the batches of this process."""
    torch.manual_seed(seed)
    model = model_of(case)
    batches = Batches()
    callbacks = [batches]
    if case["callback"] is not None:
        callbacks.append(case["callback"]())
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        callbacks=callbacks,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        **{**dict.fromkeys(QUIET, False), "max_epochs": 1, **case["trainer"]},
    )
    trainer.fit(model)
    found = {name: whole(value) for name, value in model.state_dict().items()}
    for name, curve in getattr(callbacks[-1], "values", {}).items():
        found[f"curve of {name}"] = torch.tensor(curve) / max(curve)
    return found, batches.seen


def whole(tensor):
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


class WeightsAt(Callback):
    """Keeps the weights after an optimizer step."""

    def __init__(self, step):
        self.step, self.weights = step, {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            self.weights = {key: whole(value) for key, value in pl_module.state_dict().items()}


def resumed(strategy, folder):
    """Weights of a run, and of one that goes on from its checkpoint of step 3, within an epoch."""
    found = {}
    for name, source in (("uninterrupted", None), ("resumed", f"{folder}/step=3.ckpt")):
        torch.manual_seed(3 if source is None else 11)
        # Lightning cannot load a consolidated checkpoint of an optimizer without state.
        model = model_of(case(momentum=0.5))
        at_checkpoint = WeightsAt(3)
        keep = ModelCheckpoint(folder, "{step}", every_n_train_steps=3, save_top_k=-1)
        trainer = Trainer(
            accelerator="cpu",
            devices=2,
            strategy=strategy(),
            callbacks=[ExactResume(), LateSAM(start=0, local=False), at_checkpoint, keep],
            **{**dict.fromkeys(QUIET, False), "max_epochs": 2, "enable_checkpointing": True},
        )
        trainer.fit(model, ckpt_path=source, weights_only=True)
        found[name] = {key: whole(value) for key, value in model.state_dict().items()}
        if source is None:
            found["at the checkpoint"] = at_checkpoint.weights
    return found


def refusal(strategy, model_class, *callbacks):
    """The error that a training ends with, or None."""
    torch.manual_seed(3)
    model = model_class(
        "llama", VOCABULARY, CONTEXT, SIZES, optimizer=lambda named: torch.optim.SGD(named, lr=0.5)
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        max_epochs=1,
        callbacks=[ReplicaCheck(), *callbacks],
        **dict.fromkeys(QUIET, False),
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
    parallel = functools.partial(
        ModelParallelStrategy, data_parallel, tensor_parallel, process_group_backend="gloo"
    )
    results, seen = {}, []
    for name, chosen in CASES.items():
        if tensor_parallel > 1 and chosen["architecture"] == "gpt2":
            continue
        if data_parallel * tensor_parallel > 2 and name not in FOUR_PROCESSES:
            continue
        strategy = parallel()
        # Only rank 0's draw of the weights may count.
        rank = int(os.environ["RANK"])
        results[name], batches = train(
            chosen, strategy, data_parallel * tensor_parallel, seed=3 if rank == 0 else 50 + rank
        )
        seen = batches or seen
    found = {"weights": results, "seen": seen}
    if data_parallel * tensor_parallel == 2:
        found["refusals"] = refusals(parallel)
        for form in ("distributed", "consolidated"):
            folder = f"{output}.{form}"
            os.makedirs(folder, exist_ok=True)
            found[form] = resumed(
                functools.partial(parallel, save_distributed_checkpoint=form == "distributed"),
                folder,
            )
    torch.save(found, f"{output}.{rank}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
