"""The loss of language models: cross-entropy and z-loss, with or without all logits at a time."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from lightning_plugins.litmodels.language_model.network import (
    Batch,
    inputs_and_targets,
    require_length,
)

_LOGITS_PER_CHUNK = 2**23
_FEWEST_TOKENS = 64


@dataclass(frozen=True)
class TokenLoss:
    """Mean loss over the targets of a batch.

    Attributes:
        cross_entropy: Mean cross-entropy in nats; 0 without any target.
        squared_log_partition: Mean square of the log-sum-exp of the logits, if it was requested.
        output: The output of the network.
    """

    cross_entropy: Tensor
    squared_log_partition: Tensor | None
    output: Any


def token_loss(network: nn.Module, batch: Batch, chunked: bool, with_z: bool) -> TokenLoss:
    """Compute the loss of a batch.

    Args:
        network: A causal model of transformers.
        batch: Windows of tokens.
        chunked: Compute the logits of some tokens at a time, and again in the backward pass. The
            memory is that of a chunk; the head costs one more product.
        with_z: Also compute the squared log-partition function.
    """
    inputs, targets = inputs_and_targets(batch)
    require_length(network.config, targets.shape[1])
    masked = is_masked(batch)
    if chunked:
        output, sums = _chunked_sums(network, inputs, targets, with_z)
    else:
        output = network(**inputs)
        if not (masked or with_z):
            loss = cross_entropy(output.logits.float().flatten(0, 1), targets.flatten())
            return TokenLoss(loss, None, output)
        sums = _sums(output.logits.flatten(0, 1), targets.flatten(), with_z)
    count = (targets >= 0).sum().clamp(min=1) if masked else targets.numel()
    return TokenLoss(sums[0] / count, sums[1] / count if with_z else None, output)


def is_masked(batch: Batch) -> bool:
    """Whether some tokens of the batch are not targets."""
    return not isinstance(batch, Tensor)


def require_chunked_loss(network: Any) -> None:
    """Refuse a network whose logits are not those of its head and known operations.

    Raises:
        ValueError: The architecture does not support a chunked loss.
    """
    name = type(network).__name__
    if "logits_to_keep" not in inspect.signature(network.forward).parameters:
        raise ValueError(f"chunked_loss=True: {name} computes all logits; set chunked_loss=False")
    head = network.get_output_embeddings()
    if next(network.parameters()).is_meta:
        return
    was_training = network.training
    network.eval()
    tokens = torch.arange(4, device=next(network.parameters()).device)[None]
    with torch.no_grad():
        output, hidden = _hidden_states(network, {"input_ids": tokens})
        last = _after_head(network.config)(head(hidden[:, -1:]))
    network.train(was_training)
    if not torch.allclose(last.float(), output.logits[:, -1:].float(), rtol=1e-2, atol=1e-4):
        raise ValueError(
            f"chunked_loss=True: {name} changes the output of its head in a way that is not known; "
            "set chunked_loss=False"
        )


def _chunked_sums(
    network: Any, inputs: dict[str, Tensor], targets: Tensor, with_z: bool
) -> tuple[Any, tuple[Tensor, Tensor]]:
    output, hidden = _hidden_states(network, inputs)
    head, after = network.get_output_embeddings(), _after_head(network.config)

    def sums(rows: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        return _sums(after(head(rows)), wanted, with_z)

    size = max(_FEWEST_TOKENS, _LOGITS_PER_CHUNK // network.config.get_text_config().vocab_size)
    parts: list[tuple[Tensor, Tensor]] = [
        checkpoint(sums, rows, wanted, use_reentrant=False, preserve_rng_state=False)
        for rows, wanted in zip(
            hidden.flatten(0, 1).split(size), targets.flatten().split(size), strict=True
        )
    ]
    losses, squares = zip(*parts, strict=True)
    return output, (torch.stack(losses).sum(), torch.stack(squares).sum())


def _hidden_states(network: Any, inputs: dict[str, Tensor]) -> tuple[Any, Tensor]:
    """Return the output with the logits of the last token only, and the input of the head."""
    found: list[Tensor] = []
    handle = network.base_model.register_forward_hook(
        lambda module, arguments, output: found.append(output[0])
    )
    try:
        output = network(**inputs, logits_to_keep=1)
    finally:
        handle.remove()
    return output, found[0]


def _sums(logits: Tensor, targets: Tensor, with_z: bool) -> tuple[Tensor, Tensor]:
    logits = logits.float()
    loss = cross_entropy(logits, targets, reduction="sum")
    if not with_z:
        return loss, loss.detach()
    squares = logits.logsumexp(dim=-1).square()
    return loss, squares.masked_fill(targets < 0, 0).sum()


def _after_head(config: Any) -> Callable[[Tensor], Tensor]:
    """Return what architectures apply to the output of the head."""
    config = config.get_text_config()
    bound = getattr(config, "final_logit_softcapping", None)  # Gemma 2 and 3
    divisor = getattr(config, "logits_scaling", None)  # Granite
    factor = getattr(config, "logit_scale", None)  # Cohere

    def apply(logits: Tensor) -> Tensor:
        if divisor is not None:
            logits = logits / divisor
        if factor is not None:
            logits = logits * factor
        return logits if bound is None else bound * torch.tanh(logits / bound)

    return apply
