"""Next-item recommendation as a LightningModule."""

from collections.abc import Mapping
from typing import Any, get_args

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_plugins.checkpoints import CheckedLoading
from lightning_plugins.metrics.ranking import MRR, NDCG, HitRate, target_ranks
from lightning_plugins.nn.recommendation import GRU4Rec, InfluentialNetwork, ItemNetwork, SASRec
from lightning_plugins.nn.recommendation.item_network import NetworkName
from lightning_plugins.optimizers import configure_optimizers

Batch = Mapping[str, Tensor]
_METRICS = {"hit_rate": HitRate, "ndcg": NDCG, "mrr": MRR}


class SequentialRecommender(CheckedLoading, LightningModule):
    """SASRec, GRU4Rec or IRN with the full softmax, evaluated by full ranking.

    Training batches are dictionaries with ``items``, int64 ``(batch, max_length + 1)``, and for IRN
    with ``user``; evaluation batches have ``history``, ``seen`` and ``target``, as in
    ``InteractionDataModule``. Items that the user has
    seen are not ranked. The metrics use no sampled negatives, and training uses none by default.

    Logged: ``train/loss`` in nats; ``val/hit_rate@K``, ``val/ndcg@K``, ``val/mrr@K`` for each K of
    ``top_k``; the same for ``test``.

    Source: Kang and McAuley, arXiv 1808.09781 (SASRec); Hidasi et al., arXiv 1511.06939 (GRU4Rec);
    training with the full softmax as in Klenitskiy and Vasilev, arXiv 2309.07602.

    Args:
        num_items: Number of items; None takes it from the DataModule.
        network: ``sasrec``, ``gru4rec`` or ``irn``. Planners give ``irn`` an objective; here it is
            evaluated without one.
        dim: Size of item embeddings and states.
        layers: Number of attention blocks or recurrent layers.
        heads: Number of attention heads; unused for ``gru4rec``.
        max_length: Maximum length of a history that the network sees.
        dropout: Dropout probability, in [0, 1).
        top_k: Lengths of the evaluated lists.
        num_users: For ``irn``, the number of users, each with a weight of the objective; None takes
            it from the DataModule, and gives all users the same weight without one.
        negatives: Number of sampled items for the training loss, for catalogues of 100 000 items;
            None uses the full softmax, which the evaluators of paths require.
        optimizer: Builds the optimizer from named parameters.
        lr_scheduler: Builds the schedule from the optimizer.

    Raises:
        ValueError: An argument is out of range, or the data has another number of items or another
            history length.

    Example::

        model = SequentialRecommender(network="sasrec")
        Trainer(max_epochs=20).fit(model, datamodule=InteractionDataModule())
    """

    def __init__(
        self,
        num_items: int | None = None,
        network: NetworkName = "sasrec",
        dim: int = 64,
        layers: int = 2,
        heads: int = 2,
        max_length: int = 50,
        dropout: float = 0.3,
        top_k: tuple[int, ...] = (10,),
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=2e-3),
        lr_scheduler: LRSchedulerCallable | None = None,
        negatives: int | None = None,
        num_users: int | None = None,
    ) -> None:
        super().__init__()
        if network not in get_args(NetworkName):
            allowed = ", ".join(get_args(NetworkName))
            raise ValueError(f"network={network!r}: expected one of {allowed}")
        if num_items is not None and num_items < 1:
            raise ValueError(f"num_items={num_items}: expected at least 1")
        if num_users is not None and num_users < 1:
            raise ValueError(f"num_users={num_users}: expected at least 1, or None")
        if negatives is not None and negatives < 1:
            raise ValueError(f"negatives={negatives}: expected at least 1, or None")
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self.network: ItemNetwork | None = None
        self.val_metrics = _metrics(top_k)
        self.test_metrics = _metrics(top_k)
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler
        # Raises errors for invalid sizes now; the meta device allocates no memory.
        with torch.device("meta"):
            self._build(num_items or 1)

    def setup(self, stage: str) -> None:
        """Take the sizes from the data, or raise an error if the data does not match."""
        datamodule = getattr(self.trainer, "datamodule", None)
        names = ["num_items", "max_length"]
        learns_users = self.network is None or self.hparams["num_users"] is not None
        if self.hparams["network"] == "irn" and stage == "fit" and learns_users:
            names.append("num_users")
        for name in names:
            given = getattr(datamodule, name, None)
            if given is None:
                continue
            if self.hparams[name] is None:
                self.hparams[name] = given
            elif self.hparams[name] != given:
                raise ValueError(
                    f"{name}={self.hparams[name]}: {type(datamodule).__name__} has {given}; set "
                    f"the model's {name} to {given}"
                )

    def configure_model(self) -> None:
        """Create the network on the first call."""
        if self.network is not None:
            return
        if self.hparams["num_items"] is None:
            raise ValueError(
                "num_items=None: the DataModule has no num_items attribute; set num_items"
            )
        # In this module's mode: after eval(), the network must not apply dropout.
        self.network = self._build(self.hparams["num_items"]).train(self.training)
        self.network.negatives = self.hparams["negatives"]

    def forward(self, items: Tensor) -> Tensor:
        """Return logits ``(batch, num_items + 1)`` of the item after ``items`` ``(batch, length)``.

        Histories are padded with zeros at the end; of longer histories, the latest ``max_length``
        items are used. Column 0 is padding and has minus infinity.
        """
        assert self.network is not None, "call configure_model() first, as a Trainer does"
        return self.network(items)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean cross-entropy of all items except the first of each window."""
        assert self.network is not None
        if isinstance(self.network, InfluentialNetwork):
            loss = self.network.loss(batch["items"], batch["user"] + 1)
        else:
            loss = self.network.loss(batch["items"])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["items"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Rank the validation items."""
        self._evaluate("val", self.val_metrics, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Rank the test items."""
        self._evaluate("test", self.test_metrics, batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the ``max(top_k)`` unseen items with the highest scores, int64 ``(batch, k)``.

        If a user has fewer unseen items, 0 fills up the row, and a warning gives the number of such
        users.
        """
        k = min(max(self.hparams["top_k"]), self.hparams["num_items"])
        best = self.scores_of_unseen(batch).topk(k)
        is_left = best.values > -torch.inf
        short = int((~is_left).any(dim=1).sum())
        if short:
            rank_zero_warn(
                f"{short} of {len(is_left)} users of a batch have fewer than {k} unseen items: "
                "their lists are shorter, filled up with item number 0"
            )
        return best.indices.masked_fill(~is_left, 0)

    def scores_of_unseen(self, batch: Batch) -> Tensor:
        """Return logits ``(batch, num_items + 1)``, with minus infinity for ``seen`` items."""
        return self(batch["history"]).scatter(1, batch["seen"], -torch.inf)

    def configure_optimizers(self) -> Any:
        """Create the optimizer, and its schedule with the interval that it requires."""
        return configure_optimizers(self, self._optimizer, self._lr_scheduler)

    def _build(self, num_items: int) -> ItemNetwork:
        names = ("dim", "layers", "max_length", "dropout")
        settings = {name: self.hparams[name] for name in names}
        if self.hparams["network"] == "gru4rec":
            return GRU4Rec(num_items, **settings)
        settings["heads"] = self.hparams["heads"]
        if self.hparams["network"] == "irn":
            return InfluentialNetwork(num_items, **settings, num_users=self.hparams["num_users"])
        return SASRec(num_items, **settings)

    def _evaluate(self, stage: str, metrics: nn.ModuleDict, batch: Batch) -> None:
        ranks = target_ranks(self.scores_of_unseen(batch), batch["target"])
        for name, metric in metrics.items():
            assert isinstance(metric, Metric)
            metric.update(ranks)
            self.log(f"{stage}/{name}", metric, prog_bar="ndcg" in name)


def _metrics(top_k: tuple[int, ...]) -> nn.ModuleDict:
    return nn.ModuleDict({f"{name}@{k}": cls(k) for k in top_k for name, cls in _METRICS.items()})
