"""The weight of each agent in merges: equal, by samples, or by a logged value."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.data import extract_batch_size
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins._import_names import of_root
from lightning_plugins.strategies.peers import Peers


class MergeWeights:
    """Computes an agent's weight in the mean of all agents.

    Args:
        by: ``uniform``, ``samples``, or the name of a value that each agent logs.
    """

    def __init__(self, by: str) -> None:
        self.by = by
        self.samples = 0
        """Training samples that this agent has seen in the run."""
        self.counts = by == "samples"
        """Whether :meth:`count` counts."""
        self._warned = False

    def count(self, module: LightningModule, batch: Any) -> None:
        """Add the samples of a training batch.

        Raises:
            ValueError: The size of the batch cannot be found.
        """
        if not self.counts:
            return
        unknown = (
            MisconfigurationException,
            of_root(module.trainer, "utilities.exceptions.MisconfigurationException"),
        )
        try:
            self.samples += extract_batch_size(batch)
        except unknown as error:
            raise ValueError(
                "the batch has no tensor whose first dimension counts its samples, which weight "
                "the agents: return one, or set merge_weights='uniform' and every_n_steps"
            ) from error

    def own_of(self, module: LightningModule) -> float:
        """Return this agent's weight; NaN if it has not logged the value yet."""
        if self.by == "samples":
            return float(self.samples)
        return float(module.trainer.callback_metrics.get(self.by, math.nan))

    def factor(self, module: LightningModule, peers: Peers, kind: str) -> float:
        """Return this agent's weight divided by the mean of the agents' weights.

        A checkpoint or measurement before the first logged value is the uniform mean.

        Args:
            module: The agent's model.
            peers: The agents.
            kind: The ledger's kind of traffic; ``merge`` requires all weights.

        Raises:
            ValueError: A weight is missing, negative or infinite, or all are zero; raised on all
                agents.
        """
        if self.by == "uniform":
            return 1.0
        device = next(module.parameters()).device
        # float32, as MPS has no float64; samples above 2**24 are rounded by 6e-8
        own = torch.tensor([self.own_of(module)], device=device)
        if peers.inside is not None:
            own = peers.inside.reduce(own, "mean")  # its processes must agree
        of_all = [float(x) for x in peers.gather(own)]
        known = dict(zip(peers.agents, of_all, strict=True))
        missing = [agent for agent, weight in known.items() if math.isnan(weight)]
        if missing and kind != "merge":
            return 1.0
        shown = ", ".join(f"agent {agent}: {weight:g}" for agent, weight in known.items())
        if missing:
            raise ValueError(
                f"merge_weights={self.by!r}: agents {missing} have not logged a number of this "
                "name before the merge: log it in validation_step, and validate before the last "
                "step, or set merge_weights to 'samples' or 'uniform'"
            )
        if sum(of_all) <= 0 or any(x < 0 or math.isinf(x) for x in of_all):
            raise ValueError(
                f"merge_weights={self.by!r}: the weights are {shown}: expected numbers of at least "
                "0, not all 0; log a value that is higher for better agents, such as an accuracy"
            )
        if self.by != "samples" and len(set(of_all)) == 1 < len(of_all) and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"merge_weights={self.by!r}: all agents have the same value, {of_all[0]:g}, so the "
                "mean is uniform: log each agent's own value, as a number, without sync_dist=True"
            )
        return float(own) * len(of_all) / sum(of_all)
