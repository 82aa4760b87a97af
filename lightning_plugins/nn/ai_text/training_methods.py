"""Five methods of training a detector that is robust to changes of the text."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from lightning_plugins.nn.ai_text.detector_network import (
    Noise,
    Output,
    ReconstructionNetwork,
    check_reconstruction,
)

Terms = dict[str, Tensor]


class Method:
    """Base class of the training methods, which are immutable data classes.

    Attributes:
        passes: Stochastic passes over each training batch.
        masked_share: Share of the words that is masked in training and in every noise draw.
    """

    passes: int = 1
    masked_share: float = 0.0

    def reconstruction(self, hidden_size: int) -> ReconstructionNetwork | None:
        """Build the network between encoder and head, if the method has one."""
        return None

    def loss(self, output: Output, labels: Tensor) -> Terms:
        """Return the objective as ``loss``, and its parts.

        Args:
            output: The output for ``passes`` concatenated copies of the batch.
            labels: ``(batch,)``.
        """
        raise NotImplementedError

    def combined(self, probabilities: Tensor) -> Tensor:
        """Combine the probabilities of all noise draws ``(draws, texts)`` to ``(texts,)``."""
        return probabilities.mean(dim=0)


@dataclass(frozen=True)
class Plain(Method):
    """Cross-entropy."""

    def loss(self, output: Output, labels: Tensor) -> Terms:
        """Return the cross-entropy."""
        return {"loss": cross_entropy(output.logits, labels)}


@dataclass(frozen=True)
class Flooding(Method):
    """Cross-entropy that is kept close to a level: ``|CE - level| + level``.

    Source: Ishida et al., arXiv 2002.08709.

    Args:
        level: Level in nats, at least 0.
    """

    level: float = 0.15

    def __post_init__(self) -> None:
        if not self.level >= 0:
            raise ValueError(f"level={self.level}: expected at least 0 nats")

    def loss(self, output: Output, labels: Tensor) -> Terms:
        """Return ``|CE - level| + level``."""
        classification = cross_entropy(output.logits, labels)
        loss = (classification - self.level).abs() + self.level
        return {"loss": loss, "classification_loss": classification}


@dataclass(frozen=True)
class RDrop(Method):
    """Two passes with different dropout, and a penalty on their Kullback-Leibler divergence.

    Source: Liang et al., arXiv 2106.14448; the loss is halved here, to have the scale of plain
    cross-entropy.

    Args:
        calibration_weight: Weight of the mean of the two divergences, at least 0.
    """

    passes = 2
    calibration_weight: float = 1.0

    def __post_init__(self) -> None:
        _check_weight("calibration_weight", self.calibration_weight)

    def loss(self, output: Output, labels: Tensor) -> Terms:
        """Return ``(CE_p + CE_q) / 2 + calibration_weight * (KL(p||q) + KL(q||p)) / 2``."""
        return _siamese(output.logits, labels, self.calibration_weight)


@dataclass(frozen=True)
class RanMask(Method):
    """Cross-entropy on texts with random masked words; masked copies vote on the label of a text.

    Source: Zeng et al., Certified Robustness to Text Adversarial Attacks by Randomized [MASK],
    arXiv 2105.03743.

    Args:
        masked_share: Share of masked words, in [0, 1).
        ensemble: ``vote`` returns the share of the copies with a probability of AI above 0.5,
            ``mean`` the mean probability.
    """

    masked_share: float = 0.3
    ensemble: Literal["vote", "mean"] = "vote"

    def __post_init__(self) -> None:
        if not 0 <= self.masked_share < 1:
            raise ValueError(f"masked_share={self.masked_share}: expected a share in [0, 1)")
        if self.ensemble not in ("vote", "mean"):
            raise ValueError(f"ensemble={self.ensemble!r}: expected 'vote' or 'mean'")

    def loss(self, output: Output, labels: Tensor) -> Terms:
        """Return the cross-entropy."""
        return {"loss": cross_entropy(output.logits, labels)}

    def combined(self, probabilities: Tensor) -> Tensor:
        """Combine the probabilities of masked copies ``(draws, texts)`` to ``(texts,)``.

        With one copy its probability is returned, since a single vote is 0 or 1.
        """
        if len(probabilities) > 1 and self.ensemble == "vote":
            probabilities = (probabilities > 0.5).to(probabilities.dtype)
        return probabilities.mean(dim=0)


@dataclass(frozen=True)
class SCRN(Method):
    """A siamese calibrated reconstruction network.

    Source: SCRN, arXiv 2406.01179. The paper's ablations are ``reconstruct=False``, which equals
    R-Drop with another weight, and ``calibration_weight=0``.

    Args:
        calibration_weight: Weight of the mean of the two divergences, at least 0.
        reconstruction_weight: Weight of the sum of the two reconstruction losses, at least 0.
        reconstruct: Classify noisy reconstructions; False omits the reconstruction network.
        latent_dim: See :class:`ReconstructionNetwork`.
        width: See :class:`ReconstructionNetwork`.
        beta: See :class:`ReconstructionNetwork`.
        noise: See :class:`ReconstructionNetwork`.
    """

    passes = 2
    calibration_weight: float = 0.5
    reconstruction_weight: float = 0.01
    reconstruct: bool = True
    latent_dim: int = 512
    width: int = 512
    beta: float = 0.5
    noise: Noise = "scalar"

    def __post_init__(self) -> None:
        _check_weight("calibration_weight", self.calibration_weight)
        _check_weight("reconstruction_weight", self.reconstruction_weight)
        check_reconstruction(self.latent_dim, self.width, self.beta, self.noise)

    def reconstruction(self, hidden_size: int) -> ReconstructionNetwork | None:
        """Build the reconstruction network, unless ``reconstruct`` is False."""
        if not self.reconstruct:
            return None
        return ReconstructionNetwork(
            hidden_size, self.latent_dim, self.width, self.beta, self.noise
        )

    def loss(self, output: Output, labels: Tensor) -> Terms:
        """Return the siamese loss plus ``reconstruction_weight * (rec_p + rec_q)``."""
        terms = _siamese(output.logits, labels, self.calibration_weight)
        if output.reconstruction_loss is not None:
            # Both passes have the same tokens, so their mean is half of their sum.
            terms["reconstruction_loss"] = output.reconstruction_loss
            terms["loss"] = (
                terms["loss"] + 2 * self.reconstruction_weight * output.reconstruction_loss
            )
        return terms


METHODS: dict[str, Callable[..., Method]] = {
    "plain": Plain,
    "flooding": Flooding,
    "r_drop": RDrop,
    "ranmask": RanMask,
    "scrn": SCRN,
}


def _siamese(logits: Tensor, labels: Tensor, weight: float) -> Terms:
    p, q = log_softmax(logits, dim=-1).chunk(2)
    classification = 0.5 * (cross_entropy(p, labels) + cross_entropy(q, labels))
    calibration = 0.5 * (_divergence(p, q) + _divergence(q, p))
    return {
        "loss": classification + weight * calibration,
        "classification_loss": classification,
        "calibration_loss": calibration,
    }


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return ``KL(p||q)``, averaged over the batch; kl_div takes the second distribution first."""
    return kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def _check_weight(name: str, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{name}={value}: expected at least 0")
