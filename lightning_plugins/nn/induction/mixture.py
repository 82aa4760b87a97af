"""The six-parameter transformer of the mixed target, and its gradient flow in closed form."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_plugins.optional_packages import requires

FIRST_LAYER = ("p1", "w1")
SECOND_LAYER = ("p2", "v1", "k", "v2")


class MixtureTransformer(nn.Module):
    """Two attention layers on scalar tokens ``x_1 … x_L``, with one parameter for each matrix.

    ========= ============================================================================
    parameter meaning
    ========= ============================================================================
    ``p1``    decay rate of the first layer's head: ``x_{s-j}`` has weight ``e^{-p1 (j-1)}``
    ``w1``    value of the first layer: ``y_s = w1 Σ_j softmax_j(-p1 (j-1)) x_{s-j}``
    ``p2``    decay rate of the second layer's positional head
    ``v1``    value of the positional head: ``v1 Σ_s softmax_s(-p2 (L-1-s)) y_s``
    ``k``     query and key of the second layer's content head, which depends on ``k²``
    ``v2``    value of the content head: ``v2 Σ_s softmax_s(k² x_L y_s) x_s``
    ========= ============================================================================

    ``s`` runs over ``2 … L-1``. The positional head can learn the 4-gram. The content head can
    become an induction head once the first layer provides the previous token; it depends on ``k``
    and ``w1`` only through ``k² w1``. Position encoding (exclusive, as in ALiBi) and target follow
    Wang et al., arXiv 2410.11474.

    Args:
        sigma_init: Initial value of every parameter, > 0.

    Raises:
        ValueError: ``sigma_init`` is not positive.
    """

    p1: nn.Parameter
    w1: nn.Parameter
    p2: nn.Parameter
    v1: nn.Parameter
    k: nn.Parameter
    v2: nn.Parameter

    def __init__(self, sigma_init: float = 0.01) -> None:
        super().__init__()
        if not 0 < sigma_init < math.inf:
            raise ValueError(f"sigma_init={sigma_init}: expected a number above 0")
        for name in (*FIRST_LAYER, *SECOND_LAYER):
            self.register_parameter(name, nn.Parameter(torch.tensor(float(sigma_init))))

    @torch.no_grad()
    def idealize_first_layer(self) -> None:
        """Set the first layer to its limit: ``y_s = x_{s-1}``, exact in single precision."""
        self.p1.fill_(40.0)  # e^-40 is below half a unit in the last place of 1
        self.w1.fill_(1.0)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the 4-gram part and the induction part, each ``(batch,)``, for ``(batch, L)``.

        Raises:
            ValueError: There are fewer than 4 tokens.
        """
        length = tokens.shape[-1]
        if length < 4:
            raise ValueError(f"length={length}: expected at least 4 tokens, for x_{{L-2}}")
        previous = self.w1 * tokens @ forgetting_weights(self.p1, length).T
        past, last = slice(1, length - 1), tokens[:, -1:]
        distance = torch.arange(length - 3, -1, -1, device=tokens.device)
        by_place = torch.softmax(-self.p2 * distance, dim=0)
        by_content = torch.softmax(self.k**2 * last * previous[:, past], dim=-1)
        four_gram_part = self.v1 * previous[:, past] @ by_place
        return four_gram_part, self.v2 * (by_content * tokens[:, past]).sum(dim=-1)


def forgetting_weights(p: Tensor, length: int) -> Tensor:
    """Return attention ``(length, length)`` with weight ``e^{-p(j-1)}`` for the token ``j`` back.

    A token does not attend to itself, so the row of the first token is zero.
    """
    position = torch.arange(length, device=p.device)
    back = position[1:, None] - position
    logits = torch.where(back > 0, -p * (back - 1), -torch.inf)
    return nn.functional.pad(torch.softmax(logits, dim=-1), (0, 0, 1, 0))


Array = NDArray[np.float64]
LARGEST_W_STAR = 2**-0.25
"""From this value on, ``E exp(w*⁴ x²)`` of a standard normal ``x`` diverges and the induction loss
has no expansion in ``1/N``."""


@dataclass(frozen=True)
class Trajectory:
    """The flow at ``times``: the four parameters of the second layer and the two losses."""

    times: Array
    p2: Array
    v1: Array
    k: Array
    v2: Array
    four_gram_loss: Array
    induction_loss: Array


@dataclass(frozen=True)
class MixtureDynamics:
    """Gradient flow of the second layer with an ideal first layer (``y_s = x_{s-1}``).

    With ``N = L - 2``, ``c1 = α/(1+α)``, ``c2 = 1/(1+α)`` the loss ``½ E‖f - f*‖²`` on standard
    normal tokens is the sum of

    * the 4-gram loss ``½ (c1² - 2 c1 v1 a + v1² S)`` with ``a = (1-u)/(1-u^N)``,
      ``S = (1-u)/(1+u)·(1+u^N)/(1-u^N)``, ``u = e^{-p2}``: exact for every ``N``;
    * the induction loss
      ``1/(2N)·[c2² (1-2w*⁴)^{-½} - 2 c2 v2 (1-2k²w*²)^{-½} + v2² (1-2k⁴)^{-½}]``: to leading order
      in ``1/N``, for ``w* < 2^{-¼} ≈ 0.841``.

    Both are our own derivations for the setting of Wang et al. (arXiv 2410.11474); tests compare
    them with Monte Carlo estimates and finite differences. Time is the learning rate times the
    number of steps of plain gradient descent.

    Args:
        length: Tokens per sequence, ``L``; at least 4.
        alpha: ``α*``, weight of the 4-gram relative to the induction part, > 0.
        w_star: ``w*`` of the target, in (0, 2^{-¼}).

    Raises:
        ValueError: An argument is outside its range.
    """

    length: int
    alpha: float
    w_star: float

    def __post_init__(self) -> None:
        if self.length < 4:
            raise ValueError(f"length={self.length}: expected at least 4 tokens")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha={self.alpha}: expected a number above 0")
        if not 0 < self.w_star < LARGEST_W_STAR:
            raise ValueError(
                f"w_star={self.w_star}: the closed form of the induction loss holds for "
                f"0 < w_star < 2**-0.25 = {LARGEST_W_STAR:.4f}; reduce w_star, or "
                "train without the reference"
            )

    @property
    def num_sources(self) -> int:
        """``N``, the number of tokens that the second layer can read."""
        return self.length - 2

    @cached_property
    def weights(self) -> tuple[float, float]:
        """``c1`` and ``c2``, the weights of the 4-gram and of the induction part in the target."""
        return self.alpha / (1 + self.alpha), 1 / (1 + self.alpha)

    def four_gram_loss(self, p2: Any, v1: Any) -> Any:
        """Compute the population loss of the positional head; arrays or numbers, ``p2 > 0``."""
        c1, _ = self.weights
        a, s, _, _ = self._positional_moments(np.asarray(p2, np.float64))
        return 0.5 * (c1**2 - 2 * c1 * v1 * a + v1**2 * s)

    def induction_loss(self, k: Any, v2: Any) -> Any:
        """Compute the leading order in ``1/N`` of the content head's loss; ``k < 2^{-¼}``."""
        _, c2 = self.weights
        w = self.w_star
        inside = (
            c2**2 * (1 - 2 * w**4) ** -0.5
            - 2 * c2 * v2 * (1 - 2 * k**2 * w**2) ** -0.5
            + v2**2 * (1 - 2 * k**4) ** -0.5
        )
        return inside / (2 * self.num_sources)

    def flow(self, p2: float, v1: float, k: float, v2: float) -> tuple[float, float, float, float]:
        """Compute the negative gradient of the total loss with respect to ``p2, v1, k, v2``."""
        c1, c2 = self.weights
        w, n = self.w_star, self.num_sources
        a, s, a_slope, s_slope = self._positional_moments(np.asarray(p2, np.float64))
        cross, own = 1 - 2 * k**2 * w**2, 1 - 2 * k**4
        return (
            float(c1 * v1 * a_slope - 0.5 * v1**2 * s_slope),
            float(c1 * a - v1 * s),
            (2 * c2 * v2 * k * w**2 * cross**-1.5 - 2 * v2**2 * k**3 * own**-1.5) / n,
            (c2 * cross**-0.5 - v2 * own**-0.5) / n,
        )

    def solve(self, times: "Sequence[float] | Array", sigma_init: float) -> Trajectory:
        """Solve the flow at ``times`` from ``p2 = v1 = k = v2 = sigma_init`` at time 0.

        Args:
            times: Nondecreasing times from 0, in float64 or as Python numbers.
            sigma_init: Initial value, > 0 and below ``w*``.

        Raises:
            ValueError: An argument is outside its range, or the times are in half precision, which
                does not resolve the emergence.
            ImportError: scipy is missing.
        """
        with requires("scipy", by="the reference solution", extra="report"):
            from scipy.integrate import solve_ivp  # type: ignore[import-untyped]
        if not 0 < sigma_init < self.w_star:
            raise ValueError(f"sigma_init={sigma_init}: expected above 0, below w_star")
        dtype = str(getattr(times, "dtype", "float64"))
        if dtype.endswith("float16"):
            raise ValueError(f"times of dtype {dtype}: expected float64")
        grid = np.asarray(times, np.float64)
        if grid.ndim != 1 or not len(grid) or grid[0] < 0 or (np.diff(grid) < 0).any():
            raise ValueError("times: expected nondecreasing numbers from 0")
        solution = solve_ivp(
            lambda _, state: self.flow(*state),
            (0.0, max(float(grid[-1]), 1e-12)),
            [sigma_init] * 4,
            method="LSODA",  # the flow is stiff: fast at first, slow afterwards
            t_eval=grid,
            rtol=1e-9,
            atol=1e-12,
        )
        if not solution.success:
            raise RuntimeError(f"the flow could not be solved: {solution.message}")
        p2, v1, k, v2 = solution.y
        return Trajectory(
            grid, p2, v1, k, v2, self.four_gram_loss(p2, v1), self.induction_loss(k, v2)
        )

    def plateau_estimate(self, sigma_init: float) -> float:
        """Estimate the time until ``k = w*/2``, as if ``k`` grew at its initial rate.

        The estimate is ``N (1+α)²/(2 w*²) · ln(w*/(2σ))``, linear in the length and in
        ``log 1/σ``. Its ratio to the exact time tends to 1 as ``σ`` goes to 0. At σ = 0.01 the time
        until k² is half of w*² is 4.6 % longer at w* = .25 than this scale predicts from
        w* = .49, and 17 % shorter than ``log(1/σ)/w*²`` predicts.
        """
        _, c2 = self.weights
        rate = 2 * c2**2 * self.w_star**2 / self.num_sources
        return math.log(self.w_star / (2 * sigma_init)) / rate

    def _positional_moments(self, p: Array) -> tuple[Array, Array, Array, Array]:
        """Compute ``a``, ``S`` and their derivatives, without cancellation at small ``p2``."""
        n = self.num_sources
        one, all_ = -np.expm1(-p), -np.expm1(-n * p)  # 1 - u, 1 - u^N
        tanh, coth = np.tanh(p / 2), (2 - all_) / all_
        a = one / all_
        a_slope = (np.exp(-p) * all_ - n * np.exp(-n * p) * one) / all_**2
        s_slope = 0.5 * (1 - tanh**2) * coth - 2 * n * tanh * np.exp(-n * p) / all_**2
        return a, tanh * coth, a_slope, s_slope
