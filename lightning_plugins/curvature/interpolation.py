"""Measures the loss along the line between two sets of weights."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lightning_plugins.nn.module_state import state_untouched

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Interpolation:
    """Mean losses at ``(1 - alpha) * a + alpha * b``.

    Attributes:
        alphas: The points on the line in ascending order; 0 is ``a``, 1 is ``b``.
        losses: The mean loss at each point.
        metrics: Name -> mean at each point, for example of ``accuracy``.
    """

    alphas: tuple[float, ...]
    losses: tuple[float, ...]
    metrics: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def barrier(self) -> float:
        """The largest rise above the straight line between the losses of ``a`` and ``b``; >= 0.

        It is NaN if a loss between the ends is NaN.

        Source: Frankle et al., arXiv 1912.05671, section 2 (error barrier height), with the loss
        and relative to the line as in Entezari et al., arXiv 2110.06296.
        """
        at = dict(zip(self.alphas, self.losses, strict=True))
        between = [alpha for alpha in self.alphas if 0 <= alpha <= 1]
        rises = [at[alpha] - (1 - alpha) * at[0.0] - alpha * at[1.0] for alpha in between]
        return math.nan if any(map(math.isnan, rises)) else max(0.0, *rises)


def interpolate(
    network: nn.Module,
    a: Weights,
    b: Weights,
    loss: Callable[..., Tensor],
    batches: Sequence[tuple[Tensor, ...]],
    *,
    points: int = 21,
    margin: float = 0.0,
    metrics: Mapping[str, Callable[..., Tensor]] | None = None,
    batch_norm_batches: Sequence[tuple[Tensor, ...]] = (),
) -> Interpolation:
    """Measure the mean of ``loss(*batch)`` along the line from ``a`` to ``b``.

    ``network`` runs in evaluation mode. Its weights, buffers and modes are restored afterwards.

    Args:
        network: The network whose weights ``loss`` uses.
        a: The state dictionary of one end.
        b: The state dictionary of the other end, with the same names and shapes.
        loss: A function ``loss(*batch)`` that calls ``network`` and returns the mean loss of a
            batch.
        batches: Tuples of tensors whose first dimension counts samples; batches are weighted by it.
        points: The number of points from ``a`` to ``b``, including both; at least 2.
        margin: The length by which the line extends beyond each end, as a share of its length. The
            points there have the same spacing, plus one at the limit.
        metrics: Name -> function with the signature of ``loss``, for example the accuracy.
        batch_norm_batches: Batches whose first elements are inputs. At each point, the statistics
            of all batch normalization layers are estimated again from them, as the mean over the
            batches. Interpolated statistics do not fit interpolated weights, so without this
            argument a barrier may come from the statistics only.

    Raises:
        ValueError: Names or shapes differ, there is no batch, or ``points`` is below 2.
    """
    if points < 2:
        raise ValueError(f"points={points}: expected at least 2")
    if not batches:
        raise ValueError("batches is empty: expected at least one batch of samples")
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin={margin}: expected a finite number, 0 or more")
    _check_same(a, b)
    # Either may be the state of the network itself, which is overwritten at every point.
    a, b = ({name: value.clone() for name, value in end.items()} for end in (a, b))
    alphas = _alphas(points, margin)
    functions = {"": loss, **(metrics or {})}
    means: dict[str, list[float]] = {name: [] for name in functions}
    modes = {module: module.training for module in network.modules()}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    try:
        with torch.no_grad(), state_untouched(network):
            for alpha in alphas:
                network.load_state_dict(_between(a, b, alpha))
                if batch_norm_batches:
                    _estimate_batch_norm(network, batch_norm_batches)
                network.eval()
                for name, function in functions.items():
                    means[name].append(_mean(function, batches))
    finally:
        network.load_state_dict(before)
        for module, training in modes.items():
            module.training = training
    found = {name: tuple(values) for name, values in means.items()}
    return Interpolation(alphas, found.pop(""), found)


def weights_of_checkpoint(path: str, prefix: str = "") -> dict[str, Tensor]:
    """Read the state dictionary of a Lightning checkpoint onto the CPU.

    Args:
        path: The path of the checkpoint, which is read with ``weights_only=True``.
        prefix: Only names with this prefix are returned, without it; for example ``network.``.

    Raises:
        ValueError: The file has no state dictionary, or no name with the prefix.
    """
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if state is None:
        raise ValueError(f"{path} has no state_dict: expected a checkpoint of a Lightning Trainer")
    chosen = {name[len(prefix) :]: v for name, v in state.items() if name.startswith(prefix)}
    if not chosen:
        raise ValueError(f"prefix={prefix!r}: {path} has {', '.join(list(state)[:8])}, …")
    return chosen


def _alphas(points: int, margin: float) -> tuple[float, ...]:
    inner = torch.linspace(0, 1, points, dtype=torch.float64).tolist()
    beyond = [place / (points - 1) for place in range(1, math.ceil(margin * (points - 1)))]
    beyond += [margin] * bool(margin)
    return tuple([-way for way in reversed(beyond)] + inner + [1 + way for way in beyond])


def _between(a: Weights, b: Weights, alpha: float) -> dict[str, Tensor]:
    # Counters and other integers are not interpolated.
    return {
        name: torch.lerp(value, b[name].to(value.device), alpha)
        if value.is_floating_point()
        else value
        for name, value in a.items()
    }


def _check_same(a: Weights, b: Weights) -> None:
    if a.keys() != b.keys():
        names = sorted(a.keys() ^ b.keys())
        raise ValueError(
            f"a and b belong to different networks: only one has {', '.join(names[:4])}"
        )
    for name, value in a.items():
        if value.shape != b[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)} in a and {tuple(b[name].shape)} in b"
            )


def _mean(function: Callable[..., Tensor], batches: Sequence[tuple[Tensor, ...]]) -> float:
    samples = sum(len(batch[0]) for batch in batches)
    return sum(float(function(*batch)) * len(batch[0]) for batch in batches) / samples


def _estimate_batch_norm(network: nn.Module, batches: Sequence[tuple[Tensor, ...]]) -> None:
    layers = [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    momenta = [layer.momentum for layer in layers]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the batches
        layer.train()
    try:
        for batch in batches:
            network(batch[0])
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
