"""One training step of all simulated agents as a single batched computation."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.modules.conv import _ConvNd
from torch.optim import SGD, Adam, AdamW

from lightning_plugins._import_names import of_root
from lightning_plugins._lightning_compat.closures import has_wrapped_closures
from lightning_plugins._lightning_compat.loops import callbacks_of
from lightning_plugins.nn.module_state import state_untouched
from lightning_plugins.nn.random_state import RandomState
from lightning_plugins.strategies.agent_switcher import AgentSwitcher

_OPTIMIZERS = (SGD, Adam, AdamW)
_HOOKS = (
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
_METHODS = (*_HOOKS, "backward", "optimizer_step", "optimizer_zero_grad")
_MOST_PARAMETERS = 1_000_000
_DEEPEST = 4
_FRAMEWORKS = ("torch", "lightning", "pytorch_lightning", "torchmetrics")


class BatchedAgents:
    """Runs ``training_step`` for all agents by ``torch.func.vmap`` over their weights.

    Values that the step logs are logged as means over agents. Random operations differ between
    agents. At the first step, the gradients of the last agent are compared with those of a plain
    backward pass unless the step draws random numbers.

    Args:
        module: The module that all agents share.
        rows: The agents' weights.
        must_equal: Also refuse steps that draw random numbers, change the module, or return or log
            what a mean over agents does not replace.
    """

    def __init__(self, module: LightningModule, rows: AgentSwitcher, must_equal: bool) -> None:
        self.rows = rows
        self.must_equal = must_equal
        self._module = module
        self._call = _TrainingStep(module)
        self._gradients: dict[str, Tensor] = {}
        self._is_compared = False

    def step(self, batches: Sequence[Any], *indices: Any) -> Tensor:
        """Return the loss, averaged over agents, and keep the gradients.

        Args:
            batches: One batch per agent, of equal shapes.
            indices: Further arguments of ``training_step``.

        Raises:
            CannotBatchError: ``must_equal`` is set, and the step does not equal those of the agents
                one after the other. The module is then as it was before.
        """
        if not self.must_equal:
            return self._logged(*self._step(batches, *indices))
        random_state = None if self._is_compared else RandomState.capture()
        try:
            results = (self._step if random_state is None else self._tested)(batches, *indices)
            if random_state is not None and not random_state.equals(RandomState.capture()):
                raise CannotBatchError("training_step draws random numbers")
        except Exception as error:  # the agents one after the other raise it again, or do not
            if random_state is not None:
                random_state.restore()
            raise CannotBatchError(f"{type(error).__name__}: {error}") from error
        return self._logged(*results)

    def _tested(self, batches: Sequence[Any], *indices: Any) -> Any:
        with state_untouched(self._module, leave=self._module.parameters()):
            state = _attributes(self._module)
            results = self._step(batches, *indices)
            if _attributes(self._module) != state:
                raise CannotBatchError("training_step changes the module")
        return results

    def _logged(self, losses: Tensor, logged: dict[str, Tensor], options: dict[str, Any]) -> Tensor:
        for name, values in logged.items():
            own = dict(options[name])
            self._module.log(name, values.mean(), *own.pop("arguments"), **own)
        return losses.detach().mean()

    def _step(self, batches: Sequence[Any], *indices: Any) -> Any:
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
            if isinstance(output, Mapping) and self.must_equal and len(output) > 1:
                raise CannotBatchError(f"training_step returns {', '.join(output)}")
            return output["loss"] if isinstance(output, Mapping) else output, logged

        state = torch.get_rng_state()
        function = vmap(grad_and_value(loss_of, has_aux=True), randomness="different")
        self._gradients, (losses, logged) = function(parameters, stacked)
        if not self._is_compared:
            self._is_compared = True
            if torch.equal(state, torch.get_rng_state()):
                self._compare(loss_of, parameters, batches[-1])
        reductions = {own.get("reduce_fx", "mean") for own in options.values()}
        if self.must_equal and not reductions <= {"mean", torch.mean}:
            raise CannotBatchError("a value is logged with another reduction than the mean")
        return losses, logged, options

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
            # An optimizer skips a parameter without a gradient, and not one with zeros.
            same = gradient is not None and torch.allclose(
                self._gradients[name][-1], gradient, rtol=1e-3, atol=1e-5
            )
            if not same:
                raise MisconfigurationException(
                    f"batched=True: the gradient of {name} differs from that of one agent alone, "
                    "so training_step depends on more than weights and batch; set batched=False"
                )


def batched_agents(
    choice: bool | None, module: LightningModule, optimizer: Any, rows: AgentSwitcher
) -> BatchedAgents | None:
    """Return batched steps if ``choice`` requires them, or leaves it open and they pay.

    Raises:
        MisconfigurationException: Batched steps are required, and a feature prevents them.
    """
    pays = choice is not False and (choice or _pays(module))
    found = _what_prevents(module.trainer, module, optimizer) if pays else None
    if found and choice:
        raise MisconfigurationException(
            f"batched=True does not support {found}: set batched=False, which runs the agents one "
            "after the other"
        )
    return BatchedAgents(module, rows, must_equal=not choice) if pays and not found else None


def _pays(module: LightningModule) -> bool:
    """Whether batched steps are faster: for small networks without convolutions."""
    convolutions = (part for part in module.modules() if isinstance(part, _ConvNd))
    size = sum(parameter.numel() for parameter in module.parameters())
    return size <= _MOST_PARAMETERS and next(convolutions, None) is None


def _what_prevents(trainer: Trainer, module: LightningModule, optimizer: Any) -> str | None:
    """Name a feature that a batched step would not reproduce, or None."""
    plain_precision = of_root(trainer, "plugins.precision.Precision")
    reasons = {
        f"buffers ({', '.join(name for name, _ in module.named_buffers())})": any(
            True for _ in module.buffers()
        ),
        f"the optimizer {type(optimizer).__name__}; supported are SGD, Adam and AdamW": type(
            optimizer
        )
        not in _OPTIMIZERS,
        "gradient_clip_val": bool(trainer.gradient_clip_val),
        f"precision={trainer.precision}": type(trainer.precision_plugin) is not plain_precision,
        "a callback that repeats or changes training steps": has_wrapped_closures(trainer),
    }
    for name in _METHODS:
        reasons[f"{type(module).__name__}.{name}"] = _is_overridden(name, module)
    for callback in callbacks_of(trainer):
        for name in _HOOKS:
            reasons[f"{type(callback).__name__}.{name}"] = _is_overridden(name, callback)
    return next((reason for reason, is_used in reasons.items() if is_used), None)


class CannotBatchError(Exception):
    """A training step cannot run for all agents at once."""


def _attributes(module: LightningModule) -> list[Any]:
    """Return the identities and versions of what a training step may change in the module.

    Of the classes, these are the attributes of the caller's own ones.
    """
    ignored = set(vars(LightningModule()))
    parts = list(module.modules())
    classes = dict.fromkeys(base for part in parts for base in type(part).__mro__)
    own = [base for base in classes if base.__module__.partition(".")[0] not in _FRAMEWORKS]
    return [
        (name, _state(value, 0))
        for part in [*parts, *own]
        for name, value in vars(part).items()
        if name not in ignored and not name.startswith("__")
    ]


def _state(value: Any, depth: int) -> Any:
    if isinstance(value, Tensor):
        return id(value), value._version
    if depth > _DEEPEST:
        return id(value)
    if isinstance(value, dict):
        return id(value), [(key, _state(one, depth + 1)) for key, one in value.items()]
    if isinstance(value, list | tuple | deque):
        return id(value), [_state(one, depth + 1) for one in value]
    if isinstance(value, bool | int | float | str):
        return value
    owner = type(value).__module__.partition(".")[0]
    if owner in _FRAMEWORKS or isinstance(value, type) or not hasattr(value, "__dict__"):
        return id(value)
    return id(value), _state(vars(value), depth + 1)


def _is_overridden(name: str, instance: Any) -> bool:
    return of_root(instance, "utilities.model_helpers.is_overridden")(name, instance)


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
