"""Trainings of small models under ``ModelParallelStrategy``, on ranks that this process forks.

usage: program_sharded.py OUTPUT_FOLDER cpu|cuda
"""

import functools
import json
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from forked_ranks import run_ranks, succeed
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from sharded_models import (
    BATCH,
    CONTEXT,
    SAMPLES,
    VOCABULARY,
    Classifier,
    Detector,
    Model,
    Tokens,
)
from torch.distributed.tensor import DTensor

from lightning_plugins.callbacks import (
    AdversarialEvaluation,
    AdversarialTextEvaluation,
    BlockSharpness,
    ExactResume,
    HeadScores,
    LateAdversarialTraining,
    LateSAM,
    RoutingStats,
    SharpnessMonitor,
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
    MuonAdamW,
)
from lightning_plugins.reports import run_pictures

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
MOE = {
    **SIZES,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
}
LAYOUTS = [(2, 1), (1, 2), (2, 2)]  # ranks of FSDP2, ranks of tensor parallelism
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
QUIET = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")


def case(
    architecture="llama",
    config=SIZES,
    sam=None,
    callback=None,
    plugin=None,
    momentum=0.0,
    optimizer=None,
    model=None,
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
        "model": model or {},
        "optimizer": optimizer or functools.partial(torch.optim.SGD, lr=0.5, momentum=momentum),
        "trainer": trainer,
    }


def stages():
    """The head alone, then everything; a validation pass lies between the stages."""
    second = {"lm_head": 0.5, ".*": 0.25}
    return StagedTraining([TrainingStage(1, {"lm_head": 0.5}), TrainingStage(1, second)])


def adversarial(random_start=False):
    return LateAdversarialTraining(start=0, eps=0.1, steps=2, random_start=random_start)


def average():
    """Lightning's moving average on one process, and that of docs/scale.md on several."""
    if "RANK" not in os.environ:
        return EMAWeightAveraging(decay=0.5)
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text("utf-8")
    (code,) = [part.split("```")[0] for part in page.split("```python\n") if "ShardedEMA" in part]
    names = {}
    exec(code, names)
    return names["ShardedEMA"](decay=0.5)


def of_optimizer(cls, architecture="llama", config=SIZES, **arguments):
    """Adam with a large epsilon: the direction of gradients near zero depends on rounding."""
    optimizer = functools.partial(cls, eps=1e-3, **arguments)
    return case(architecture, config, plugin=cls.__name__, optimizer=optimizer)


CASES = {
    "plain": case(),
    "clipped by norm": case(gradient_clip_val=0.3),
    "clipped by value": case(gradient_clip_val=0.01, gradient_clip_algorithm="value"),
    "accumulated": case(accumulate_grad_batches=2),
    "bf16-mixed": case(precision="bf16-mixed"),
    "bf16-true": case(precision="bf16-true"),
    "sam, bf16-mixed": case(sam={}, precision="bf16-mixed"),
    "tied": case(config=TIED),
    "chunked loss": case(config=TIED, model={"chunked_loss": True}),
    "gpt2": case("gpt2", GPT2),
    "sam": case(sam={}, log_every_n_steps=1),
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
    "grad power": of_optimizer(AdamWPower, lr=0.01, p=1.2),
    "blockwise rates": of_optimizer(BlockwiseAdamW, lr=1e-3),
    "blockwise rates, fused projection": of_optimizer(BlockwiseAdamW, "gpt2", GPT2, lr=1e-3),
    "lion": case(optimizer=functools.partial(Lion, lr=1e-3), plugin="Lion"),
    "adam-mini": of_optimizer(AdamMini, lr=0.01, head_dim=16),
    "adam-mini, fused projection": of_optimizer(AdamMini, "gpt2", GPT2, lr=0.01, head_dim=8),
    "blockwise rates of adam-mini": of_optimizer(BlockwiseAdamMini, lr=1e-3, head_dim=16),
    "muon": of_optimizer(MuonAdamW, lr=0.01),
    "average": case(callback=average, momentum=0.5, limit_val_batches=1.0, val_check_interval=2),
    "adversarial": case(
        "classifier",
        callback=adversarial,
        plugin="LateAdversarialTraining",
        log_every_n_steps=1,
    ),
    "random starts": case("classifier", callback=functools.partial(adversarial, True)),
    "robust accuracy": case(
        "classifier",
        callback=functools.partial(AdversarialEvaluation, "validate", 0.08, steps=3, restarts=2),
        plugin="AdversarialEvaluation",
        limit_val_batches=1.0,
    ),
    "attacked texts": case(
        "texts",
        callback=functools.partial(AdversarialTextEvaluation, stage="validate", label=None),
        plugin="AdversarialTextEvaluation",
        limit_val_batches=1.0,
    ),
    "head scores": case(
        callback=functools.partial(HeadScores, every_n_steps=4, period=4), plugin="HeadScores"
    ),
    "head scores, fused projection": case(
        "gpt2", GPT2, callback=functools.partial(HeadScores, every_n_steps=4, period=4)
    ),
    "sharpness": case(
        callback=functools.partial(
            SharpnessMonitor, max_share=1, num_samples=SAMPLES, top_k=2, trace_probes=10
        ),
        plugin="SharpnessMonitor",
    ),
    "experts": case("qwen2_moe", MOE, callback=RoutingStats, plugin="RoutingStats"),
}
MEASURED = ("adversarial/", "attack/", "robust/", "routing/", "sam/", "sharpness/")
NO_PLAN = ("gpt2", "qwen2_moe")  # what transformers cannot split as we do
AGAINST_DDP = ("qwen2_moe",)  # the auxiliary loss is not a mean over samples


FOUR_PROCESSES = ("head scores", "clipped by norm", "tied", "sam", "grad power", "adam-mini")


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


class Batches(Callback):
    """Records which samples this process has seen."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if isinstance(batch, torch.Tensor):
            self.seen.append(batch.cpu())


def model_of(case):
    if case["architecture"] in ("classifier", "texts"):
        return Classifier() if case["architecture"] == "classifier" else Detector()
    return Model(
        case["architecture"],
        VOCABULARY,
        CONTEXT,
        case["config"],
        optimizer=case["optimizer"],
        **case["model"],
    )


def train(case, strategy, devices, seed=3, accelerator="cpu"):
    """Weights, measured curves and the batches of this process."""
    torch.manual_seed(seed)
    model = model_of(case)
    batches = Batches()
    callbacks = [batches]
    if case["callback"] is not None:
        callbacks.append(case["callback"]())
    with tempfile.TemporaryDirectory() as pictures:
        trainer = Trainer(
            accelerator=accelerator,
            devices=devices,
            strategy=strategy,
            callbacks=callbacks,
            num_sanity_val_steps=0,
            default_root_dir=pictures,
            **{
                **dict.fromkeys(QUIET, False),
                "limit_val_batches": 1,
                "max_epochs": 1,
                **case["trainer"],
            },
        )
        trainer.fit(model)
    found = {name: whole(value) for name, value in model.state_dict().items()}
    if isinstance(callbacks[-1], BlockSharpness):
        for name, curve in callbacks[-1].values.items():
            found[f"curve of {name}"] = torch.tensor(curve) / max(curve)
    for step, scores in enumerate(getattr(callbacks[-1], "scores", [])):
        found |= {f"{name} {step}": torch.tensor(values) for name, values in scores.items()}
    for name, value in trainer.callback_metrics.items():
        is_whole = name.startswith("val/") and case["trainer"].get("limit_val_batches") == 1.0
        if name.startswith(MEASURED) or is_whole:
            found[name] = value.detach().cpu()
    return found, batches.seen


def whole(tensor):
    tensor = tensor.detach()
    tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return tensor.to("cpu", copy=True)


class WeightsAt(Callback):
    """Keeps the weights after an optimizer step."""

    def __init__(self, step):
        self.step, self.weights = step, {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            self.weights = {key: whole(value) for key, value in pl_module.state_dict().items()}


def resumed(strategy, folder, accelerator):
    """Averaged weights of a run, and of one that goes on from its checkpoint within an epoch."""
    found = {}
    for name, source in (("uninterrupted", None), ("resumed", f"{folder}/step=3.ckpt")):
        torch.manual_seed(3 if source is None else 11)
        # Lightning cannot load a consolidated checkpoint of an optimizer without state.
        model = model_of(case(momentum=0.5))
        at_checkpoint = WeightsAt(3)
        keep = ModelCheckpoint(folder, "{step}", every_n_train_steps=3, save_top_k=-1)
        trainer = Trainer(
            accelerator=accelerator,
            devices=2,
            strategy=strategy(),
            callbacks=[
                ExactResume(),
                LateSAM(start=0, local=False),
                average(),
                at_checkpoint,
                keep,
            ],
            **{**dict.fromkeys(QUIET, False), "max_steps": 6, "enable_checkpointing": True},
        )
        trainer.fit(model, ckpt_path=source, weights_only=True)
        found[name] = {key: whole(value) for key, value in model.state_dict().items()}
        if source is None:
            found["at the checkpoint"] = at_checkpoint.weights
    return found


def refusal(accelerator, strategy, model_class, *callbacks):
    """The error that a training ends with, or None."""
    torch.manual_seed(3)
    model = model_class(
        "llama", VOCABULARY, CONTEXT, SIZES, optimizer=lambda named: torch.optim.SGD(named, lr=0.5)
    )
    trainer = Trainer(
        accelerator=accelerator,
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


def refusals(accelerator, model_parallel):
    return {
        "ddp": refusal(accelerator, "ddp", Model),
        "ddp, changed before the second step": refusal(accelerator, "ddp", Model, Drifting(1)),
        "ddp, changed before the third step": refusal(accelerator, "ddp", Model, Drifting(2)),
        "sharded": refusal(accelerator, model_parallel(), Model),
        "not sharded": refusal(accelerator, model_parallel(), Unsharded),
    }


def is_run(name, data_parallel, tensor_parallel):
    if data_parallel > 1 and name == "random starts":
        return False  # each data-parallel rank draws its own
    if tensor_parallel > 1 and (CASES[name]["architecture"] in NO_PLAN or name == "sharpness"):
        return False
    return data_parallel * tensor_parallel == 2 or name in FOUR_PROCESSES


def run_layout(accelerator, data_parallel, tensor_parallel, output):
    import sharded_costs  # which imports this module

    quiet()
    parallel = functools.partial(
        ModelParallelStrategy,
        data_parallel,
        tensor_parallel,
        process_group_backend=BACKENDS[accelerator],
    )
    rank, ranks = int(os.environ["RANK"]), data_parallel * tensor_parallel
    results, seen = {}, []
    for name, chosen in CASES.items():
        if is_run(name, data_parallel, tensor_parallel):
            # Only rank 0's draw of the weights may count.
            seed = 3 if rank == 0 else 50 + rank
            results[name], batches = train(chosen, parallel(), ranks, seed, accelerator)
            seen = batches or seen
    found = {"weights": results, "seen": seen, "elements": elements(parallel(), ranks, accelerator)}
    if ranks == 2:
        found["refusals"] = refusals(accelerator, parallel)
        found["costs"] = sharded_costs.counts(parallel, accelerator)
        for form in ("distributed", "consolidated"):
            folder = f"{output}.{form}"
            os.makedirs(folder, exist_ok=True)
            found[form] = resumed(
                functools.partial(parallel, save_distributed_checkpoint=form == "distributed"),
                folder,
                accelerator,
            )
    torch.save(found, f"{output}.{rank}")


def elements(strategy, ranks, accelerator):
    """The number of parameter elements on this rank of a tied model."""
    model = model_of(CASES["tied"])
    options = {
        **dict.fromkeys(QUIET, False),
        "max_epochs": 1,
        "limit_train_batches": 1,
        "limit_val_batches": 0,
    }
    Trainer(accelerator=accelerator, devices=ranks, strategy=strategy, **options).fit(model)
    return sum(local(parameter.detach()).numel() for parameter in model.parameters())


def run_ddp(accelerator, output):
    quiet()
    found = {
        name: train(case, "ddp", 2, accelerator=accelerator)[0]
        for name, case in CASES.items()
        if case["architecture"] in AGAINST_DDP
    }
    torch.save(found, f"{output}.{os.environ['RANK']}")


def one_process(accelerator):
    """Each case without the other ranks; its backward passes must follow the last fork."""
    return {
        name: train(case, "auto", 1, accelerator=accelerator)[0]
        for name, case in CASES.items()
        if case["architecture"] not in AGAINST_DDP
    }


def newton_schulz(gradient, coefficients, steps, eps):
    """As torch's, in float32: its bfloat16 differs by 2e-3 if gradients are summed otherwise."""
    a, b, c = coefficients
    found = gradient.T if gradient.size(0) > gradient.size(1) else gradient
    found = found / found.norm().clamp(min=eps)
    for _ in range(steps):
        gram = found @ found.T
        found = a * found + (b * gram + c * gram @ gram) @ found
    return found.T if gradient.size(0) > gradient.size(1) else found


def no_figure(*arguments, **options):
    raise ImportError("drawing takes longer than the training")


def quiet():
    run_pictures.new_figure = no_figure
    torch.optim._muon._zeropower_via_newtonschulz = newton_schulz
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)


def import_models():
    """Import what the models need, once for all ranks that this process forks."""
    with torch.no_grad():
        for name in ("plain", "gpt2", "experts"):
            model = model_of(CASES[name])
            model.configure_model()
            model.loss(torch.zeros(1, CONTEXT + 1, dtype=torch.long))


def main(folder, accelerator):
    from sharded_faults import ends

    quiet()
    import_models()
    for layout in LAYOUTS:
        output = folder / f"{layout[0]}x{layout[1]}.pt"
        processes = layout[0] * layout[1]
        if accelerator == "cpu" or processes <= torch.cuda.device_count():
            succeed(run_ranks(processes, folder / "logs", run_layout, accelerator, *layout, output))
    succeed(run_ranks(2, folder / "logs", run_ddp, accelerator, folder / "ddp.pt"))
    faults = [[fault, ranks] for fault, ranks in ends(folder / "faults", accelerator).items()]
    (folder / "faults.json").write_text(json.dumps(faults))
    torch.save(one_process(accelerator), folder / "one.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
