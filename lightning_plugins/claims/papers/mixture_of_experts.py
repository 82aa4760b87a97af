"""The claims on what mixtures of experts express (Wang, E, NeurIPS 2025, arXiv 2505.24205)."""

from typing import Any

from lightning_plugins.claims.claim import Experiment, Paper, Scale
from lightning_plugins.claims.claim_tables import read_paper
from lightning_plugins.claims.measurements.mixture_of_experts import (
    run_construction,
    run_slope,
    run_training,
)

_SEEDS = (3, 4, 5, 6, 7)  # the rate was tuned on the seeds 0 to 2
_STEPS, _SHORT = 2000, 300
_AMBIENT_DIMS = (16, 32, 64, 128)
_WIDTHS = (16, 32, 64, 128)


def paper() -> Paper:
    """Return the paper's theorems and tables, measured on small networks."""
    return read_paper(
        __file__,
        _circle(),
        _dimension(),
        _rate(),
        _experts(),
        _pieces(),
        _construction(),
        _gates(),
        _encoders(),
    )


def _circle() -> Experiment:
    """The paper's first table: a circle in growing ambient dimensions, padded with zeros."""
    moe = {"num_experts": 4, "hidden_features": 10}
    arms = {f"MoE, D={dim}": _arm({"ambient_dim": dim}, **moe) for dim in _AMBIENT_DIMS}
    arms |= {
        "MoE, top 2": _arm({}, **moe, top_k=2),
        "MoE, weight 1": _arm({}, **moe, gate_weighting="softmax_topk", train_gate=False),
        "dense, equal active": _arm({}, num_experts=1, hidden_features=10),
        "dense, equal total": _arm({}, num_experts=1, hidden_features=40),
    }
    shown = ("MoE, D=16", "MoE, top 2", "dense, equal active", "dense, equal total")
    published = {
        f"MoE, D={dim}": _recipe("moe/circle", {"ambient_dim": dim}, in_features=dim, top_k=1)
        for dim in _AMBIENT_DIMS
    }
    return Experiment("circle", arms, _scales(shown, published), run_training)


def _dimension() -> Experiment:
    """The ambient dimension without zero padding, and the intrinsic dimension as the control."""
    moe = {"num_experts": 4, "hidden_features": 16, "top_k": 2}
    smooth = {"target": "smooth"}
    curved = {**smooth, "embedding": "nonlinear"}
    arms = {f"circle, D={dim}": _arm({**curved, "ambient_dim": dim}, **moe) for dim in (8, 128)}
    arms |= {f"cube, d=D={dim}": _arm({**smooth, **_cube(dim)}, **moe) for dim in (2, 8)}
    return Experiment("dimension", arms, _scales(()), run_training)


def _rate() -> Experiment:
    """The slope of the error in width, for three intrinsic dimensions in one ambient dimension."""
    arms = {
        f"d={dim}": {**_arm(_smooth_cube(dim), num_experts=4, top_k=2), "widths": [8, 64]}
        for dim in (1, 2, 3)
    }
    return Experiment("rate", arms, _scales(()), run_slope)


def _experts() -> Experiment:
    """More experts of one width, and a dense network with as many parameters."""
    arms = {f"E={number}": _arm(_smooth_cube(2), num_experts=number) for number in (1, 2, 4, 8)}
    arms["dense, as E=8"] = _arm(_smooth_cube(2), num_experts=1, hidden_features=128)
    return Experiment("experts", arms, _scales(()), run_training)


def _pieces() -> Experiment:
    """The paper's second table: nine pieces, by two layers of three experts or one of six."""
    data = {**_cube(2), "target": "bumps", "pieces": 3}
    shapes = {"2-3-MoE": {"depth": 2, "num_experts": 3}, "1-6-MoE": {"num_experts": 6}}
    arms = {
        f"{name}, m={width}": _arm(data, **shape, hidden_features=width, gate="affine")
        for width in _WIDTHS
        for name, shape in shapes.items()
    }
    arms["dense, as 2-3-MoE, m=128"] = _arm(data, num_experts=1, hidden_features=2 * 3 * 128)
    published = {
        f"{name}, m={width}": _recipe("moe/pieces", {}, hidden_features=width, **shape)
        for width in _WIDTHS
        for name, shape in shapes.items()
    }
    return Experiment("pieces", arms, _scales((), published), run_training)


def _construction() -> Experiment:
    """1024 pieces by 20 experts: constructed, trained from random weights, and dense."""
    data = {**_cube(5), "target": "bumps", "pieces": 4}
    shape = {"depth": 5, "num_experts": 4, "hidden_features": 32}
    arms: dict[str, dict[str, Any]] = {
        "constructed": {"pieces": 4, "axes": 5, "widths": [16, 32, 64, 128], "shown": 32},
        "the theorem's bound": {"slope": -0.5},
        "trained": _arm(data, **shape, gate="affine"),
        "dense, equal total": _arm(data, num_experts=1, hidden_features=5 * 4 * 32),
    }
    return Experiment("construction", arms, _scales(tuple(arms)), run_construction)


def _gates() -> Experiment:
    """Regions that form a power diagram, and two kinds that do not."""
    regions = {
        "cells": ({"target": "jumps", "pieces": 2}, 4),
        "shells": ({"target": "shells", "pieces": 4}, 4),
        "checkerboard": ({"target": "checkerboard", "pieces": 4}, 2),
    }
    arms = {
        f"{region}, {gate}": _arm({**_cube(2), **data}, num_experts=number, gate=gate)
        for region, (data, number) in regions.items()
        for gate in ("linear", "affine", "mlp")
    }
    shells = {**_cube(2), **regions["shells"][0]}
    arms["shells, cosine"] = _arm(shells, num_experts=4, gate="cosine")
    arms["shells, affine, E=8"] = _arm(shells, num_experts=8, gate="affine")
    arms["shells, dense, equal total"] = _arm(shells, num_experts=1, hidden_features=122)
    return Experiment("gates", arms, _scales(("shells, affine", "shells, mlp")), run_training)


def _encoders() -> Experiment:
    """Low-dimensional experts on a curved torus in 64 dimensions, with and without the loss."""
    data = {
        "manifold": "torus",
        "intrinsic_dim": 2,
        "ambient_dim": 64,
        "embedding": "nonlinear",
        "target": "smooth",
    }
    arms = {
        "whole experts": _arm(data),
        "4 dimensions": _arm(data, encoder_features=4),
        "4 dimensions, reconstructed": _arm(data, encoder_features=4, reconstruction_coef=0.1),
    }
    return Experiment("encoders", arms, _scales(()), run_training)


def _arm(data: dict[str, Any], **model: Any) -> dict[str, Any]:
    return {"data": data, "model": {"hidden_features": 16, **model}}


def _cube(dim: int) -> dict[str, Any]:
    return {"manifold": "cube", "intrinsic_dim": dim, "ambient_dim": dim}


def _smooth_cube(dim: int) -> dict[str, Any]:
    """A random smooth function on a cube that is embedded nonlinearly in 16 dimensions."""
    return {**_cube(dim), "ambient_dim": 16, "embedding": "nonlinear", "target": "smooth"}


def _recipe(name: str, data: dict[str, Any], **model: Any) -> dict[str, Any]:
    """An arm as a command line: 20 000 steps, because we do not know the paper's number."""
    overrides = {"trainer.max_steps": 20_000}
    overrides |= {f"data.init_args.{key}": value for key, value in data.items()}
    model = {"gate_weighting": "softmax_all", **model}
    overrides |= {f"model.init_args.{key}": value for key, value in model.items()}
    return {"recipe": name, "overrides": overrides}


def _scales(
    smoke: tuple[str, ...], published: dict[str, dict[str, Any]] | None = None
) -> dict[str, Scale]:
    scales = {"cpu": Scale(_SEEDS, overrides={"steps": _STEPS})}
    if smoke:
        scales["smoke"] = Scale((0, 1), overrides={"steps": _SHORT}, only=smoke)
    if published:
        scales["paper"] = Scale(_SEEDS, only=tuple(published), arms=published)
    return scales
