"""Figures of results, with matplotlib and without a display."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .amplifier import PhysicalWarning
from .amplifier_result import AmplifierResult
from .chain import ChainResult
from .constrained_design import ConstrainedOptimum
from .design import Design
from .identification import Curve, Identified
from .light import Direction, Pump, Signal
from .quantities import Array
from .reproduction import (
    TEMPERATURES_C,
    slope_efficiency,
)
from .temperature_tuning import TuningCurve, tuning_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 90


def plot_stage(result: AmplifierResult, title: str = "") -> "Figure":
    """Plot powers, excitation and heat along a fiber, and the output spectrum."""
    figure, axes = _figure(2, 2, title)
    edges, middles = result.edges_m, (result.edges_m[1:] + result.edges_m[:-1]) / 2
    amplifier = result.amplifier
    lights: list[Signal | Pump] = [*amplifier.signals, *amplifier.pumps]
    for place, light in enumerate(lights):
        kind = "signal" if place < len(amplifier.signals) else "pump"
        powers = result.forward_w if light.direction == "forward" else result.backward_w
        label = f"{kind} {light.wavelength_nm:.4g} nm"
        axes[0, 0].plot(edges, powers[:, place], label=label)
    axes[0, 0].set(xlabel="position (m)", ylabel="power (W)")
    axes[0, 0].legend(fontsize="small")
    axes[0, 1].plot(middles, 100 * result.excitation)
    axes[0, 1].set(xlabel="position (m)", ylabel="excited ions (%)")
    axes[1, 0].plot(middles, result.heat_w_per_m)
    axes[1, 0].set(xlabel="position (m)", ylabel="heat (W/m)")
    axes[1, 1].set_visible(amplifier.ase_bins is not None)
    if amplifier.ase_bins is not None:
        directions: tuple[Direction, ...] = ("forward", "backward")
        for direction in directions:
            density = result.ase_out_w(direction) / amplifier.ase_bins.widths_nm
            decibels = 10 * np.log10(np.maximum(density, 1e-30) * 1e3)
            axes[1, 1].plot(amplifier.ase_bins.centres_nm, decibels, label=f"ASE {direction}")
        for signal, power in zip(amplifier.signals, result.signals_out_w, strict=True):
            level = 10 * np.log10(max(power, 1e-30) * 1e3)
            axes[1, 1].plot([signal.wavelength_nm], [level], "k^", label="signal (dBm)")
        axes[1, 1].set(xlabel="wavelength (nm)", ylabel="output (dBm/nm)")
        axes[1, 1].legend(fontsize="small")
    return figure


def plot_tuning(curve: TuningCurve) -> "Figure":
    """Plot wavelength over temperature, its linear fit and the deviation."""
    figure, axes = _figure(1, 2, f"{curve.range_nm:.2f} nm, R² = {curve.r_squared:.6f}")
    line = np.polyfit(curve.temperature_c, curve.wavelength_nm, 1)
    fitted = np.polyval(line, curve.temperature_c)
    axes[0, 0].plot(curve.temperature_c, curve.wavelength_nm, ".")
    axes[0, 0].plot(curve.temperature_c, fitted, "-", lw=0.8)
    axes[0, 0].set(xlabel="temperature (°C)", ylabel="wavelength (nm)")
    axes[0, 1].plot(curve.temperature_c, 1e3 * (curve.wavelength_nm - fitted), ".-")
    axes[0, 1].set(xlabel="temperature (°C)", ylabel="deviation from the fit (pm)")
    return figure


def plot_power_curve(pump_w: Array, output_w: Array, slope: float) -> "Figure":
    """Plot output over pump; the title gives the slope."""
    figure, axes = _figure(1, 1, f"slope {100 * slope:.1f} %")
    axes[0, 0].plot(pump_w, output_w, "o-")
    axes[0, 0].set(xlabel="launched pump (W)", ylabel="signal (W)")
    return figure


def plot_sweep(values: Array, figures: list[dict[str, float]], label: str) -> "Figure":
    """Plot each figure that varies over the swept input; equal series are drawn once."""
    names: list[str] = []
    drawn: list[Array] = []
    for name in figures[0]:
        series = np.array([one[name] for one in figures])
        changes = np.isfinite(series).any() and not np.allclose(series, series[0], rtol=1e-9)
        known = any(np.array_equal(series, other, equal_nan=True) for other in drawn)
        if changes and not known and name not in ("photon_balance", "grid_error"):
            names.append(name)
            drawn.append(series)
    columns = 3
    rows = max(1, -(-len(names) // columns))
    figure, axes = _figure(rows, columns, "")
    for name, axis in zip(names, axes.flat, strict=False):
        axis.plot(values, [one[name] for one in figures], ".-")
        axis.set(xlabel=label, ylabel=name)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    return figure


def plot_identification(found: Identified, curves: Sequence[Curve]) -> "Figure":
    """Plot measured and modelled values of each curve; a spectrum is drawn as its sum."""
    figure, axes = _figure(1, len(curves), "")
    for curve, model, axis in zip(curves, found.modelled, axes.flat, strict=True):
        count = len(curve.inputs)
        measured, modelled = (one.reshape(count, -1).sum(1) for one in (curve.measured, model))
        error = curve.relative_error * measured
        axis.errorbar(curve.inputs, measured, error, fmt=".", label="measured")
        axis.plot(curve.inputs, modelled, "-", lw=0.8, label="model")
        axis.set(xlabel=_literal(curve.path), ylabel=_literal(curve.quantity))
        axis.legend(fontsize="small")
    return figure


def plot_constrained(found: ConstrainedOptimum) -> "Figure":
    """Plot the powers along the last stage and the ratio of each limit."""
    figure, axes = _figure(1, 2, f"{found.output_w:.1f} W")
    output = found.result.output
    axes[0, 0].plot(output.edges_m, output.main_power_w, label="signal")
    pump = len(output.amplifier.signals)
    backward = output.amplifier.pumps[0].direction == "backward"
    powers = output.backward_w if backward else output.forward_w
    axes[0, 0].plot(output.edges_m, powers[:, pump], label="pump")
    axes[0, 0].set(xlabel="position (m)", ylabel="power (W)")
    axes[0, 0].legend(fontsize="small")
    axes[0, 1].barh(list(found.ratios), [100 * ratio for ratio in found.ratios.values()])
    axes[0, 1].axvline(100, color="k", lw=0.8)
    axes[0, 1].set(xlabel="of the limit (%)")
    return figure


def save_chain_plots(result: ChainResult, folder: str | os.PathLike[str]) -> list[Path]:
    """Save one picture per stage, ``<stage>.png``, in the folder."""
    return [
        save_figure(plot_stage(stage, name), Path(folder) / f"{_file_name(name)}.png")
        for name, stage in zip(result.names, result.stages, strict=True)
    ]


def save_reproduction_plots(design: Design, folder: str | os.PathLike[str]) -> list[Path]:
    """Save ``tuning.png`` and ``power.png`` of a design with a DBR seed in the folder."""
    if design.seed_laser is None:
        raise ValueError(
            f"design {design.name!r}: seed.laser is missing; temperature tuning requires it"
        )
    temperature_c = np.linspace(*TEMPERATURES_C, 48)
    curve = tuning_curve(design.seed_laser.cavity, temperature_c, design.seed_mount)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysicalWarning)
        power = plot_power_curve(*slope_efficiency(design.seeded_chain()))
    return [
        save_figure(plot_tuning(curve), Path(folder) / "tuning.png"),
        save_figure(power, Path(folder) / "power.png"),
    ]


def save_figure(figure: "Figure", path: Path) -> Path:
    """Write the figure and create its folder if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)
    return path


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)


def _figure(rows: int, columns: int, title: str) -> tuple["Figure", Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots require matplotlib: pip install matplotlib") from error
    size = (4.2 * columns, 3 * rows)
    figure = Figure(figsize=size)
    axes = figure.subplots(rows, columns, squeeze=False)
    # Fixed margins in inches: measuring the labels would double the drawing time.
    figure.subplots_adjust(
        left=0.95 / size[0],
        right=1 - 0.2 / size[0],
        bottom=0.55 / size[1],
        top=1 - 0.4 / size[1],
        wspace=0.3,
        hspace=0.35,
    )
    for axis in axes.flat:
        axis.locator_params(nbins=4)
    if title:
        figure.suptitle(_literal(title))
    return figure, axes


def _literal(text: str) -> str:
    """Escape dollar signs, which would start mathematics: names are those of files."""
    return text.replace("$", r"\$")
