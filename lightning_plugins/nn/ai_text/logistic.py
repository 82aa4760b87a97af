"""Logistic regression, which makes a probability of a detector's criteria."""

import torch
from torch import Tensor


class LogisticCalibration:
    """A probability of AI from features, by penalised maximum likelihood.

    Features are standardised first; what is minimised is the sum of the cross-entropies plus half
    the squared norm of the weights, not of the bias. It is solved by Newton's method in float64,
    to the machine's precision: the objective is strictly convex.

    Args:
        features: ``(texts, features)``.
        labels: ``(texts,)`` of 0 and 1, each at least once.

    Raises:
        ValueError: one class only, or features that are not finite.
    """

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        features, labels = features.double(), labels.double()
        if not (0 < labels.sum() < len(labels)):
            raise ValueError("labels are of one class: expected texts of people and of machines")
        if not features.isfinite().all():
            raise ValueError("features are not finite")
        self._mean = features.mean(dim=0)
        spread = features.std(dim=0, correction=0)
        self._spread = torch.where(spread > 0, spread, 1.0)  # a constant feature says nothing
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

    def __call__(self, features: Tensor) -> Tensor:
        """Probabilities of AI, float32 ``(texts,)``."""
        return (self._inputs(features.double()) @ self._weights).sigmoid().float()

    def _inputs(self, features: Tensor) -> Tensor:
        standard = (features - self._mean) / self._spread
        return torch.cat([standard, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
