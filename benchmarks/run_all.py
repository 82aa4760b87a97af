"""Runs every benchmark, each with the libraries that it compares in a separate environment.

usage: python benchmarks/run_all.py [NAME ...] [--output runs/bench]

An environment uses the packages of the current one and adds the other libraries, which may shadow
some of them. It is created once, in ``OUTPUT/environments``, and again when the list changes. The
table names a library that cannot be installed, and the benchmark runs without it. The output of a
benchmark is in ``OUTPUT/NAME.txt``; all ratios and the versions of the libraries are in
``table.json``, and with the output in ``table.md``. The exit code is 1 if a benchmark failed.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import time
import venv
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lightning_plugins.reports.writer import write_text_atomically

FOLDER = Path(__file__).parent
RATIO = re.compile(
    r"\s*(?P<what>\S.*?):?\s+"
    r"(?P<ratio>[\d.]+ \[[\d.]+, [\d.]+\](?: of \d+ pairs)?$|[\d.]+x(?=\s|$))"
)


@dataclass(frozen=True)
class Benchmark:
    """A program of this folder.

    ``{python}`` in its arguments is the interpreter of the peers' environment, for a program that
    calls its peer as a process; without it, the program itself runs there.
    """

    name: str
    arguments: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    remark: str = ""


BENCHMARKS = (
    Benchmark("late_sam", peers=("pytorch_optimizer", "temperon")),
    Benchmark("optimizers", peers=("pytorch_optimizer", "heavyball")),
    Benchmark("language_model"),
    Benchmark("moe"),
    Benchmark(
        "decentralized", ("simulation",), remark="`network` limits a network and is run by hand"
    ),
    Benchmark("induction_heads"),
    Benchmark("captioning", peers=("pycocoevalcap",)),
    Benchmark(
        "recommendation",
        ("--rectools", "{python}", "--seeds", "0", "1", "2"),
        ("rectools[torch]==0.19.0",),
        remark="RecBole takes an hour and is run by hand: --recbole PYTHON",
    ),
    Benchmark("catalogue_trie"),
    Benchmark("attacks"),
    Benchmark("fiber_laser", remark="PyFiberAmp is on no package index: --pyfiberamp CLONE"),
)


@dataclass
class Outcome:
    """The result of a benchmark."""

    name: str
    exit_code: int
    minutes: float
    peers: dict[str, str]
    remark: str
    ratios: list[tuple[str, str]] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [one.name for one in BENCHMARKS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {', '.join(names)}")
    parser.add_argument("--output", type=Path, default=Path("runs/bench"))
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for benchmark in BENCHMARKS:
        if not arguments.names or benchmark.name in arguments.names:
            outcomes.append(run(benchmark, arguments.output))
            write_table(outcomes, arguments.output)
    print(f"bench: {arguments.output / 'table.md'}")
    return int(any(outcome.exit_code for outcome in outcomes))


def run(benchmark: Benchmark, output: Path) -> Outcome:
    """Run one benchmark; write its output to a file and return its ratios."""
    print(f"bench: {benchmark.name}", flush=True)
    python, remark = environment(benchmark, output)
    asks_for_python = "{python}" in benchmark.arguments
    started = time.monotonic()
    with (output / f"{benchmark.name}.txt").open("w", encoding="utf-8") as printed:
        code = subprocess.run(
            [
                sys.executable if asks_for_python else python,
                FOLDER / f"{benchmark.name}.py",
                *(part.format(python=python) for part in benchmark.arguments),
            ],
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        ).returncode
    text = (output / f"{benchmark.name}.txt").read_text("utf-8")
    return Outcome(
        benchmark.name,
        code,
        (time.monotonic() - started) / 60,
        versions(python, benchmark.peers),
        "; ".join(part for part in (benchmark.remark, remark) if part),
        ratios_of(text),
    )


def ratios_of(text: str) -> list[tuple[str, str]]:
    """Return the compared items, with their headings, and the ratios."""
    ratios, section, heading, before = [], "", "", ""
    for line in text.splitlines():
        found, is_indented = RATIO.match(line), line.startswith(" ")
        if found:
            above = heading if is_indented else section
            what = " ".join(found["what"].split())
            ratios.append((f"{above}: {what}" if above else what, found["ratio"]))
        elif not line:
            section = heading = ""
        elif not is_indented:
            heading = " ".join(line.partition(":")[0].split())
            section = section if before else heading
        before = line
    return ratios


def environment(benchmark: Benchmark, output: Path) -> tuple[Path, str]:
    """Return an interpreter with all libraries, and a remark on missing ones."""
    if not benchmark.peers:
        return Path(sys.executable), ""
    wanted = json.dumps([sys.version, sys.prefix, *benchmark.peers])
    name = f"{benchmark.name}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    folder = output.absolute() / "environments" / name
    python, missing = folder / "bin" / "python", folder / "missing.txt"
    if not missing.exists():  # written last
        venv.create(folder, clear=True, with_pip=False)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        ours = sysconfig.get_path("purelib")
        addition = folder / "lib" / version / "site-packages" / "ours.pth"
        addition.write_text(f"import site; site.addsitedir({ours!r})\n", "utf-8")
        failed = [peer for peer in benchmark.peers if not install(python, peer)]
        write_text_atomically(missing, ", ".join(failed))
    absent = missing.read_text("utf-8")
    return python, f"could not be installed: {absent}" if absent else ""


def install(python: Path, peer: str) -> bool:
    """Install one package into the environment of ``python``."""
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", peer]
    return subprocess.run(command, check=False).returncode == 0


def versions(python: Path, peers: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of the other libraries and torch in ``python``."""
    program = (
        "import importlib.metadata as m, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    names = [re.split(r"[\[=<>]", peer)[0] for peer in peers]
    printed = subprocess.run(
        [python, "-c", program, "torch", *names], capture_output=True, text=True, check=True
    ).stdout
    return json.loads(printed)


def write_table(outcomes: list[Outcome], output: Path) -> None:
    """Write ``table.json`` and ``table.md`` of the finished benchmarks."""
    rows = [asdict(outcome) for outcome in outcomes]
    write_text_atomically(output / "table.json", json.dumps(rows, indent=1) + "\n")
    lines = ["| benchmark | what | ratio of CPU time [95 %] |", "|---|---|---|"]
    for outcome in outcomes:
        lines += [f"| {outcome.name} | {what} | {ratio} |" for what, ratio in outcome.ratios]
    lines += ["", "| benchmark | minutes | ended | versions | remark |", "|---|---|---|---|---|"]
    for outcome in outcomes:
        ended = "successfully" if outcome.exit_code == 0 else f"with exit code {outcome.exit_code}"
        peers = ", ".join(f"{name} {version}" for name, version in outcome.peers.items())
        lines.append(
            f"| {outcome.name} | {outcome.minutes:.1f} | {ended} | {peers} | {outcome.remark} |"
        )
    for outcome in outcomes:
        printed = (output / f"{outcome.name}.txt").read_text("utf-8").rstrip()
        lines += ["", f"## {outcome.name}", "", "```text", printed, "```"]
    write_text_atomically(output / "table.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
