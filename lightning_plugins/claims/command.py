"""``lightning-plugins reproduce``: run a paper's claims and say what came out."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning_plugins.claims.claim import Paper
from lightning_plugins.claims.registry import PAPERS, load_paper
from lightning_plugins.claims.runner import BACKENDS, run_paper

SCALES = ("smoke", "cpu", "paper")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 1 if a cell failed, else 0.

    Raises:
        ValueError: for an unknown paper or scale.
        ImportError: naming the extra that is missing.
    """
    parser = argparse.ArgumentParser(prog="lightning-plugins reproduce", description=__doc__)
    _add_arguments(parser)
    return run(parser.parse_args(argv))


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``reproduce`` to ``ArgumentParser.add_subparsers()``; ``args.run(args)`` runs it."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "reproduce", help="re-measure the claims of a paper", description=__doc__
    )
    _add_arguments(parser)
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace, echo: Callable[[str], None] = print) -> int:
    """What :func:`main` does once its arguments are parsed."""
    if arguments.list:
        for name in sorted(PAPERS):
            for line in _listing(load_paper(name)):
                echo(line)
        return 0
    names = arguments.papers or sorted(PAPERS)
    papers = [load_paper(name).at(arguments.scale) for name in names]
    if arguments.scale == "paper":
        for paper in papers:
            for line in paper_scale_commands(paper):
                echo(line)
        return 0
    return _run_and_report(papers, arguments, echo)


def paper_scale_commands(paper: Paper) -> list[str]:
    """The command line of every arm and seed at the paper's own scale.

    Raises:
        ValueError: for an arm without a ``recipe``.
    """
    lines = []
    for experiment in paper.at("paper").experiments:
        for arm in experiment.arms:
            config = experiment.config(arm, "paper")
            if "recipe" not in config:
                raise ValueError(f"arm {arm!r} of {experiment.name!r} has no recipe to print")
            recipe = config["recipe"]
            words = ["lightning-plugins", "fit"]
            for one in [recipe] if isinstance(recipe, str) else recipe:
                words += ["--config", one]
            for key, value in config["overrides"].items():
                words += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
            lines.append(f"# {paper.name} {experiment.name} {arm}")
            lines += [
                shlex.join([*words, "--seed_everything", str(seed)])
                for seed in experiment.scale("paper").seeds
            ]
    return lines


def _run_and_report(
    papers: list[Paper], arguments: argparse.Namespace, echo: Callable[[str], None]
) -> int:
    from lightning_plugins.claims.evidence import report_of
    from lightning_plugins.claims.terminal import paper_lines
    from lightning_plugins.reports import write_report

    results = [
        run_paper(
            paper,
            arguments.scale,
            arguments.output,
            jobs=arguments.jobs,
            backend=arguments.backend,
            fresh=arguments.fresh,
            echo=echo,
        )
        for paper in papers
    ]
    report = report_of(results, _command_line(arguments))
    for paper_evidence in report.papers:
        for line in paper_lines(paper_evidence):
            echo(line)
    path = write_report(report, arguments.output)
    failures = sum(len(one.failures) for one in results)
    echo("")
    if failures:
        noun = "cell" if failures == 1 else "cells"
        echo(f"{failures} {noun} failed; the others are kept, run the command again to retry.")
    echo(f"The report, with figures and raw rows: {path}")
    for step in dict.fromkeys(step for paper in papers for step in paper.next_steps):
        echo(f"Next: {step}")
    return 1 if failures else 0


def _listing(paper: Paper) -> list[str]:
    scales = sorted({scale for one in paper.experiments for scale in one.scales}, key=_scale_order)
    lines = [f"{paper.name}  {paper.title}", f"  scales: {', '.join(scales)}"]
    return [*lines, *(f"  - {claim.name}: {claim.statement}" for claim in paper.claims)]


def _scale_order(scale: str) -> tuple[int, str]:
    return (SCALES.index(scale) if scale in SCALES else len(SCALES), scale)


def _command_line(arguments: argparse.Namespace) -> str:
    words = ["lightning-plugins", "reproduce", *arguments.papers, "--scale", arguments.scale]
    words += ["--output", str(arguments.output)]
    words += ["--jobs", str(arguments.jobs)] if arguments.jobs else []
    words += ["--backend", arguments.backend] if arguments.backend != "loky" else []
    return shlex.join([*words, *(["--fresh"] if arguments.fresh else [])])


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("papers", nargs="*", metavar="PAPER", help="default: all; see --list")
    parser.add_argument(
        "--scale",
        default="smoke",
        choices=SCALES,
        help="smoke: does it run; cpu: verdicts in minutes; paper: print the commands (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/reproduce"), help="default: %(default)s"
    )
    parser.add_argument("--jobs", type=int, help="worker processes (default: one a core)")
    parser.add_argument("--backend", default="loky", choices=BACKENDS, help="default: %(default)s")
    parser.add_argument("--fresh", action="store_true", help="compute finished cells again")
    parser.add_argument("--list", action="store_true", help="list papers and claims, and stop")


if __name__ == "__main__":
    sys.exit(main())
