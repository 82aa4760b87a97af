"""The claims on what mixtures of experts express (Wang, E, NeurIPS 2025, arXiv 2505.24205)."""

from typing import Any

from lightning_plugins.claims.claim import Claim, Column, Experiment, Paper, Scale, claims_on
from lightning_plugins.claims.measurements.mixture_of_experts import (
    run_construction,
    run_slope,
    run_training,
)
from lightning_plugins.claims.rules import Equivalence, Superiority

_SEEDS = (3, 4, 5, 6, 7)  # the rate was tuned on the seeds 0 to 2
_STEPS, _SHORT = 2000, 300
_AMBIENT_DIMS = (16, 32, 64, 128)
_WIDTHS = (16, 32, 64, 128)
_REGIME = "2000 Adam steps of 256 fresh samples (300 at smoke scale), rate 0.02 for every arm"
_FACTOR_OF_TWO = 0.3  # in log10
_NOT_COMPARED = "neither claimed nor compared in the paper"
_EXPONENT = "exponent of the width: smoothness over intrinsic dimension, at most 1/2"


def paper() -> Paper:
    """Return the paper's theorems and tables, measured on small networks."""
    return Paper(
        name="mixture-of-experts",
        title="On the expressive power of mixture-of-experts for structured complex tasks",
        citation="Wang, E; NeurIPS 2025; arXiv 2505.24205",
        experiments=(
            _circle(),
            _dimension(),
            _rate(),
            _experts(),
            _pieces(),
            _construction(),
            _gates(),
            _encoders(),
        ),
        claims=(
            *_circle_claims(),
            *_dimension_claims(),
            *_pieces_claims(),
            *_gate_claims(),
            *_encoder_claims(),
        ),
        columns=(
            Column("mse", "MSE", ".2e"),
            Column("log10_mse", "log10 MSE", ".2f"),
            Column("log10_sup_error", "log10 sup error", ".2f"),
            Column("slope", "slope", ".2f"),
            Column("path_share", "paths used %", ".1f"),
            Column("routing_accuracy", "routing accuracy %", ".1f"),
            Column("active_parameters", "active parameters", ".0f"),
            Column("parameters", "parameters", ".0f"),
        ),
        next_steps=(
            "lightning-plugins reproduce mixture-of-experts --scale cpu  (5 seeds, every control)",
            "lightning-plugins fit --config moe/circle                   (one run, with pictures)",
            "callbacks=[RoutingStats()] for your own module with routings(batch)",
        ),
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


def _lower(arm: str, over: str, *rivals: str, metric: str = "log10_mse") -> Superiority:
    effect = 0.1 if metric == "slope" else _FACTOR_OF_TWO
    return Superiority(metric, arm, over, "lower", rivals, effect)


def _circle_claims() -> tuple[Claim, ...]:
    return claims_on(
        "circle",
        _REGIME,
        (
            "a mixture beats a dense network of as many active parameters",
            "On the circle, 4 experts of 10 neurons, one chosen per input, have a lower error than "
            "a dense network of 10 neurons.",
            _lower("MoE, D=16", "dense, equal active"),
            "the claimed gain: about E times fewer activated parameters",
            "section 4, after theorem 4.8",
        ),
        (
            "and one of as many parameters in total",
            "The same against a dense network of 40 neurons.",
            _lower("MoE, D=16", "dense, equal total"),
            _NOT_COMPARED,
            "our rival",
        ),
        (
            "a gate that gets a gradient beats one that gets none",
            "Weighting the chosen expert by its probability gives a lower error than the paper's "
            "weight. That weight is 1 if one expert is chosen, so the gate stays at its random "
            "initialization.",
            _lower("MoE, D=16", "MoE, weight 1"),
            "the weights are a softmax over the chosen experts; training with K = 1 is not "
            "described",
            "section 3; we did not have appendix C",
        ),
        (
            "zeros behind the coordinates change nothing",
            "With 112 more coordinates that are zero the error is the same within a factor of two. "
            "This holds by construction, also for a dense network.",
            Equivalence("log10_mse", "MoE, D=128", "MoE, D=16", margin=_FACTOR_OF_TWO),
            "1-4-MoE, m=10: test error 3.40e-4 at D=16, 3.42e-4 at D=128",
            "section 6, first experiment; figures from third parties' notes",
        ),
        ours=(
            "and one of as many parameters in total",
            "a gate that gets a gradient beats one that gets none",
        ),
    )


def _dimension_claims() -> tuple[Claim, ...]:
    return (
        *claims_on(
            "dimension",
            _REGIME,
            (
                "the ambient dimension does not matter",
                "For a circle that is curved to span the whole space, the error at D=128 equals "
                "the error at D=8 within a factor of two.",
                Equivalence("log10_mse", "circle, D=128", "circle, D=8", margin=_FACTOR_OF_TWO),
                "the bound depends on the intrinsic dimension only",
                "theorem 4.8; the embedding is ours",
            ),
            (
                "the intrinsic dimension does",
                "Control: a function of the same smoothness is learned better on a cube of 2 "
                "dimensions than on a cube of 8.",
                _lower("cube, d=D=2", "cube, d=D=8"),
                _EXPONENT,
                "theorem 4.8",
            ),
        ),
        *claims_on(
            "rate",
            _REGIME,
            (
                "width helps more where the intrinsic dimension is lower",
                "The error falls faster with width for d=1 than for d=3, both in 16 dimensions.",
                _lower("d=1", "d=3", metric="slope"),
                _EXPONENT,
                "theorem 4.8",
            ),
        ),
        *claims_on(
            "experts",
            _REGIME,
            (
                "more experts of one width err less",
                "Eight experts of 16 neurons have a lower error than one.",
                _lower("E=8", "E=1"),
                "more charts, each with a smoother function",
                "section 4",
            ),
            (
                "and less than a dense network of as many neurons",
                "Eight experts of 16 neurons have a lower error than one network of 128.",
                _lower("E=8", "dense, as E=8"),
                _NOT_COMPARED,
                "our rival",
            ),
            ours=("and less than a dense network of as many neurons",),
        ),
    )


def _pieces_claims() -> tuple[Claim, ...]:
    return (
        *claims_on(
            "pieces",
            _REGIME,
            (
                "two layers of three experts beat one of six",
                "For nine pieces and m=128, 2-3-MoE has a lower error than 1-6-MoE.",
                _lower("2-3-MoE, m=128", "1-6-MoE, m=128"),
                "2.59e-6 against 4.60e-5 at m=128",
                "section 6, second experiment; figures from third parties' notes",
            ),
        ),
        *claims_on(
            "construction",
            _REGIME,
            (
                "1024 pieces by 20 experts: the error falls at least as the bound does",
                "The sup error of the constructed network falls at least as fast as m^(-1/2) in "
                "width; the table shows the share of pieces with a path of their own.",
                _lower("constructed", "the theorem's bound", metric="slope"),
                "error O(m^(-1/2)) for E^L pieces by L E experts",
                "theorem 5.3",
            ),
            (
                "training does not find what the proof writes down",
                "The constructed network has a lower sup error than the same network trained from "
                "random weights.",
                _lower("constructed", "trained", metric="log10_sup_error"),
                "not measured in the paper: the theorem states existence",
                "theorem 5.3",
            ),
            ours=("training does not find what the proof writes down",),
        ),
    )


def _gate_claims() -> tuple[Claim, ...]:
    source = "section 5, suggestion of a nonlinear router"
    figure = "halves the required depth; not measured in the paper"
    shells, checkerboard = (
        f"If the regions are {words}, which an affine gate cannot separate, a gate with a hidden "
        "layer has a lower error than an affine one."
        for words in ("concentric shells", "the squares of a checkerboard")
    )
    return claims_on(
        "gates",
        _REGIME,
        (
            "a nonlinear gate helps on shells",
            shells,
            _lower(
                "shells, mlp", "shells, affine", "shells, affine, E=8", "shells, dense, equal total"
            ),
            figure,
            source,
        ),
        (
            "a nonlinear gate helps on checkerboard",
            checkerboard,
            _lower("checkerboard, mlp", "checkerboard, affine"),
            figure,
            source,
        ),
        (
            "and not on a grid of cells",
            "If the regions form a power diagram, which an affine gate can separate, the errors of "
            "both gates are equal within a factor of two.",
            Equivalence("log10_mse", "cells, mlp", "cells, affine", margin=_FACTOR_OF_TWO),
            figure,
            f"{source}; the remark that an affine gate is sufficient is ours",
        ),
        ours=(
            "a nonlinear gate helps on shells",
            "a nonlinear gate helps on checkerboard",
            "and not on a grid of cells",
        ),
    )


def _encoder_claims() -> tuple[Claim, ...]:
    return claims_on(
        "encoders",
        _REGIME,
        (
            "a reconstruction loss helps low-dimensional experts",
            "Experts that first map 64 dimensions to 4 have a lower error with the loss than "
            "without it.",
            _lower("4 dimensions, reconstructed", "4 dimensions"),
            "suggested, not tested",
            "discussion of variants",
        ),
        ours=("a reconstruction loss helps low-dimensional experts",),
    )
