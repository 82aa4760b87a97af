"""Detection of optimizers that step while the backward pass runs."""

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


class StepInBackwardCheck:
    """Refuses hooks that step an optimizer as soon as a parameter's gradient is there.

    Such a hook (``Tensor.register_post_accumulate_grad_hook``) would step in both passes of a SAM
    step. Hooks that only read the gradient are accepted: what the hooks do is seen in the first
    backward pass of the run. Without such hooks the check does nothing.

    Args:
        optimizer: The optimizer whose parameters are checked.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._hooked = [p for p in parameters if getattr(p, "_post_accumulate_grad_hooks", None)]
        self._versions: dict[int, int] | None = None
        # Registered last, and therefore called after the hooks that it checks.
        self._handles: list[RemovableHandle] = [
            p.register_post_accumulate_grad_hook(self._compare) for p in self._hooked
        ]

    def begin_backward(self) -> None:
        """Note the versions of the parameters before the first backward pass."""
        if self._handles and self._versions is None:
            self._versions = {id(p): p._version for p in self._hooked}

    def remove(self) -> None:
        """Remove the hooks of the check."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._versions = None

    def _compare(self, parameter: Tensor) -> None:
        version = (self._versions or {}).pop(id(parameter), None)
        if version is None:
            return
        if parameter.grad is None or parameter._version != version:
            raise MisconfigurationException(
                "LateSAM does not support an optimizer that steps in the backward pass: a "
                "post-accumulate-grad hook changed a parameter or removed its gradient, so the "
                "second pass would step again; return the optimizer from configure_optimizers and "
                "remove the hooks"
            )
