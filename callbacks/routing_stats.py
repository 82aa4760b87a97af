"""Measures how a mixture of experts distributes the validation samples over its experts."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_plugins.callbacks.measured_curves import MeasuredCurves, log_picture
from lightning_plugins.callbacks.unsupported_strategies import refuse_sharded
from lightning_plugins.nn.moe.routing import Routing
from lightning_plugins.nn.moe.routing_statistics import (
    expert_load,
    load_entropy,
    num_unique_paths,
    paths_of,
    routing_accuracy,
)
from lightning_plugins.nn.shards import has_shards
from lightning_plugins.reports.run_pictures import Picture, curve_picture, domain_map_picture

_MOST_TOKENS = 20_000


class RoutingStats(MeasuredCurves):
    """Measures in each validation to which experts the gates send the validation samples.

    It calls the module's ``routings(batch)``, which returns one
    :class:`lightning_plugins.nn.moe.Routing` per layer with a gate. This is an additional forward
    pass without gradient. It measures batches of the first process until they contain 20 000
    tokens. If a sample is a single token, these are samples.

    For layer l, counted from 0, logs ``routing/entropy_l``, the entropy of the load over experts as
    a share of its largest value, and ``routing/max_load_l``, the largest share of an expert times
    the number of experts (1 means balance). If the layer has a capacity, ``routing/dropped_l`` is
    the share of dropped assignments. ``routing/unique_paths`` is the number of different sequences
    of first choices. If the DataModule has ``regions(inputs)``, the true region of each input, logs
    ``routing/accuracy``: the share of samples whose path is the one matched to their region. The
    matching is one to one and does not depend on the order of the experts.

    At the end of the run, the picture ``routing`` shows these values over the steps. If the
    DataModule has ``chart(inputs)``, two coordinates of each input, the picture ``routing_domain``
    shows the paths over the domain. The pictures are sent to the loggers that accept pictures, or
    else written to the log folder.

    Source: routing paths as in Wang and E, arXiv 2505.24205, section 5; load as in Fedus et al.,
    arXiv 2101.03961, section 2.2.

    Raises:
        MisconfigurationException: The module has no method ``routings`` or no gate, or the strategy
            is FSDP (version 1) or DeepSpeed.

    Example::

        trainer = Trainer(callbacks=[RoutingStats()])
        trainer.fit(MoERegressor(16), datamodule=ManifoldDataModule())
    """

    def __init__(self) -> None:
        super().__init__()
        self._routings: list[list[Routing]] = []
        self._inputs: list[Tensor] = []
        self._num_seen = 0
        self._last: tuple[Tensor, Tensor] | None = None

    def check(self, trainer: Trainer) -> None:
        """Refuse an unsupported Trainer before data is prepared."""
        refuse_sharded(trainer, self, supports=("fsdp2", "tp"))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse unsupported configurations, and start new curves for a new run."""
        self.check(trainer)
        if not callable(getattr(pl_module, "routings", None)):
            raise MisconfigurationException(
                f"RoutingStats needs {type(pl_module).__name__}.routings(batch), which returns one "
                "lightning_plugins.nn.moe.Routing per layer with a gate"
            )
        super().setup(trainer, pl_module, stage)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the routing of the batch."""
        if trainer.sanity_checking:
            return
        is_needed = self._num_seen < _MOST_TOKENS
        if has_shards(pl_module):
            # The pass communicates, so every rank runs it, or none.
            is_needed = trainer.strategy.reduce_boolean_decision(is_needed)
        elif not trainer.is_global_zero:
            return
        if not is_needed:
            return
        routings = pl_module.routings(batch)  # type: ignore[operator]
        if not routings:
            raise MisconfigurationException(
                f"RoutingStats has nothing to measure: {type(pl_module).__name__} has no gate"
            )
        self._num_seen += len(routings[0].experts)
        if not trainer.is_global_zero:
            return
        self._routings.append(routings)
        inputs = batch[0] if isinstance(batch, list | tuple) else batch
        if isinstance(inputs, Tensor):
            self._inputs.append(inputs.detach().cpu())

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute and log the statistics."""
        if trainer.sanity_checking:
            return
        measured: dict[str, float] | None = None
        if trainer.is_global_zero:
            measured = self._measured(trainer)
        # On every rank, because each rank checks what ModelCheckpoint monitors.
        measured = trainer.strategy.broadcast(measured)
        self._routings, self._inputs, self._num_seen = [], [], 0
        for name, value in (measured or {}).items():
            pl_module.log(f"routing/{name}", value, rank_zero_only=False)
        if trainer.state.fn == "fit" and measured:
            self._append(trainer.global_step, measured)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the curves and the map."""
        last, self._last = self._last, None
        if not self.steps:
            return
        log_picture(trainer, "routing", lambda: curve_picture(self.steps, self.values, {}))
        log_picture(trainer, "routing_domain", lambda: self._domain_map(trainer, last))

    def _measured(self, trainer: Trainer) -> dict[str, float]:
        layers = [_joined(parts) for parts in zip(*self._routings, strict=True)]
        paths = paths_of(layers)
        values: dict[str, float] = {}
        for place, routing in enumerate(layers):
            values[f"entropy_{place}"] = float(load_entropy(routing))
            values[f"max_load_{place}"] = float(expert_load(routing).max() * routing.num_experts)
            if routing.dropped is not None:
                values[f"dropped_{place}"] = float(routing.dropped.float().mean())
        values["unique_paths"] = float(num_unique_paths(paths))
        if self._inputs:
            inputs = torch.cat(self._inputs)
            self._last = inputs, paths
            regions_of = getattr(trainer.datamodule, "regions", None)  # type: ignore[attr-defined]
            regions = None if regions_of is None else regions_of(inputs)
            if regions is not None:
                try:
                    values["accuracy"] = routing_accuracy(paths, regions)
                except ImportError as error:
                    rank_zero_warn(f"routing/accuracy was not measured: {error}")
        return values

    def _domain_map(self, trainer: Trainer, last: tuple[Tensor, Tensor] | None) -> Picture | None:
        chart = getattr(trainer.datamodule, "chart", None)  # type: ignore[attr-defined]
        if chart is None or last is None:
            return None
        inputs, paths = last
        names, piece = paths.unique(dim=0, return_inverse=True)
        title = f"{len(names)} paths at step {self.steps[-1]}"
        return domain_map_picture(chart(inputs).numpy(), piece.numpy(), title)


def _joined(parts: tuple[Routing, ...]) -> Routing:
    """Concatenate the routing of consecutive batches on the CPU."""
    has_capacity = all(part.dropped is not None for part in parts)
    dropped = [part.dropped.cpu() for part in parts if part.dropped is not None]
    return Routing(
        torch.cat([part.logits.cpu() for part in parts]),
        torch.cat([part.experts.cpu() for part in parts]),
        torch.cat([part.weights.cpu() for part in parts]),
        torch.cat(dropped) if has_capacity else None,
    )
