"""Hessian of a mean loss, as a product with a vector."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


class HessianOperator:
    """The Hessian of the mean loss over ``batches``, applied to flat vectors.

    For L(w) the mean of the per-sample losses, ``H v = d/dw <dL/dw, v>`` by two backward passes
    (Pearlmutter, Neural Computation 6(1), 1994); H itself is never formed. Memory is that of a few
    gradients. The mode of the network is the caller's: in ``train`` mode dropout would give another
    Hessian at every call, so choose ``eval`` unless BatchNorm's batch statistics are wanted.

    Args:
        loss: ``loss(*batch)``, the scalar mean loss of a batch, twice differentiable.
        parameters: the d entries of w, in this order; those without ``requires_grad`` are refused,
            those that the loss does not use have rows and columns of zeros.
        batches: tuples of tensors whose first dimension counts samples; batches are weighted by it.

    Raises:
        ValueError: no parameter, a frozen parameter, or no batch.
    """

    def __init__(
        self,
        loss: Callable[..., Tensor],
        parameters: Iterable[Tensor],
        batches: Sequence[tuple[Tensor, ...]],
    ) -> None:
        self.loss = loss
        self.parameters = list(parameters)
        self.batches = batches
        if not self.parameters or not all(p.requires_grad for p in self.parameters):
            raise ValueError("parameters: expected at least one, all with requires_grad=True")
        if not batches:
            raise ValueError("batches is empty: expected at least one batch of samples")

    @property
    def dimension(self) -> int:
        """Number d of scalar parameters."""
        return sum(parameter.numel() for parameter in self.parameters)

    def __call__(self, vector: Tensor) -> Tensor:
        """``H v`` for ``v`` of shape (d,); ``.grad`` of the parameters stays as it was."""
        direction = self._like_parameters(vector)
        samples = sum(len(batch[0]) for batch in self.batches)
        product = torch.zeros_like(vector)
        # Fused attention kernels have no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            for batch in self.batches:
                loss = self.loss(*batch)
                gradients = torch.autograd.grad(
                    loss,
                    self.parameters,
                    create_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
                products = [(g * v).sum() for g, v in zip(gradients, direction, strict=True)]
                rows = torch.autograd.grad(
                    torch.stack(products).sum(),
                    self.parameters,
                    allow_unused=True,
                    materialize_grads=True,
                )
                flat = torch.cat([row.flatten() for row in rows])
                product += (len(batch[0]) / samples) * flat.detach()
        return product

    def _like_parameters(self, vector: Tensor) -> list[Tensor]:
        parts = vector.split([parameter.numel() for parameter in self.parameters])
        return [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]
