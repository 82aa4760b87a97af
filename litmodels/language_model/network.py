"""Builds networks of the transformers library for CausalLM and checks what they support."""

import difflib
import math
from collections.abc import Collection
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_plugins.optional_packages import requires

Batch = Tensor | dict[str, Tensor]
"""Windows of tokens ``(batch, length + 1)``; with masked documents a dictionary of three tensors of
this shape: ``input_ids``, ``position_ids`` that restart at each document, and ``labels``, which are
-100 for tokens that are not targets."""


def build_configuration(architecture: str, arguments: dict[str, Any]) -> Any:
    """Build the configuration of an architecture, with router logits for mixtures of experts.

    If the hidden size is given, sizes of the feed-forward parts and numbers of heads that are not
    given keep their ratio to it; the defaults of the architecture belong to its published model.

    Args:
        architecture: Model type in transformers.
        arguments: Arguments of the configuration, with the names that transformers uses.

    Raises:
        ImportError: transformers is missing.
        ValueError: The architecture has no argument of some name, which transformers would ignore.
    """
    with requires("transformers", by="CausalLM", extra="text"):
        from transformers import AutoConfig
    defaults = AutoConfig.for_model(architecture)
    _refuse_unknown(arguments, defaults)
    try:
        config = AutoConfig.for_model(
            architecture, **{**_sizes_in_proportion(defaults, arguments), **arguments}
        )
    # Configurations check themselves and raise several classes.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"config: {architecture} does not accept it ({reason})") from error
    # The auxiliary loss requires router logits. Not every mixture has "moe" in its model type.
    if hasattr(config, "output_router_logits") and "output_router_logits" not in arguments:
        config.output_router_logits = True
    return config


# Accepted for every architecture, although some configurations have no attribute of this name.
_ALWAYS_KNOWN = (
    "attn_implementation",
    "experts_implementation",
    "initializer_range",
    "max_position_embeddings",
    "pad_token_id",
    "rope_scaling",
    "rope_theta",
    "use_cache",
)


def known_arguments(defaults: Any) -> set[str]:
    """Return the names of the arguments of a configuration."""
    return {*vars(defaults), *getattr(defaults, "attribute_map", {}), *_ALWAYS_KNOWN}


def _refuse_unknown(arguments: dict[str, Any], defaults: Any) -> None:
    known = known_arguments(defaults)
    for name in arguments:
        if name not in known and not hasattr(defaults, name):
            near = difflib.get_close_matches(name, known, 1)
            raise ValueError(
                f"config.{name}: the configuration of {defaults.model_type} has no argument of "
                "this name" + (f"; did you mean {near[0]}?" if near else "")
            )


_FEED_FORWARD_SIZES = (
    "intermediate_size",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "shared_intermediate_size",
    "intermediate_size_mlp",
    "ffn_dim",
)


def _sizes_in_proportion(defaults: Any, arguments: dict[str, Any]) -> dict[str, int]:
    """Return the feed-forward sizes and numbers of heads that follow from the hidden size."""
    alias = getattr(defaults, "attribute_map", {})
    given = {alias.get(name, name): value for name, value in arguments.items()}
    hidden = given.get(alias.get("hidden_size", "hidden_size"))
    default_hidden = getattr(defaults, "hidden_size", None)
    if not isinstance(hidden, int) or not isinstance(default_hidden, int):
        return {}
    sizes: dict[str, int] = {}
    for name in (alias.get(size, size) for size in _FEED_FORWARD_SIZES):
        default = getattr(defaults, name, None)
        if name not in given and isinstance(default, int) and hidden != default_hidden:
            # Multiples of 8 allow grouped products of experts.
            sizes[name] = 8 * math.ceil(default * hidden / default_hidden / 8)
    heads_name, groups_name = (
        alias.get(name, name) for name in ("num_attention_heads", "num_key_value_heads")
    )
    default_heads = getattr(defaults, heads_name, None)
    if not isinstance(default_heads, int):
        return sizes
    heads = given.get(heads_name)
    if heads is None:
        heads = _divisor(hidden, default_heads * hidden / default_hidden)
        sizes[heads_name] = heads
    default_groups = getattr(defaults, groups_name, None)
    if groups_name not in given and isinstance(default_groups, int) and isinstance(heads, int):
        sizes[groups_name] = _divisor(heads, heads * default_groups / default_heads)
    return sizes


def _divisor(number: int, limit: float) -> int:
    """Return the largest divisor of ``number`` that is at most ``limit``; at least 1."""
    return max(d for d in range(1, number + 1) if number % d == 0 and d <= max(limit, 1))


def mark_end_of_document(
    network: nn.Module | None, config: Any, token: int, given: Collection[str] = ()
) -> None:
    """Make ``token`` the start and end of a text in the configurations that are exported.

    Architectures have the numbers of their published tokenizer as defaults. With other tokens,
    generation would stop at an ordinary one and continue after a document ends.

    Args:
        network: The network, if it exists.
        config: Its configuration.
        token: The token that ends a document.
        given: Names that were set explicitly and remain.
    """
    found = [config]
    if network is not None:
        found += [c for name in ("config", "generation_config") if (c := getattr(network, name, 0))]
    for one in found:
        for name in {"bos_token_id", "eos_token_id"}.difference(given):
            setattr(one, name, token)


def ends_of_text(config: Any) -> tuple[int, ...]:
    """Return the tokens at which generation stops."""
    ends = getattr(config, "eos_token_id", None)
    return () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)


def require_causal(network: Any) -> None:
    """Refuse a network whose outputs depend on later tokens, which would predict what it sees.

    transformers builds encoders such as BERT as causal models; their attention is causal only with
    ``is_decoder``. The check is the gradient of the first outputs, exactly 0 for later tokens.

    Raises:
        ValueError: An output depends on a later token.
    """
    # Sharding strategies create weights on the meta device, which cannot compute outputs.
    if next(network.parameters()).is_meta:
        return
    was_training = network.training
    network.eval()
    embedded: list[Tensor] = []

    def keep(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    handle = network.get_input_embeddings().register_forward_hook(keep)
    try:
        tokens = torch.arange(8, device=next(network.parameters()).device)[None] % 2
        with torch.inference_mode(False), torch.enable_grad():
            first = network(input_ids=tokens).logits[0, :4, 0].sum()
            (gradient,) = torch.autograd.grad(first, embedded[:1])
    # Architectures with other inputs; their first batch reports it better.
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError):
        return
    finally:
        handle.remove()
        network.train(was_training)
    early, late = (part.float().abs().max() for part in (gradient[:, :4], gradient[:, 4:]))
    if late > 1e-4 * early:
        remedy = (
            "set is_decoder: true in config"
            if hasattr(network.config, "is_decoder")
            else "use another architecture"
        )
        raise ValueError(
            f"architecture={network.config.model_type!r}: {type(network).__name__} attends to "
            f"later tokens, so it would predict what it sees; {remedy}"
        )


def require_routing_tables(network: nn.Module) -> None:
    """Refuse routers that look up the experts of a token in a table that was never filled.

    Raises:
        ValueError: A table sends all tokens to the first expert (DeepSeek-V4 without weights).
    """
    for name, table in network.named_buffers():
        if name.endswith("tid2eid") and not table.is_meta and not table.any():
            raise ValueError(
                f"config: {name} sends all tokens to the first expert, because only pretrained "
                "weights have this table; set mlp_layer_types in config to 'moe' for each layer"
            )


def require_length(config: Any, length: int) -> None:
    """Refuse windows longer than the context of the network.

    Raises:
        ValueError: The context is shorter than ``length``.
    """
    limit = context_length_of(config)
    if limit is not None and length > limit:
        raise ValueError(
            f"context_length={limit}: the windows have {length} targets; set the model's "
            "context_length, or the DataModule's, to the other one"
        )


def context_length_of(config: Any) -> int | None:
    """Return the tokens in the context of a network; None if its architecture has no limit."""
    try:
        return getattr(config.get_text_config(), "max_position_embeddings", None)
    except NotImplementedError:  # XLNet
        return None


def inputs_and_targets(batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """Split a batch into the network's arguments and the next tokens, all ``(batch, length)``."""
    if isinstance(batch, Tensor):
        return {"input_ids": batch[:, :-1]}, batch[:, 1:]
    inputs = {name: batch[name][:, :-1] for name in ("input_ids", "position_ids")}
    return inputs, batch["labels"][:, 1:]


def require_isolated_documents(network: nn.Module) -> None:
    """Refuse a network whose attention crosses document boundaries within a window.

    Raises:
        ValueError: The network ignores restarting positions.
    """
    # Sharding strategies create weights on the meta device, which cannot compute outputs.
    if next(network.parameters()).is_meta or isolates_documents(network):
        return
    raise ValueError(
        f"mask_documents=True: {type(network).__name__} in the installed transformers attends to "
        "earlier documents in a window; set mask_documents=False, or use another architecture such "
        "as llama, gpt2 or qwen2_moe"
    )


@torch.no_grad()
def isolates_documents(network: nn.Module) -> bool:
    """Whether restarting positions prevent attention to the previous document.

    Most attention layers of transformers support this (``create_causal_mask``); recurrent layers
    and older releases silently ignore it. The check compares two windows that differ only in their
    first document.
    """
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    tokens = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 1]], device=device)
    positions = torch.tensor([[0, 1, 0, 1]], device=device).expand(2, -1)
    one, other = network(input_ids=tokens, position_ids=positions).logits[:, 2:].float()
    network.train(was_training)
    return torch.allclose(one, other, rtol=1e-2, atol=1e-4 * float(one.abs().max()))


# Endings of the names of projections onto the residual stream, without and with experts. They
# include the enclosing module if other layers, such as the head of BERT, share the last part.
_RESIDUAL_PROJECTIONS = {
    "attention": (
        "o_proj.weight",
        "attn.out_proj.weight",  # opt, gptj
        "attention.out_proj.weight",  # gpt_neo
        "attn.dense.weight",  # phi
        "attention.dense.weight",  # gpt_neox, bloom, falcon
        "attn.c_proj.weight",  # gpt2
    ),
    "feed-forward": (
        "down_proj.weight",
        "down_proj",
        "fc2.weight",  # opt, phi
        "mlp.dense_4h_to_h.weight",  # gpt_neox, bloom, falcon
        "mlp.c_proj.weight",  # gpt2, gpt_neo, starcoder2
        "mlp.fc_out.weight",  # gptj
    ),
}
_SCALED_BY_TRANSFORMERS = {
    "gpt2": ("c_proj.weight",),
    "gpt_bigcode": ("c_proj.weight",),
    "nanochat": ("o_proj.weight",),
}


@torch.no_grad()
def scale_residual_projections(network: nn.Module, config: Any) -> None:
    """Divide the projections onto the residual stream by ``sqrt(2 * layers)``.

    Projections that transformers already scales are not changed. Source: Radford et al., GPT-2,
    2019, section 2.3.

    Args:
        network: Network of transformers with its initial weights.
        config: Configuration of the network.

    Warns:
        UserWarning: No projection of attention, or none of the feed-forward part, has a known name.
    """
    scaled_already = _SCALED_BY_TRANSFORMERS.get(config.model_type, ())
    missing = set(_RESIDUAL_PROJECTIONS)
    for name, parameter in network.named_parameters():
        for part, endings in _RESIDUAL_PROJECTIONS.items():
            if name.endswith(endings):
                missing.discard(part)
                if not name.endswith(scaled_already):
                    parameter.div_(math.sqrt(2 * config.num_hidden_layers))
    if missing:
        rank_zero_warn(
            f"residual_scaling=True: no {' and no '.join(sorted(missing))} projection of "
            f"{type(network).__name__} has a known name, so these weights are not scaled; set "
            "residual_scaling=False to disable scaling"
        )
