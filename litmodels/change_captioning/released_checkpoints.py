"""Loading of the published weights of LLaVA-OneVision and CCExpert."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_plugins.nn.change.released_weights import from_released

# Tried in this order; None drops the weight. Four layouts: transformers' in memory, the one of its
# save_pretrained, the one on its hub (llava-hf), and LLaVA-NeXT's (lmms-lab and the authors of
# CCExpert).
_RENAMED: tuple[tuple[str, str | None], ...] = (
    (r"^model\.mm_cc_projector\.", None),  # created but never used by the authors' code
    (r"^model\.vision_resampler\.", "model.difference."),
    (r"^model\.vision_tower\.vision_tower\.vision_model\.", "model.vision_tower."),
    (r"^vision_tower\.vision_model\.", "model.vision_tower."),
    (r"^vision_tower\.", "model.vision_tower."),
    (r"^difference\.", "model.difference."),
    (r"^model\.vision_tower\.vision_model\.", "model.vision_tower."),
    (r"^model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"^multi_modal_projector\.", "model.multi_modal_projector."),
    (r"^image_newline$", "model.image_newline"),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^model\.(layers|embed_tokens|norm)\.", r"model.language_model.\1."),
)
_DIFFERENCE = "model.difference."
# A checkpoint may lack the difference module (plain LLaVA-OneVision; the module then keeps its
# initial weights), a head that is tied to the embedding, and two unused weights.
_MAY_LACK = (_DIFFERENCE, "lm_head.", "model.image_newline", "model.vision_tower.post_layernorm.")


def load_released(network: nn.Module, folder: str | Path) -> list[str]:
    """Copy the weights of a published checkpoint into ``network``, shard by shard.

    Reads all ``*.safetensors`` of ``folder`` in the layout of ``llava-hf``, of ``lmms-lab``, of
    transformers' ``save_pretrained``, or of CCExpert's checkpoints. Vision layers that the network
    does not have, the tower's pooling head and CCExpert's unused parameters are dropped. Embeddings
    with fewer rows fill the first rows.

    Args:
        network: A network of
            :func:`~lightning_plugins.litmodels.change_captioning.network.build_network`.
        folder: Local folder of the checkpoint.

    Returns:
        Names of the network's parameters that are not in the checkpoint.

    Raises:
        ValueError: The folder has no such files, a shape does not match, or a required weight is
            missing.
    """
    targets = dict(network.named_parameters())
    missing = set(targets)
    shards = sorted(Path(folder).glob("*.safetensors"))
    if not shards:
        raise ValueError(
            f"pretrained={str(folder)!r} has no *.safetensors: expected the folder of a downloaded "
            "checkpoint, for example of llava-hf/llava-onevision-qwen2-0.5b-ov-hf"
        )
    for shard in shards:
        for name, weight in _renamed_weights(shard):
            if name in targets:
                _copy(targets[name], weight, name, shard)
                missing.discard(name)
    if lacking := sorted(name for name in missing if not name.startswith(_MAY_LACK)):
        raise ValueError(
            f"pretrained={str(folder)!r} lacks {len(lacking)} weights, the first is {lacking[0]}: "
            "expected a checkpoint of the same size and architecture"
        )
    difference = {name for name in targets if name.startswith(f"{_DIFFERENCE}layers.")}
    if not difference & missing and f"{_DIFFERENCE}output_gate" in missing:
        raise ValueError(
            f"pretrained={str(folder)!r} has a trained difference module without a gate: "
            "set zero_gate=False"
        )
    return sorted(missing)


def _renamed_weights(shard: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    with safe_open(shard, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118 - not a dictionary
            if (new := _renamed(name)) is None:
                continue
            weight = weights.get_tensor(name)
            if name.startswith("model.vision_resampler."):
                inner = from_released({new.removeprefix(_DIFFERENCE): weight})
                yield from ((_DIFFERENCE + part, tensor) for part, tensor in inner.items())
            else:
                yield new, weight


def _renamed(name: str) -> str | None:
    for pattern, replacement in _RENAMED:
        if re.search(pattern, name):
            return None if replacement is None else re.sub(pattern, replacement, name)
    return name


@torch.no_grad()
def _copy(target: Any, weight: Tensor, name: str, shard: Path) -> None:
    rows_differ_only = target.shape[1:] == weight.shape[1:] and len(weight) <= len(target)
    if target.shape == weight.shape:
        target.copy_(weight)
    elif rows_differ_only and name.endswith(("embed_tokens.weight", "lm_head.weight")):
        target[: len(weight)].copy_(weight)
    else:
        raise ValueError(
            f"{shard.name}: {name} has the shape {tuple(weight.shape)}, expected "
            f"{tuple(target.shape)}: set size to the size of the checkpoint"
        )
