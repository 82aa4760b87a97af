"""One training step of all simulated agents as a single batched computation."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.optim import SGD, Adam, AdamW

from lightning_plugins._lightning_compat import callbacks_of, has_wrapped_closures
from lightning_plugins.strategies.agent_switcher import AgentSwitcher

_OPTIMIZERS = (SGD, Adam, AdamW)
_HOOKS = (
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
_METHODS = (*_HOOKS, "backward", "optimizer_step", "optimizer_zero_grad")


class BatchedAgents:
    """Runs ``training_step`` for all agents by ``torch.func.vmap`` over their weights.

    Values that the step logs are logged as means over agents. Random operations differ between
    agents. At the first step, the gradients of the last agent are compared with those of a plain
    backward pass unless the step draws random numbers.

    Args:
        module: The module that all agents share.
        rows: The agents' weights.
    """

    def __init__(self, module: LightningModule, rows: AgentSwitcher) -> None:
        self.rows = rows
        self._module = module
        self._call = _TrainingStep(module)
        self._gradients: dict[str, Tensor] = {}
        self._is_compared = False

    def step(self, batches: Sequence[Any], *indices: Any) -> Tensor:
        """Return the loss, averaged over agents, and keep the gradients.

        Args:
            batches: One batch per agent, of equal shapes.
            indices: Further arguments of ``training_step``.
        """
        parameters = self.rows.stacked_parameters()
        stacked = _stacked(batches)
        options: dict[str, dict[str, Any]] = {}

        def loss_of(own: dict[str, Tensor], batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
            logged: dict[str, Tensor] = {}

            def log(name: str, value: Any, *arguments: Any, **kwargs: Any) -> None:
                logged[name] = torch.as_tensor(value, dtype=torch.get_default_dtype()).detach()
                options[name] = {"arguments": arguments, **kwargs}

            self._module.__dict__["log"] = log
            try:
                named = {f"module.{name}": tensor for name, tensor in own.items()}
                output = functional_call(self._call, named, (batch, *indices))
            finally:
                del self._module.__dict__["log"]
            return output["loss"] if isinstance(output, Mapping) else output, logged

        state = torch.get_rng_state()
        function = vmap(grad_and_value(loss_of, has_aux=True), randomness="different")
        self._gradients, (losses, logged) = function(parameters, stacked)
        if not self._is_compared:
            self._is_compared = True
            if torch.equal(state, torch.get_rng_state()):
                self._compare(loss_of, parameters, batches[-1])
        for name, values in logged.items():
            own = dict(options[name])
            self._module.log(name, values.mean(), *own.pop("arguments"), **own)
        return losses.detach().mean()

    def set_gradients(self) -> None:
        """Give the stacked gradients to the module's parameters."""
        for name, gradient in self._gradients.items():
            self._module.get_parameter(name).grad = gradient
        self._gradients = {}

    def _compare(self, loss_of: Any, parameters: dict[str, Tensor], batch: Any) -> None:
        """Refuse a step whose batched gradients differ from those of one agent alone."""
        own = {
            name: tensor[-1].detach().clone().requires_grad_()
            for name, tensor in parameters.items()
        }
        loss, _ = loss_of(own, batch)
        expected = torch.autograd.grad(loss, list(own.values()), allow_unused=True)
        for name, gradient in zip(own, expected, strict=True):
            found = self._gradients[name][-1]
            wanted = torch.zeros_like(found) if gradient is None else gradient
            if not torch.allclose(found, wanted, rtol=1e-3, atol=1e-5):
                raise MisconfigurationException(
                    f"batched=True: the gradient of {name} differs from that of one agent alone, "
                    "so training_step depends on more than weights and batch; set batched=False"
                )


def check_batched(trainer: Trainer, module: LightningModule, optimizer: Any) -> None:
    """Refuse what a batched step would not reproduce.

    Raises:
        MisconfigurationException: The message names the feature.
    """
    reasons = {
        f"buffers ({', '.join(name for name, _ in module.named_buffers())})": any(
            True for _ in module.buffers()
        ),
        f"the optimizer {type(optimizer).__name__}; supported are SGD, Adam and AdamW": type(
            optimizer
        )
        not in _OPTIMIZERS,
        "gradient_clip_val": bool(trainer.gradient_clip_val),
        f"precision={trainer.precision}": type(trainer.precision_plugin) is not Precision,
        "a callback that repeats or changes training steps": has_wrapped_closures(trainer),
    }
    for name in _METHODS:
        reasons[f"{type(module).__name__}.{name}"] = is_overridden(name, module)
    for callback in callbacks_of(trainer):
        for name in _HOOKS:
            reasons[f"{type(callback).__name__}.{name}"] = is_overridden(name, callback)
    found = [reason for reason, is_used in reasons.items() if is_used]
    if found:
        raise MisconfigurationException(
            f"batched=True does not support {found[0]}: set batched=False, which runs the agents "
            "one after the other"
        )


class _TrainingStep(nn.Module):
    def __init__(self, module: LightningModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments: Any) -> Any:
        return self.module.training_step(*arguments)


def _stacked(batches: Sequence[Any]) -> Any:
    """Stack the agents' batches leaf by leaf.

    Raises:
        ValueError: The batches have different shapes or hold other data than tensors.
    """
    first = batches[0]
    if isinstance(first, Tensor):
        shapes = {tuple(batch.shape) for batch in batches}
        if len(shapes) > 1:
            raise ValueError(
                f"batched=True: the agents' batches have shapes {sorted(shapes)}; set "
                "drop_last=True in the DataLoader, or batched=False"
            )
        return torch.stack(list(batches))
    if isinstance(first, Mapping):
        return {key: _stacked([batch[key] for batch in batches]) for key in first}
    if isinstance(first, list | tuple):
        parts = [_stacked(part) for part in zip(*batches, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    raise ValueError(
        f"batched=True: batches contain {type(first).__name__}, and only tensors in lists, tuples "
        "and dictionaries are supported; set batched=False"
    )
