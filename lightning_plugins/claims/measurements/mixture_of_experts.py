"""What one run of the experiments on mixtures of experts trains and measures."""

import math
import time
from typing import TYPE_CHECKING, Any

from lightning_plugins.claims.cell import Cell

if TYPE_CHECKING:
    from lightning_plugins.datamodules import ManifoldDataModule
    from lightning_plugins.litmodels import MoERegressor

_LR, _BATCH, _TEST_POINTS = 0.02, 256, 10_000


def run_training(config: dict[str, Any], seed: int) -> Cell:
    """Train one arm; measure errors on fresh points and how the gates use the pieces."""
    started = time.perf_counter()
    model, data = _trained(config, seed)
    metrics = _errors(model, data, seed)
    metrics |= {
        "active_parameters": float(model.network.num_active_parameters),
        "parameters": float(sum(p.numel() for p in model.parameters())),
        "seconds": time.perf_counter() - started,
    }
    return {"metrics": metrics}


def run_slope(config: dict[str, Any], seed: int) -> Cell:
    """Train at several widths; measure the slope of log10 MSE over log10 of the width."""
    errors = []
    for width in config["widths"]:
        model = {**config["model"], "hidden_features": width}
        trained, data = _trained({**config, "model": model}, seed)
        errors.append(_errors(trained, data, seed)["log10_mse"])
    widths = [float(width) for width in config["widths"]]
    return {
        "metrics": {"slope": _slope(widths, errors), "log10_mse": errors[-1]},
        "series": {"width": widths, "log10_mse": errors},
    }


def run_construction(config: dict[str, Any], seed: int) -> Cell:
    """Measure sup error, share of cells with a path of their own, and the slope over widths."""
    if "slope" in config:
        return {"metrics": {"slope": config["slope"]}}
    if "model" in config:
        return run_training(config, seed)
    import torch

    from lightning_plugins.litmodels import MoERegressor
    from lightning_plugins.nn.moe import Bumps

    target = Bumps(config["pieces"], config["axes"])
    generator = torch.Generator().manual_seed(seed)
    points = target.pieces * torch.rand(_TEST_POINTS, target.axes, generator=generator)
    logarithms, metrics = [], {}
    for width in config["widths"]:
        model = MoERegressor.constructed(target, width)
        with torch.no_grad():
            errors = model(points) - target(points)
        logarithms.append(math.log10(float(errors.abs().max())))
        if width == config["shown"]:
            metrics = _metrics(errors) | {"path_share": _path_share(model, target.pieces)}
    widths = [float(width) for width in config["widths"]]
    return {
        "metrics": {**metrics, "slope": _slope(widths, logarithms)},
        "series": {"width": widths, "log10_sup_error": logarithms},
    }


def _trained(config: dict[str, Any], seed: int) -> "tuple[MoERegressor, ManifoldDataModule]":
    """Train with Adam on fresh batches; the learning rate follows a cosine to zero.

    This is a plain loop, because at these sizes a Trainer would spend two thirds of the time on
    bookkeeping. The reference backend is the fastest one here.
    """
    import torch

    from lightning_plugins.datamodules import ManifoldDataModule
    from lightning_plugins.litmodels import MoERegressor
    from lightning_plugins.nn.random_state import seeded

    data = ManifoldDataModule(**config["data"], seed=seed)
    with seeded(seed):
        model = MoERegressor(
            data.in_features, data.out_features, backend="dense", **config["model"]
        )
    steps = config["overrides"]["steps"]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=_LR, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(2 * seed)
    for _ in range(steps):
        optimizer.zero_grad()
        model.objective(*data.draw(_BATCH, generator))[0].backward()
        optimizer.step()
        schedule.step()
    return model, data


def _errors(model: "MoERegressor", data: "ManifoldDataModule", seed: int) -> dict[str, float]:
    import torch

    from lightning_plugins.nn.moe import paths_of, routing_accuracy

    inputs, targets = data.draw(_TEST_POINTS, torch.Generator().manual_seed(2 * seed + 1))
    with torch.no_grad():
        outputs, steps = model.network.mix(inputs)
    metrics = _metrics(outputs - targets)
    regions = data.regions(inputs)
    if steps and regions is not None:
        paths = paths_of([step.routing for step in steps])
        metrics["routing_accuracy"] = 100 * routing_accuracy(paths, regions)
        if len(steps) == inputs.shape[1] and inputs.shape[1] > 2:
            metrics["path_share"] = _path_share(model, steps[0].routing.num_experts)
    return metrics


def _metrics(errors: Any) -> dict[str, float]:
    mse = float(errors.square().mean())
    return {
        "mse": mse,
        "log10_mse": math.log10(mse),
        "log10_sup_error": math.log10(float(errors.abs().max())),
    }


def _path_share(model: "MoERegressor", pieces: int) -> float:
    """Number of distinct paths of the cell centres over the number of cells, in percent."""
    import torch

    from lightning_plugins.nn.moe import num_unique_paths, paths_of

    centres = torch.cartesian_prod(*[torch.arange(pieces) + 0.5] * model.in_features)
    with torch.no_grad():
        _, steps = model.network.mix(centres)
    return 100 * num_unique_paths(paths_of([step.routing for step in steps])) / len(centres)


def _slope(widths: list[float], logarithms: list[float]) -> float:
    """Least-squares slope over log10 of the width."""
    x = [math.log10(width) for width in widths]
    mean_x, mean_y = (math.fsum(values) / len(values) for values in (x, logarithms))
    products = ((a - mean_x) * (b - mean_y) for a, b in zip(x, logarithms, strict=True))
    return math.fsum(products) / math.fsum((a - mean_x) ** 2 for a in x)
