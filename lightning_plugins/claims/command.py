"""``lightning-plugins reproduce``: run a paper's claims and report the verdicts."""

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_plugins.claims.claim import Paper
from lightning_plugins.claims.papers import PAPERS, load_paper
from lightning_plugins.claims.published_runs import (
    PAPER_SCALE,
    has_published_runs,
    published_lines,
    published_runs,
)
from lightning_plugins.claims.result_store import plain_record
from lightning_plugins.claims.row_files import REPOSITORY_ROWS, RowFiles
from lightning_plugins.claims.runner import BACKENDS, run_paper

OUTPUT = Path("runs/reproduce")
SCALES = ("smoke", "cpu", PAPER_SCALE)
ProblemOf = Callable[[list[str]], str | None]


def main(argv: Sequence[str] | None = None, problem_of: ProblemOf | None = None) -> int:
    """Run the command; return 1 if a cell failed or a published run cannot be built, else 0.

    Args:
        argv: The arguments; None means those of the process.
        problem_of: Builds the objects that the options of a published run describe and returns
            the error, or None without one. Without this function the check is skipped.

    Raises:
        ValueError: For an unknown paper or scale.
        ImportError: If a package is missing; names it.
    """
    parser = argparse.ArgumentParser(prog="lightning-plugins reproduce", description=__doc__)
    _add_arguments(parser)
    words = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(words)
    arguments.command_line = shlex.join(["lightning-plugins", "reproduce", *words])
    if arguments.list:
        for name in sorted(PAPERS):
            for line in _listing(load_paper(name)):
                print(line)
        return 0
    papers = [load_paper(name) for name in arguments.papers or sorted(PAPERS)]
    if arguments.scale == PAPER_SCALE:
        return _show_published(papers, problem_of)
    papers = [paper.at(arguments.scale) for paper in papers]
    if arguments.seeds:
        papers = [paper.with_seeds(arguments.seeds) for paper in papers]
    if arguments.plan:
        return _show_plans(papers, arguments)
    return _run_and_report(papers, arguments)


def _show_plans(papers: Sequence[Paper], arguments: argparse.Namespace) -> int:
    """Print the number of seeds that decides each claim."""
    from lightning_plugins.claims.planning import planned_claims
    from lightning_plugins.claims.result_store import ResultStore

    store = ResultStore(arguments.output / "cells", _committed_rows(arguments))
    for paper in papers:
        print(f"# {paper.name}, scale {arguments.scale}")
        for planned in planned_claims(paper, arguments.scale, store):
            print(planned.line())
    return 0


def _committed_rows(arguments: argparse.Namespace) -> RowFiles | None:
    folder = arguments.rows or REPOSITORY_ROWS
    return RowFiles(folder) if arguments.rows or folder.is_dir() else None


def _show_published(papers: Sequence[Paper], problem_of: ProblemOf | None) -> int:
    """Print the command lines of the papers' own runs; return 1 if one cannot be built."""
    failed = 0
    for paper in papers:
        if not has_published_runs(paper):
            print(f"# {paper.name}: we know no settings beyond those of its cpu scale")
            print(f"lightning-plugins reproduce {paper.name} --scale cpu")
            continue
        for line in published_lines(paper):
            print(line)
        if problem_of is None:
            continue
        runs = list(published_runs(paper))
        problems = {one.name: problem_of(list(one.options)) for one in runs}
        found = {name: problem for name, problem in problems.items() if problem is not None}
        for name, problem in found.items():
            print(f"# {name} cannot be built: {problem}")
        print(f"# {paper.name}: {len(runs) - len(found)} of {len(runs)} runs can be built")
        failed += len(found)
    return 1 if failed else 0


def _run_and_report(papers: list[Paper], arguments: argparse.Namespace) -> int:
    from lightning_plugins.claims.reporting import report_of
    from lightning_plugins.reports import write_report
    from lightning_plugins.reports.terminal import paper_lines

    rows = _committed_rows(arguments)
    results = [
        run_paper(
            paper,
            arguments.scale,
            arguments.output,
            jobs=arguments.jobs,
            backend=arguments.backend,
            fresh=arguments.fresh,
            rows=rows,
            looks=arguments.looks,
        )
        for paper in papers
    ]
    if arguments.rows and rows is not None:
        for one in results:
            added = rows.add(one.paper.name, map(plain_record, one.records))
            print(f"{rows.folder / one.paper.name}.csv: {added} cells added")
    report = report_of(results, arguments.command_line)
    for paper_evidence in report.papers:
        for line in paper_lines(paper_evidence):
            print(line)
    path = write_report(report, arguments.output)
    failures = sum(len(one.failures) for one in results)
    print("")
    if failures:
        noun = "cell" if failures == 1 else "cells"
        print(f"{failures} {noun} failed. The others are stored; run the command again to retry.")
    print(f"The report, with figures and raw rows: {path}")
    for step in dict.fromkeys(step for paper in papers for step in paper.next_steps):
        print(f"Next: {step}")
    return 1 if failures else 0


def _listing(paper: Paper) -> list[str]:
    scales = sorted({scale for one in paper.experiments for scale in one.scales}, key=_scale_order)
    lines = [f"{paper.name}  {paper.title}", f"  scales: {', '.join(scales)}"]
    return [*lines, *(f"  - {claim.name}: {claim.statement}" for claim in paper.claims)]


def _seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of ``A..B`` (both included) or of numbers separated by commas."""
    found = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", text)
    if found:
        seeds = tuple(range(int(found[1]), int(found[2]) + 1))
    elif re.fullmatch(r"\d{1,9}(,\d{1,9})*", text):
        seeds = tuple(dict.fromkeys(map(int, text.split(","))))
    else:
        raise argparse.ArgumentTypeError(f"{text!r}: expected A..B or numbers such as 5,7,9")
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r}: the first seed is above the last")
    return seeds


def _looks(text: str) -> tuple[int, ...]:
    """Return increasing numbers of seeds."""
    looks = _seeds(text)
    if list(looks) != sorted(looks) or looks[0] < 2:
        raise argparse.ArgumentTypeError(f"{text!r}: expected increasing numbers from 2 on")
    return looks


def _scale_order(scale: str) -> tuple[int, str]:
    return (SCALES.index(scale) if scale in SCALES else len(SCALES), scale)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "papers", nargs="*", metavar="PAPER", help="papers to run (default: all; see --list)"
    )
    parser.add_argument(
        "--scale",
        default="smoke",
        choices=SCALES,
        help="smoke: short check; cpu: verdicts in minutes; paper: print the commands (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="folder of the results (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, help="worker processes (default: one per core)")
    parser.add_argument(
        "--backend", default="loky", choices=BACKENDS, help="joblib backend (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds",
        type=_seeds,
        metavar="A..B",
        help="seeds to run instead of the scale's, such as 20..40; finished cells are reused",
    )
    parser.add_argument(
        "--looks",
        type=_looks,
        default=(),
        metavar="N,M",
        help="numbers of seeds at which the run may be stopped, planned before the first of them",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print how many seeds decide each claim, from the finished cells, then exit",
    )
    parser.add_argument(
        "--rows",
        type=Path,
        metavar="FOLDER",
        help="CSV files of finished cells: they are reused, and new cells are added to them "
        "(default: those of the repository, which are only read)",
    )
    parser.add_argument("--fresh", action="store_true", help="compute finished cells again")
    parser.add_argument("--list", action="store_true", help="list papers and claims, then exit")


if __name__ == "__main__":
    sys.exit(main())
