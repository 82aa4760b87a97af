"""Memory of a training step by part, computed on the meta device without allocating anything."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from lightning_plugins.litmodels.change_captioning.network import build_network, with_lora
from lightning_plugins.litmodels.change_captioning.sizes import Size

Sharding = Literal["ddp", "fsdp2", "lora"]
_TEXT_TOKENS = 57
"""Tokens of the prompt besides those of the images."""
_WEIGHT_BYTES = 4
"""Weights, gradients and both moments of AdamW are float32, also with ``bf16-mixed``."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on one device at the peak of a step, of one part of the network or of all.

    Args:
        weights: Weights; under FSDP2 the shard, and what is gathered at the same time.
        gradients: Gradients; under DDP also the buckets in which it sums them, under FSDP2 the
            shard and the gradients of gathered weights.
        optimizer: Both moments of AdamW.
        activations: Inputs of the checkpointed layers, what is saved outside of them, and what the
            recomputation of the largest layer saves.
    """

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        """The sum."""
        return sum(getattr(self, one.name) for one in fields(self))

    def __add__(self, other: "TrainingMemory") -> "TrainingMemory":
        names = [one.name for one in fields(self)]
        return TrainingMemory(*(getattr(self, name) + getattr(other, name) for name in names))


def training_memory(
    size: Size,
    sharding: Sharding,
    ranks: int = 8,
    batch_size: int = 2,
    answer_tokens: int = 15,
    targets: int = 26,
    vocab_size: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> dict[str, TrainingMemory]:
    """Compute the memory of a step of all parameters, with activation checkpointing.

    Args:
        size: Size of the network.
        sharding: ``ddp``, ``fsdp2`` over ``ranks``, or ``lora`` of rank 16 under DDP.
        ranks: Number of devices of FSDP2.
        batch_size: Pairs on a device.
        answer_tokens: Tokens of the answer, header and end included.
        targets: Targets of the loss in a pair.
        vocab_size: Rows of the tiny network's embedding.
        dtype: Type of the activations.

    Returns:
        Memory of the ``vision tower``, ``difference module``, ``projector``, ``language model``
        (with its embedding and head) and ``logits``.
    """
    with torch.device("meta"):
        network = build_network(size, vocab_size=vocab_size)
        adapted = with_lora(network, 16) if sharding == "lora" else network
    del adapted  # with_lora changed the network itself
    model = network.model
    modules: dict[str, list[nn.Module]] = {
        "vision tower": [model.vision_tower],
        "difference module": [model.difference],
        "projector": [model.multi_modal_projector],
        "language model": [model.language_model, network.lm_head],
    }
    memory = {name: _of_weights(parts, sharding, ranks) for name, parts in modules.items()}
    if network.config.tie_word_embeddings and network.lm_head.weight.requires_grad:
        # As embedding and as head it has a gradient each, before they are summed.
        second = network.lm_head.weight.numel() * _WEIGHT_BYTES
        memory["language model"] += TrainingMemory(gradients=second)
    memory["logits"] = TrainingMemory()
    network = network.to(dtype)
    for name, count in _activations(network, batch_size, answer_tokens, targets, dtype).items():
        memory[name] += TrainingMemory(activations=count)
    return memory


def _of_weights(modules: list[nn.Module], sharding: Sharding, ranks: int) -> TrainingMemory:
    parameters = {id(p): p for module in modules for p in module.parameters()}.values()
    every = sum(p.numel() for p in parameters) * _WEIGHT_BYTES
    trained = sum(p.numel() for p in parameters if p.requires_grad) * _WEIGHT_BYTES
    if sharding != "fsdp2":
        return TrainingMemory(every, 2 * trained, 2 * trained)
    # FSDP2 gathers a layer at a time. All other weights stay gathered until the backward pass.
    layers = [sum(p.numel() for p in one.parameters()) for m in modules for one in _layers(m)]
    gathered = every - (sum(layers) - max(layers, default=0)) * _WEIGHT_BYTES
    shard = TrainingMemory(every // ranks, trained // ranks, 2 * trained // ranks)
    return shard + TrainingMemory(weights=gathered, gradients=gathered)


def _layers(module: nn.Module) -> list[nn.Module]:
    """Return the layers that activation checkpointing recomputes."""
    return [m for name, m in module.named_modules() if name.rpartition(".")[0].endswith("layers")]


def _activations(
    network: Any, batch_size: int, answer_tokens: int, targets: int, dtype: torch.dtype
) -> dict[str, int]:
    config, model = network.config, network.model
    vision, text = config.vision_config, config.text_config
    tokens, side = network.tokens_per_image, vision.image_size
    length = 2 * tokens + _TEXT_TOKENS + answer_tokens
    levels = len(model.levels)

    def empty(*shape: int, inner: bool = True) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta", requires_grad=inner)

    images = empty(2 * batch_size, 3, side, side, inner=False)
    features = [empty(batch_size, tokens, vision.hidden_size) for _ in range(2 * levels)]
    both = empty(2 * batch_size, tokens, vision.hidden_size)
    embedded = empty(batch_size, length, text.hidden_size)
    hidden = empty(batch_size * targets, text.hidden_size)
    causal = {"full_attention": None}  # transformers would read a mask's values otherwise
    labels = torch.zeros(batch_size * targets, dtype=torch.long, device="meta")
    runs: dict[str, tuple[nn.Module, Callable[[], Any]]] = {
        "vision tower": (model.vision_tower, lambda: model.vision_tower(images)),
        "difference module": (
            model.difference,
            lambda: model.difference(features[:levels], features[levels:]),
        ),
        "projector": (model.multi_modal_projector, lambda: model.multi_modal_projector(both)),
        "language model": (
            model.language_model,
            lambda: model.language_model(
                inputs_embeds=embedded, attention_mask=causal, use_cache=False
            ),
        ),
        "logits": (
            network.lm_head,
            lambda: cross_entropy(network.lm_head(hidden).float(), labels),
        ),
    }
    found = {name: _saved(module, run) for name, (module, run) in runs.items()}
    found["logits"] *= 2  # their gradients
    return found


def _saved(module: nn.Module, run: Callable[[], Any]) -> int:
    """Return the bytes that a forward pass with checkpointed layers keeps for the backward pass."""
    inside: list[nn.Module] = []
    inputs, outside = _Storages(module), _Storages(module)
    of_layer: dict[nn.Module, _Storages] = {}

    def enter(layer: nn.Module, args: Any, kwargs: Any) -> None:
        inside.append(layer)
        of_layer[layer] = _Storages(module)
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor):
                inputs.add(value)

    def leave(layer: nn.Module, *_: Any) -> None:
        inside.pop()

    def pack(tensor: Tensor) -> Tensor:
        (of_layer[inside[0]] if inside else outside).add(tensor)
        return tensor

    with _hooks(_layers(module), enter, leave), saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    largest = max((storages.bytes for storages in of_layer.values()), default=0)
    return inputs.bytes + outside.bytes + largest


@contextmanager
def _hooks(layers: list[nn.Module], enter: Any, leave: Any) -> Iterator[None]:
    handles = [
        handle
        for layer in layers
        for handle in (
            layer.register_forward_pre_hook(enter, with_kwargs=True),
            layer.register_forward_hook(leave),
        )
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Storages:
    """Distinct storages, without those of a module's parameters."""

    def __init__(self, module: nn.Module) -> None:
        self._left_out = {p.untyped_storage()._cdata for p in module.parameters()}
        self._kept: dict[int, Any] = {}

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._left_out:
            self._kept[storage._cdata] = storage  # kept alive, so that its address stays its own

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self._kept.values())
