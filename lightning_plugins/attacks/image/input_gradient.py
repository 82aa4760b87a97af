"""The gradient of a loss with respect to a network's inputs, and nothing else."""

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor], Tensor]


def input_gradient(loss: Loss, inputs: Tensor) -> Tensor:
    """d loss / d inputs, of the shape of ``inputs``; ``.grad`` of parameters stays as it was.

    Works inside ``torch.no_grad`` and ``torch.inference_mode``. Tensors that ``loss`` uses and that
    were made in inference mode must be cloned outside it.

    Args:
        loss: from inputs to one number, or one for each sample.
        inputs: floating point; not modified.

    Raises:
        ValueError: ``loss`` gives another shape, or no gradient reaches the inputs.
    """
    with torch.inference_mode(False), torch.enable_grad():
        variable = inputs.detach().clone().requires_grad_()
        value = loss(variable)
        if value.dim() > 1 or (value.dim() == 1 and len(value) not in (1, len(inputs))):
            raise ValueError(
                f"loss has shape {tuple(value.shape)}: expected one number, or {len(inputs)}, one "
                "for each sample"
            )
        if not value.requires_grad:
            raise ValueError("loss is not differentiable by the inputs: it detaches them somewhere")
        return torch.autograd.grad(value.sum(), variable, materialize_grads=True)[0]
