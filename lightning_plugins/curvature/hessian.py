"""Products of the Hessian of a mean loss with vectors."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


class HessianOperator:
    """The Hessian of the mean loss over ``batches``, applied to flat vectors.

    For L(w) the mean of the per-sample losses, ``H v = d/dw <dL/dw, v>`` is computed by two
    backward passes (Pearlmutter, Neural Computation 6(1), 1994). H itself is never formed; the
    memory is that of a few gradients. The caller sets the mode of the network. In ``train`` mode
    dropout changes the Hessian with every call, so use ``eval`` unless you need the batch
    statistics of BatchNorm.

    Args:
        loss: A function ``loss(*batch)`` that returns the scalar mean loss of a batch; twice
            differentiable.
        parameters: The tensors that make up w with its d entries, in this order. All must have
            ``requires_grad``. Parameters that the loss does not use have zero rows and columns.
        batches: Tuples of tensors whose first dimension counts samples; batches are weighted by it.

    Raises:
        ValueError: There are no parameters, a parameter is frozen, or there is no batch.
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
        """The number d of scalar parameters."""
        return sum(parameter.numel() for parameter in self.parameters)

    def __call__(self, vector: Tensor) -> Tensor:
        """Return ``H v`` for ``v`` of shape (d,); ``.grad`` of the parameters is not changed."""
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
