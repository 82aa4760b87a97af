"""Batches of packed documents, as transformers takes them."""

import torch
from torch import Tensor, nn

Batch = Tensor | dict[str, Tensor]
"""Windows of tokens ``(batch, length + 1)``, or with documents apart a dictionary of three of that
shape: ``input_ids``, ``position_ids`` that start again with each document, and ``labels``, -100
where a token is no target."""


def inputs_and_targets(batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """What the network is called with, and the next tokens; all of shape ``(batch, length)``."""
    if isinstance(batch, Tensor):
        return {"input_ids": batch[:, :-1]}, batch[:, 1:]
    inputs = {name: batch[name][:, :-1] for name in ("input_ids", "position_ids")}
    return inputs, batch["labels"][:, 1:]


@torch.no_grad()
def keeps_documents_apart(network: nn.Module) -> bool:
    """Whether positions that start again keep a token from seeing the document before.

    Most attention of transformers reads it so (``create_causal_mask``); recurrent layers and older
    releases ignore it, without a word. Tried on two windows that differ in their first document.
    """
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    tokens = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 1]], device=device)
    positions = torch.tensor([[0, 1, 0, 1]], device=device).expand(2, -1)
    one, other = network(input_ids=tokens, position_ids=positions).logits[:, 2:].float()
    network.train(was_training)
    return torch.allclose(one, other, rtol=1e-2, atol=1e-4 * float(one.abs().max()))
