"""The command ``fiber-laser``: run, sweep, optimize, identify and design from YAML files."""

import argparse
import sys
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from .amplifier import PhysicalWarning
from .design import Design
from .design_file import (
    load_design,
    packaged_designs,
    read_design_text,
)
from .gradients import Leaving
from .optimize import inverse_design
from .parameter_paths import value_at
from .reproduction import Row, reproduce
from .result_files import save_result
from .steady_state import ConvergenceError
from .study_files import full_path, quantity_of, run_design, run_identification
from .sweep import SweepWarning, band_over_glasses, sweep

REFERENCE = "reference_1018"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 after an error, which is one line on standard error."""
    parsed = _parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except (ValueError, ImportError, ConvergenceError, OSError) as error:
        print(f"fiber-laser: {error}", file=sys.stderr)
        return 2
    return 0


def _designs(arguments: argparse.Namespace) -> None:
    if arguments.name is None:
        print("\n".join(packaged_designs()))
    else:
        print(read_design_text(arguments.name), end="")


def _run(arguments: argparse.Namespace) -> None:
    design = load_design(arguments.design)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysicalWarning)
        result = design.solve()
    print(design.name + (f" ({design.note})" if design.note else ""))
    for name, value in result.summary().items():
        print(f"  {name:<28} {value:.6g}")
    if arguments.band:
        print("over five glasses:")
        for name, band in band_over_glasses(design).items():
            print(f"  {name:<28} {band.low:.6g} to {band.high:.6g}")
    for text in result.warnings:
        print(f"  warning: {text}")
    saved = [save_result(_in(arguments.output, "result.npz"), result.chain)]
    if arguments.plots:
        from .plots import save_chain_plots

        saved += save_chain_plots(result.chain, arguments.output)
    _print_saved(saved)


def _sweep(arguments: argparse.Namespace) -> None:
    design = load_design(arguments.design)
    path = full_path(design, arguments.input)
    low, high = (quantity_of(path, text) for text in (arguments.first, arguments.last))
    if arguments.points < 2:
        raise ValueError(f"points = {arguments.points}: allowed is at least 2")
    values = np.linspace(low, high, arguments.points)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SweepWarning)
        found = sweep(design, path, values.tolist(), jobs=arguments.jobs, backend=arguments.backend)
    names = list(found[0])
    lines = [",".join([path, *names])]
    lines += [
        ",".join(f"{number:.8g}" for number in (value, *(one[name] for name in names)))
        for value, one in zip(values, found, strict=True)
    ]
    table = _in(arguments.output, "sweep.csv")
    table.write_text("\n".join(lines) + "\n", "utf-8")
    shown = [f"{design.chain.stages[-1].name}_out_w", "ase_suppression_db"]
    shown = [name for name in shown if name in names]
    print(f"{path:>32}  " + "  ".join(f"{name:>18}" for name in shown))
    for value, one in zip(values, found, strict=True):
        print(f"{value:>32.6g}  " + "  ".join(f"{one[name]:>18.4f}" for name in shown))
    for warning in caught:
        print(f"  warning: {warning.message}")
    saved = [table]
    if arguments.plots:
        from .plots import plot_sweep, save_figure

        figure = plot_sweep(values, found, path)
        saved.append(save_figure(figure, Path(arguments.output) / "sweep.png"))
    _print_saved(saved)


def _optimize(arguments: argparse.Namespace) -> None:
    design = load_design(arguments.design)
    bounds = {}
    for name, low, high in arguments.vary:
        path = full_path(design, name)
        bounds[path.removeprefix("chain.")] = (quantity_of(path, low), quantity_of(path, high))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysicalWarning)
        chain = design.seeded_chain()
        found = inverse_design(chain, bounds, _loss(arguments.target, arguments.power, design))
        result = replace(design, chain=found.chain).solve()
    for path, value in found.values.items():
        print(f"  {path:<32} {value:.6g}   (was {value_at(chain, path):.6g})")
    for name, value in result.summary().items():
        print(f"  {name:<32} {value:.6g}")
    for text in result.warnings:
        print(f"  warning: {text}")
    print(f"{found.evaluations} chains solved")


def _identify(arguments: argparse.Namespace) -> None:
    found, curves = run_identification(arguments.file)
    for one in found.estimates:
        print(f"  {one.name:<32} {one.value:.6g}   (95 %: {one.low:.6g} to {one.high:.6g})")
    print(f"  {'chi squared':<32} {found.chi_squared:.4g} for {found.degrees_of_freedom} degrees")
    for text in found.report:
        print(f"  note: {text}")
    if arguments.plots:
        from .plots import plot_identification, save_figure

        picture = Path(arguments.output) / "identification.png"
        _print_saved([save_figure(plot_identification(found, curves), picture)])


def _design(arguments: argparse.Namespace) -> None:
    design, found = run_design(arguments.file)
    if not found.is_feasible:
        print(f"no design within the bounds meets all limits ({found.starts} starts); the nearest:")
    for path, value in found.values.items():
        print(f"  {path:<32} {value:.6g}   (was {value_at(design.chain, path):.6g})")
    print(f"  {'output_w':<32} {found.output_w:.6g}")
    for name, ratio in found.ratios.items():
        print(f"  {name:<32} {100 * ratio:.1f} % of the limit")
    print(f"{found.feasible_starts} of {found.starts} starts end at a design that meets all limits")
    if arguments.plots:
        from .plots import plot_constrained, save_figure

        picture = Path(arguments.output) / "design.png"
        _print_saved([save_figure(plot_constrained(found), picture)])


def _reproduce(arguments: argparse.Namespace) -> None:
    design = load_design(arguments.design)
    print(table(reproduce(design)))
    print(
        "\nPublished: abstract of arXiv 2407.19641. The design is a reference design of this "
        "project;\nthe geometry of the published laser is not known."
    )
    if arguments.output is not None:
        from .plots import save_reproduction_plots

        _print_saved(save_reproduction_plots(design, arguments.output))


def table(rows: Sequence[Row], width: int = 48) -> str:
    """Return the rows as text with wrapped cells."""
    head = [field.name for field in fields(Row)]
    cells = [
        [textwrap.wrap(text, width) or [""] for text in row]
        for row in (head, *(list(astuple(row)) for row in rows))
    ]
    widths = [max(len(line) for row in cells for line in row[place]) for place in range(5)]
    lines = []
    for row in cells:
        for line in range(max(map(len, row))):
            texts = [cell[line] if line < len(cell) else "" for cell in row]
            padded = (text.ljust(size) for text, size in zip(texts, widths, strict=True))
            lines.append("  ".join(padded).rstrip())
        lines.append("" if row is not cells[0] else "-" * (sum(widths) + 8))
    return "\n".join(lines).rstrip()


def _loss(target: str, power_w: float | None, design: Design) -> Any:
    lights = len(design.chain.stages[-1].pumps) + 1

    def output_power(leaving: Leaving) -> float:
        return -float(leaving.forward_w[0])

    def suppression(leaving: Leaving) -> float:
        # A smooth maximum of the bins has a gradient everywhere.
        bins = leaving.forward_w[lights:]
        return float(np.log(np.sum(bins**8) ** (1 / 8)) - np.log(leaving.forward_w[0]))

    if target == "power":
        return output_power
    if target == "suppression":
        return suppression
    if power_w is None:
        raise ValueError("--target match requires --power, the wanted output in W")
    return lambda leaving: float((leaving.forward_w[0] / power_w - 1) ** 2)


def _in(folder: str, name: str) -> Path:
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    return path / name


def _print_saved(saved: Sequence[Path]) -> None:
    print("written: " + ", ".join(map(str, saved)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fiber-laser", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    show = commands.add_parser("designs", help="list the packaged designs, or print one")
    show.add_argument("name", nargs="?")
    show.set_defaults(run=_designs)
    run = commands.add_parser("run", help="solve a design, save its profiles, draw them")
    _common(run, "runs/fiber-laser")
    run.add_argument("--band", action="store_true", help="also the spread over the glasses")
    run.set_defaults(run=_run)
    vary = commands.add_parser("sweep", help="solve a design at many values of one input")
    _common(vary, "runs/fiber-laser-sweep")
    vary.add_argument("input", help="such as main.fiber.length or main.pumps[0].power")
    vary.add_argument("first", help="with its unit, such as 0.5m")
    vary.add_argument("last")
    vary.add_argument("points", type=int)
    vary.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    vary.add_argument("--backend", default="loky", help="of joblib (default: %(default)s)")
    vary.set_defaults(run=_sweep)
    best = commands.add_parser("optimize", help="choose inputs by exact gradients")
    best.add_argument("design", nargs="?", default=REFERENCE, help="YAML file or packaged name")
    best.add_argument(
        "--vary", nargs=3, action="append", required=True, metavar=("INPUT", "LOW", "HIGH")
    )
    best.add_argument(
        "--target",
        choices=("power", "suppression", "match"),
        default="power",
        help="most signal, most ASE suppression, or an output of --power (default: %(default)s)",
    )
    best.add_argument("--power", type=float, help="wanted output in W")
    best.set_defaults(run=_optimize)
    fit = commands.add_parser("identify", help="fit parameters of a stage to measured curves")
    fit.add_argument("file", help="YAML file with design, stage, unknowns and curves")
    fit.set_defaults(run=_identify)
    limited = commands.add_parser("design", help="maximise the output under limits")
    limited.add_argument("file", help="YAML file with design, vary, limits and objective")
    limited.set_defaults(run=_design)
    for study in (fit, limited):
        study.add_argument("--output", default="runs/fiber-laser", help="(default: %(default)s)")
        study.add_argument("--no-plots", dest="plots", action="store_false")
    again = commands.add_parser("reproduce", help="print the published figures next to ours")
    again.add_argument("design", nargs="?", default=REFERENCE, help="YAML file or packaged name")
    again.add_argument("--output", help="folder for pictures of tuning and of output over pump")
    again.set_defaults(run=_reproduce)
    return parser


def _common(parser: argparse.ArgumentParser, folder: str) -> None:
    parser.add_argument("design", help="YAML file or packaged name")
    parser.add_argument("--output", default=folder, help="folder (default: %(default)s)")
    parser.add_argument("--no-plots", dest="plots", action="store_false")
