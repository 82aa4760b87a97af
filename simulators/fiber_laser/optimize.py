"""Inverse design: minimize a loss over inputs by exact gradients; and the optimum length."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar  # type: ignore[import-untyped]

from .amplifier import Amplifier, PhysicalWarning
from .chain import Chain, ChainResult
from .gradients import (
    Leaving,
    Output,
    first_signal_w,
    gradients,
    leaving_of,
)
from .parameter_paths import value_at, with_value
from .quantities import Array


@dataclass(frozen=True, eq=False)
class Optimum:
    """The minimum of a loss.

    Args:
        chain: The chain at the minimum.
        result: Its steady state.
        values: Path of each varied input -> value at the minimum.
        loss: The minimum.
        evaluations: Number of steady states solved.
    """

    chain: Chain
    result: ChainResult
    values: dict[str, float]
    loss: float
    evaluations: int


def chain_gradient(
    result: ChainResult, inputs: tuple[str, ...], output: Output = first_signal_w
) -> dict[str, float]:
    """Return the derivatives of an output of the last stage with respect to inputs of any stage.

    The stages are differentiated from the last to the first. The gradient with respect to the light
    at the input of a stage is the output of the stage before.

    Args:
        result: The steady states.
        inputs: Paths such as ``stages[0].fiber.length_m``, ``stages[2].pumps[0].power_w``.
        output: Function of the light that leaves the last stage.

    Raises:
        ValueError: An input is not a parameter of a stage's fiber or pumps.
    """
    return chain_gradients(result, inputs, ((len(result.stages) - 1, output),))[0]


def chain_gradients(
    result: ChainResult, inputs: Sequence[str], outputs: Sequence[tuple[int, Output]]
) -> list[dict[str, float]]:
    """Return the derivatives of outputs of any stages, as :func:`chain_gradient`.

    Args:
        result: The steady states.
        inputs: Paths of inputs.
        outputs: Place of a stage, and a function of the light that leaves it.
    """
    by_stage: dict[int, list[tuple[str, str]]] = {}
    for path in inputs:
        stage, inner = _of_stage(path, len(result.stages))
        by_stage.setdefault(stage, []).append((path, inner))
    if not all(stage.amplifier.signals for stage in result.stages):
        raise ValueError(
            "chain.seed = None: gradients through a chain require a signal as its seed"
        )
    found = [dict.fromkeys(inputs, 0.0) for _ in outputs]
    first = min(by_stage, default=0)
    current: list[tuple[int, Output]] = []  # places in `outputs`, functions of a stage's light
    for stage in range(len(result.stages) - 1, first - 1, -1):
        current += [(place, output) for place, (at, output) in enumerate(outputs) if at == stage]
        if not current:
            continue
        steady, wanted = result.stages[stage], by_stage.get(stage, [])
        bins = len(steady.ase_out_w()) if stage > first else 0
        entrance = [f"ase_forward_in_w[{bin}]" for bin in range(bins)]
        entrance = ["signals[0].power_w", *entrance] if stage > first else []
        slopes = gradients(
            steady, [*(inner for _, inner in wanted), *entrance], [output for _, output in current]
        )
        for (place, _), by_path in zip(current, slopes, strict=True):
            found[place] |= {path: by_path[inner] for path, inner in wanted}
        if stage > first:
            current = [
                (place, _before(result, stage, np.array([by_path[path] for path in entrance])))
                for (place, _), by_path in zip(current, slopes, strict=True)
            ]
    return found


def inverse_design(
    chain: Chain, bounds: Mapping[str, tuple[float, float]], loss: Output, most_iterations: int = 60
) -> Optimum:
    """Minimize a loss of the chain's output over inputs within bounds, by L-BFGS-B.

    Args:
        chain: The initial design.
        bounds: Path of an input (as in :func:`chain_gradient`) -> smallest and largest value.
        loss: A smooth function of the light that leaves the last stage.
        most_iterations: Largest number of iterations.

    Raises:
        ValueError: There is no input, or a lower bound is not below the upper bound.
        ConvergenceError: A chain tried by the optimizer has no steady state.
    """
    if not bounds:
        raise ValueError("bounds = {}: at least one input is required")
    for path, (low, high) in bounds.items():
        if not low < high:
            raise ValueError(f"bounds of {path}: {low:g} must be below {high:g}")
    paths = tuple(bounds)
    lowest = np.array([bounds[path][0] for path in paths])
    span = np.array([bounds[path][1] for path in paths]) - lowest
    latest: dict[str, ChainResult] = {}
    count = 0

    def at(share: Array) -> Chain:
        changed = chain
        for path, value in zip(paths, lowest + span * share, strict=True):
            changed = with_value(changed, path, float(value))
        return changed

    def evaluate(share: Array) -> tuple[float, Array]:
        nonlocal count
        count += 1
        result = at(share).solve(guess=latest.get("result"))
        latest["result"] = result
        slopes = chain_gradient(result, paths, loss)
        return loss(leaving_of(result.output)), np.array([slopes[path] for path in paths]) * span

    start = (np.array([float(value_at(chain, path)) for path in paths]) - lowest) / span
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysicalWarning)
        found = minimize(
            evaluate,
            np.clip(start, 0, 1),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, 1)] * len(paths),
            options={"maxiter": most_iterations},
        )
        best = at(found.x)
        result = best.solve(guess=latest["result"])
    values = dict(zip(paths, (lowest + span * found.x).tolist(), strict=True))
    return Optimum(best, result, values, float(found.fun), count)


def optimum_length_m(
    amplifier: Amplifier, shortest_m: float, longest_m: float, tolerance_m: float = 1e-3
) -> float:
    """Return the length in m with the largest output of the first signal."""
    if not 0 < shortest_m < longest_m:
        raise ValueError(
            f"shortest_m = {shortest_m:g} m: allowed is between 0 and longest_m = {longest_m:g} m"
        )

    def lost(length_m: float) -> float:
        return -with_value(amplifier, "fiber.length_m", float(length_m)).solve().signal_out_w

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysicalWarning)
        found = minimize_scalar(
            lost, bounds=(shortest_m, longest_m), method="bounded", options={"xatol": tolerance_m}
        )
    return float(found.x)


def _of_stage(path: str, stages: int) -> tuple[int, str]:
    head, _, inner = path.partition("].")
    place = head.removeprefix("stages[")
    if not head.startswith("stages[") or not place.isdigit() or int(place) >= stages:
        raise ValueError(f"input {path!r}: expected stages[0 to {stages - 1}].fiber… or .pumps…")
    if not inner.startswith(("fiber.", "pumps[")):
        raise ValueError(
            f"input {path!r}: only parameters of a stage's fiber and pumps have a gradient"
        )
    return int(place), inner


def _before(result: ChainResult, stage: int, by_entrance: Array) -> Output:
    """Return the output as a linear function of the light that leaves the stage before."""
    earlier, later = result.stages[stage - 1], result.stages[stage]
    first_bin = len(earlier.amplifier.signals) + len(earlier.amplifier.pumps)
    left = np.append(earlier.signal_out_w, earlier.ase_out_w())
    carried = later.amplifier.ase_forward_in_w
    assert carried is not None  # a chain always carries it
    arrived = np.append(later.amplifier.signals[0].power_w, carried)
    passed = arrived / np.maximum(left, 1e-300)

    def output(leaving: Leaving) -> float:
        powers = np.append(leaving.forward_w[0], leaving.forward_w[first_bin:])
        return float(by_entrance @ (passed * powers))

    return output
