"""Zero-shot criteria of AI-generated text, and their calibration to a probability."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

CRITERIA = (
    "log_likelihood",
    "rank",
    "log_rank",
    "entropy",
    "gltr_10",
    "gltr_100",
    "gltr_1000",
    "gltr_rest",
    "fast_detect_gpt",
    "lrr",
    "binoculars",
)
_GLTR_BOUNDS = (0, 10, 100, 1000, None)


@torch.no_grad()
def token_criteria(
    logits: Tensor, targets: Tensor, mask: Tensor, reference: Tensor | None = None
) -> Tensor:
    r"""Compute the criteria of each text, in the order of ``CRITERIA``.

    :math:`p_t` is the scoring model's distribution of token :math:`x_t` given the tokens before it,
    and :math:`q_t` that of the reference model, or :math:`p_t` without one.

    - ``log_likelihood``: mean of :math:`\log p_t(x_t)`;
    - ``rank`` and ``log_rank``: mean of the rank of :math:`x_t` among all tokens (1 is the most
      probable), and of the logarithm of the rank;
    - ``entropy``: mean entropy of :math:`p_t`;
    - ``gltr_…``: shares of the tokens with rank 1 to 10, 11 to 100, 101 to 1000, and above
      (Gehrmann et al., GLTR, arXiv 1906.04043);
    - ``fast_detect_gpt``: :math:`\sum_t (\log p_t(x_t) - \mu_t) / \sqrt{\sum_t \sigma_t^2}`, where
      :math:`\mu_t` and :math:`\sigma_t^2` are the mean and variance of :math:`\log p_t` under
      :math:`q_t`. This is the analytic conditional probability curvature of Bao et al.,
      Fast-DetectGPT, arXiv 2310.05130;
    - ``lrr``: the mean of :math:`-\log p_t(x_t)` over the mean of the logarithm of the rank (Su et
      al., DetectLLM, arXiv 2306.05540); 0 if all ranks are 1;
    - ``binoculars``: the mean of :math:`-\log p_t(x_t)` over the mean of
      :math:`-\sum_x q_t(x) \log p_t(x)`: perplexity over cross-perplexity of Hans et al.,
      Binoculars, arXiv 2401.12070. The scoring model is their performer and the reference their
      observer, as in their code; both means are over the predicted tokens.

    Args:
        logits: ``(batch, length, vocab_size)``.
        targets: int64 ``(batch, length)``, the next token at each position.
        mask: ``(batch, length)``, 1 at tokens and 0 at padding. The criteria of a text without
            tokens are 0.
        reference: Logits of the reference model for the same tokens, of the shape of ``logits``.

    Returns:
        float32 ``(batch, len(CRITERIA))``.

    Raises:
        ValueError: ``reference`` has another shape than ``logits``.
    """
    if reference is not None and reference.shape != logits.shape:
        raise ValueError(
            f"reference of shape {tuple(reference.shape)}: expected {tuple(logits.shape)}; both "
            "models must have the same tokens"
        )
    mask = mask.float()
    log_probabilities = logits.float().log_softmax(dim=-1)
    probabilities = log_probabilities.exp()
    own_mean = _weighted(probabilities, log_probabilities).sum(dim=-1)
    if reference is not None:
        probabilities = reference.float().softmax(dim=-1)
    weighted = _weighted(probabilities, log_probabilities)
    mean = weighted.sum(dim=-1)
    square = _weighted(weighted, log_probabilities).sum(dim=-1)
    variance = (square - mean.square()).clamp(min=0)
    of_target = log_probabilities.gather(-1, targets.unsqueeze(-1))
    rank = (log_probabilities > of_target).sum(dim=-1).float() + 1
    of_target = of_target.squeeze(-1)

    def averaged(values: Tensor) -> Tensor:
        return torch.where(mask > 0, values, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)

    shares = [
        averaged(((rank > (low or 0)) & (rank <= (high or float("inf")))).float())
        for low, high in pairwise(_GLTR_BOUNDS)
    ]
    surprise = torch.where(mask > 0, of_target - mean, 0.0).sum(dim=1)
    spread = torch.where(mask > 0, variance, 0.0).sum(dim=1).sqrt()
    curvature = torch.where(spread > 0, surprise / spread, 0.0)
    likelihood, mean_rank, log_rank, entropy, cross_entropy = (
        averaged(x) for x in (of_target, rank, rank.log(), -own_mean, -mean)
    )
    ratios = [_ratio(-likelihood, log_rank), _ratio(-likelihood, cross_entropy)]
    means = [likelihood, mean_rank, log_rank, entropy]
    return torch.stack([*means, *shares, curvature, *ratios], dim=1)


def _weighted(weights: Tensor, values: Tensor) -> Tensor:
    """Return the product; a weight of 0 gives 0, although 0 * -inf is NaN."""
    return torch.where(weights != 0, weights * values, 0.0)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator, 0.0)


def auroc(scores: Tensor, labels: Tensor) -> float:
    """Return the share of pairs of a positive and a negative in which the positive is higher."""
    positives, negatives = scores[labels == 1], scores[labels == 0].sort().values
    below = torch.searchsorted(negatives, positives)
    not_above = torch.searchsorted(negatives, positives, right=True)
    return float((below + not_above).double().mean() / (2 * len(negatives)))


class LogisticCalibration:
    """Logistic regression from features to the probability of AI.

    The features are standardised. The objective is the sum of the cross-entropies plus half the
    squared norm of the weights without the bias. It is strictly convex, and Newton's method in
    float64 solves it to machine precision.

    Args:
        features: ``(texts, features)``.
        labels: ``(texts,)`` of 0 and 1, each at least once.

    Raises:
        ValueError: All labels are equal, or a feature is not finite.
    """

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        features, labels = features.double(), labels.double()
        if not (0 < labels.sum() < len(labels)):
            raise ValueError("all labels are of one class: expected human and AI texts")
        if not features.isfinite().all():
            raise ValueError("features: expected finite values, got NaN or infinity")
        self._mean = features.mean(dim=0)
        spread = features.std(dim=0, correction=0)
        self._spread = torch.where(spread > 0, spread, 1.0)  # a constant feature becomes 0
        inputs = self._inputs(features)
        penalty = torch.ones(inputs.shape[1], dtype=torch.float64)
        penalty[-1] = 0
        self._weights = torch.zeros(inputs.shape[1], dtype=torch.float64)
        for _ in range(100):
            probabilities = (inputs @ self._weights).sigmoid()
            gradient = inputs.T @ (probabilities - labels) + penalty * self._weights
            curvature = (inputs * (probabilities * (1 - probabilities)).unsqueeze(1)).T @ inputs
            step = torch.linalg.solve(curvature + penalty.diag(), gradient)
            self._weights = self._weights - step
            if step.norm() <= 1e-12 * (1 + self._weights.norm()):
                break

    @property
    def num_features(self) -> int:
        """Number of features of a text."""
        return len(self._mean)

    def state(self) -> dict[str, list[float]]:
        """Return the fitted numbers as plain data."""
        parts = {"mean": self._mean, "spread": self._spread, "weights": self._weights}
        return {name: part.tolist() for name, part in parts.items()}

    @classmethod
    def of_state(cls, state: Mapping[str, Sequence[float]]) -> "LogisticCalibration":
        """Return the calibration of a :meth:`state`.

        Raises:
            ValueError: The state lacks a part, has other numbers of features, or is not finite.
        """
        try:
            mean, spread, weights = (
                torch.tensor(state[name], dtype=torch.float64)
                for name in ("mean", "spread", "weights")
            )
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"not the state of a calibration: {error}") from error
        finite = all(x.ndim == 1 and x.isfinite().all() for x in (mean, spread, weights))
        if not finite or not len(mean) == len(spread) == len(weights) - 1 or (spread <= 0).any():
            raise ValueError("not the state of a calibration: expected finite numbers of features")
        found = cls.__new__(cls)
        found._mean, found._spread, found._weights = mean, spread, weights
        return found

    def __call__(self, features: Tensor) -> Tensor:
        """Return the probabilities of AI, float32 ``(texts,)``."""
        return (self._inputs(features.double()) @ self._weights).sigmoid().float()

    def _inputs(self, features: Tensor) -> Tensor:
        standard = (features - self._mean) / self._spread
        return torch.cat([standard, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
