"""Validation of the agents' mean during decentralized training."""

import copy
import inspect
from collections import deque
from contextlib import AbstractContextManager
from itertools import chain
from types import MethodType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.data import extract_batch_size
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torchmetrics import Metric

from lightning_plugins._lightning_compat.closures import step_arguments
from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.callbacks.unsupported_strategies import refuse_sharded
from lightning_plugins.nn.module_state import state_untouched
from lightning_plugins.nn.random_state import RandomState
from lightning_plugins.strategies.batch_norm import (
    normalizations,
    recalibrate,
    running_statistics,
)


class MergedEvaluation(PluginCallback):
    """Validates the model that a merge would produce, without changing training.

    During validation each agent makes a copy of the module, loads the mean of all agents' weights
    into it, and also runs its ``validation_step``, but no other hook. Lists that the step appends
    to belong to the copy. Batch normalization statistics are re-estimated for the merged weights on
    each agent's last training batches, and averaged. The ledger records the traffic as
    ``measurement``.

    For each value ``X`` that ``validation_step`` logs, the callback logs ``X_merged`` and
    ``X_local_mean`` (the mean over agents). It also logs ``mergeability_gap`` (merged minus local
    mean of ``metric``) and ``consensus_distance``, ``1/n sum_i ||x_i - x̄||^2``. All of them can be
    monitored. In the validation after the final merge the agents already have the merged weights,
    so the copy loads each agent's weights from just before the merge instead.

    The cost is one all-reduce of the weights, a copy of the module, and a second pass over the
    validation data, in one of every ``every_n_validations`` validations.

    Source: counterfactual merge, mergeability gap and consensus error as in the released code of
    Zhu et al., arXiv 2507.06542.

    Args:
        metric: A value that ``validation_step`` logs; its mergeability gap is logged.
        every_n_validations: Measure in one of this many validations.
        calibration_batches: Training batches to keep for batch normalization, if there is any.

    Raises:
        ValueError: An argument is outside its range, or ``metric`` is not logged.
        MisconfigurationException: The strategy has no agents.

    Example::

        callbacks = [MergedEvaluation("val/accuracy"), ModelCheckpoint(monitor="val/loss_merged")]
    """

    def __init__(
        self,
        metric: str = "val/accuracy",
        every_n_validations: int = 1,
        calibration_batches: int = 32,
    ) -> None:
        if every_n_validations < 1:
            raise ValueError(f"every_n_validations={every_n_validations}: expected at least 1")
        if calibration_batches < 1:
            raise ValueError(f"calibration_batches={calibration_batches}: expected at least 1")
        self.metric = metric
        self.every_n_validations = every_n_validations
        self._validations = 0
        self.calibration_batches = calibration_batches
        self._recent: list[tuple[Any, int]] = []
        self._copy: LightningModule | None = None
        self._weights: list[dict[str, Tensor]] = []
        self._is_merged = False
        self._logged: _Logged | None = None
        self._consensus_distance: Tensor | None = None
        self._measures = False

    def check(self, trainer: Trainer) -> None:
        """Refuse a Trainer whose strategy has no agents before data is prepared."""
        if not hasattr(trainer.strategy, "merged_tensors"):
            raise MisconfigurationException(
                f"MergedEvaluation requires agents, but {type(trainer.strategy).__name__} has "
                "none: set strategy='decentralized'"
            )
        refuse_sharded(trainer, self)  # it evaluates a copy of the module

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the Trainer before training."""
        if stage == "fit":
            self.check(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch if the module has batch normalization."""
        if normalizations(pl_module):
            strategy: Any = trainer.strategy
            self._recent += [(own, batch_idx) for own in strategy.batches_of_agents(batch)]
            del self._recent[: -self.calibration_batches]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the module and load the agents' mean into the copy."""
        self._measures = False
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._measures = self._validations % self.every_n_validations == 0
        self._validations += 1
        if not self._measures:
            return
        strategy: Any = trainer.strategy
        self._logged = _Logged()
        # A new copy each time: an older one would hold outdated lists and attributes.
        copied = self._copy = copied_module(pl_module).requires_grad_(False)
        copied.trainer = trainer
        before_merge = strategy.weights_before_merge()
        self._is_merged = before_merge is not None
        if before_merge is not None:
            self._weights = before_merge
            squared = [_squared_distance(pl_module, weights) for weights in before_merge]
            distance = torch.stack(squared).mean()
            self._consensus_distance = strategy.reduce(distance, reduce_op="mean")
            _load(copied, self._weights[0])
        else:
            means = strategy.merged_tensors()
            self._weights = [means]
            self._consensus_distance = strategy.consensus_distance(means)
            _load(copied, means)
            with _shared_state_untouched(pl_module, copied):
                recalibrate(copied, self._recent)
            statistics = running_statistics(copied)
            for own, mean in zip(statistics, strategy.averaged(statistics), strict=True):
                own.copy_(mean)
        copied.eval()
        for part in copied.modules():
            if isinstance(part, Metric):
                part.reset()
                part.sync_on_compute = False  # values are averaged over agents at the end
        copied.__dict__["log"] = self._logged.log

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int | None = None,  # passed by Lightning if there are several
    ) -> None:
        """Run ``validation_step`` of the copy on the same batch."""
        if not self._measures:
            return
        assert self._copy is not None
        assert self._logged is not None
        of_loader = () if dataloader_idx is None else (dataloader_idx,)
        self._logged.begin(batch, "".join(f"/dataloader_idx_{index}" for index in of_loader))
        step = self._copy.validation_step
        arguments = step_arguments(step, batch, batch_idx, *of_loader)
        random_state = RandomState.capture()
        with _shared_state_untouched(pl_module, self._copy):
            for weights in self._weights:
                if len(self._weights) > 1:
                    _load(self._copy, weights)
                with trainer.precision_plugin.val_step_context():
                    step(*arguments)
        random_state.restore()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the values of the merged model and the means over agents."""
        if not self._measures:
            return
        assert self._copy is not None
        assert self._consensus_distance is not None
        assert self._logged is not None
        logged_values = self._logged.values()
        self._copy, self._weights = None, []
        if self.metric not in logged_values:
            raise ValueError(
                f"metric={self.metric!r}: validation_step logs {', '.join(sorted(logged_values))}; "
                "choose one of these"
            )
        metrics: dict[str, Tensor] = {}
        for name, value in logged_values.items():
            values = (trainer.callback_metrics[name].detach().clone().float(), value)
            own, other = (trainer.strategy.reduce(one, reduce_op="mean") for one in values)
            merged, local = (own, other) if self._is_merged else (other, own)
            metrics |= {f"{name}_merged": merged, f"{name}_local_mean": local}
        gap = metrics[f"{self.metric}_merged"] - metrics[f"{self.metric}_local_mean"]
        metrics |= {"mergeability_gap": gap, "consensus_distance": self._consensus_distance}
        # Too late for self.log, and early enough for callbacks that monitor.
        trainer.callback_metrics.update(metrics)
        for logger in trainer.loggers:
            logger.log_metrics(
                {name: float(value) for name, value in metrics.items()},
                step=trainer.global_step,
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the copy."""
        self._copy, self._weights = None, []
        self._recent.clear()


def _shared_state_untouched(
    module: LightningModule, copied: LightningModule
) -> AbstractContextManager[None]:
    """Restore the tensors and objects that ``module`` shares with its copy after a step of it."""
    own = chain(module.parameters(), module.buffers(), copied.parameters(), copied.buffers())
    return state_untouched(module, leave=own)


@torch.no_grad()
def _load(module: LightningModule, weights: dict[str, Tensor]) -> None:
    places = dict(module.named_parameters()) | dict(module.named_buffers())
    for name, value in weights.items():
        places[name].copy_(value)


@torch.no_grad()
def _squared_distance(module: LightningModule, weights: dict[str, Tensor]) -> Tensor:
    """Compute the squared distance of the parameters of ``module`` from ``weights``."""
    pairs = [(own, weights[name]) for name, own in module.named_parameters() if name in weights]
    squares = [(own.double() - other.double()).square().sum() for own, other in pairs]
    return torch.stack(squares).sum()


_COMBINE = {"max": torch.maximum, "min": torch.minimum}
_SIGNATURE_OF_LOG = inspect.signature(LightningModule.log)


class _Logged:
    """Reduces the values that a ``validation_step`` logs over batches, as Lightning does."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, float]] = {}
        self._combined: dict[str, Tensor] = {}
        self._metrics: dict[str, Metric] = {}
        self._batch: Any = None
        self._suffix = ""

    def begin(self, batch: Any, suffix: str) -> None:
        """Begin a batch; ``suffix`` identifies the loader if there are several."""
        self._batch, self._suffix = batch, suffix

    def log(self, *arguments: Any, **options: Any) -> None:
        """Replace ``LightningModule.log``; takes the same arguments."""
        bound = _SIGNATURE_OF_LOG.bind(None, *arguments, **options)
        bound.apply_defaults()
        given = bound.arguments
        name, value = given["name"], given["value"]
        if given["add_dataloader_idx"]:
            name += self._suffix
        if isinstance(value, Metric):
            self._metrics[name] = value
            return
        value = torch.as_tensor(value).detach().float()
        reduce_fx = given["reduce_fx"]  # a name, or torch's or Python's function of that name
        reduction = getattr(reduce_fx, "__name__", reduce_fx).lower()
        if combine := _COMBINE.get(reduction):
            self._combined[name] = combine(self._combined.get(name, value), value)
            return
        size = float(given["batch_size"] or extract_batch_size(self._batch))
        added = value * size
        total, weight = self._sums.get(name, (torch.zeros_like(added), 0.0))
        self._sums[name] = (total + added, weight + size)

    def values(self) -> dict[str, Tensor]:
        """Return each logged value, reduced over the validation."""
        means = {name: total / weight for name, (total, weight) in self._sums.items()}
        means |= self._combined
        return means | {name: metric.compute().float() for name, metric in self._metrics.items()}


_CONTAINERS = (list, dict, set, deque)


def copied_module(module: LightningModule) -> LightningModule:
    """Copy parameters, buffers, submodules and containers; other attributes are shared.

    Lists, dicts, sets and deques, also nested ones, are copied with the same contents, so that
    steps of the copy do not append to the module's. Where a container refers to a part of the
    module, the copied container refers to the part's copy.

    ``copy.deepcopy`` fails on modules created by LightningCLI, because their optimizer factories
    refer to the parser.
    """
    copied = copy.copy(module)
    # One memo for all, so that tied weights stay tied.
    memo: dict[int, Any] = {}
    for part in ("_parameters", "_buffers", "_modules"):
        copied.__dict__[part] = copy.deepcopy(module.__dict__[part], memo)
    memo[id(module)] = copied
    of_every_module = vars(LightningModule())  # hooks and other internals, which stay shared
    for name, value in list(copied.__dict__.items()):
        if name not in of_every_module or isinstance(value, MethodType):
            copied.__dict__[name] = _for_copy(value, memo)
    return copied


def _for_copy(value: Any, memo: dict[int, Any]) -> Any:
    """Return the copy's version of an attribute; ``memo`` maps ids of copied parts to copies."""
    if id(value) in memo:
        return memo[id(value)]
    # Bound methods, such as LightningCLI's configure_optimizers, are rebound to the copy.
    if isinstance(value, MethodType) and id(value.__self__) in memo:
        return MethodType(value.__func__, memo[id(value.__self__)])
    if not isinstance(value, _CONTAINERS):
        return value
    copied = memo[id(value)] = copy.copy(value)
    if isinstance(copied, dict):
        for key, one in copied.items():
            copied[key] = _for_copy(one, memo)
    elif isinstance(copied, list | deque):
        for place, one in enumerate(copied):
            copied[place] = _for_copy(one, memo)
    return copied
