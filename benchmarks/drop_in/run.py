"""Tries every plugin in every project of ``projects.py`` and writes docs/drop_in.md.

``python benchmarks/drop_in/run.py [PROJECT ...]``, or ``make drop-in``. Each project gets an
environment in runs/drop_in that adds its packages to ours, with our torch and Lightning.
"""

import json
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from projects import PROJECTS, Entry
from table import page

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "runs" / "drop_in"
# A project that does not accept these is not part of the suite.
KEPT = ("torch", "torchvision", "lightning", "pytorch-lightning", "torchmetrics", "jsonargparse")
_SECONDS = 900


def main(names: Iterable[str]) -> int:
    """Run the projects; return the number of those without a result."""
    failed = 0
    for name in names:
        entry = PROJECTS[name]
        python = environment(entry)
        program = [str(python), str(Path(__file__).with_name("project.py")), name]
        try:
            run = subprocess.run(
                program, capture_output=True, text=True, check=True, timeout=_SECONDS, cwd=RUNS
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            failed += 1
            print(f"{name}: no result: {str(error.stderr)[-500:]}", file=sys.stderr)
            continue
        lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
        (RUNS / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        print(f"{name}: {len(lines)} cells", flush=True)
    results = {
        name: [json.loads(line) for line in path.read_text().splitlines()]
        for name in PROJECTS
        if (path := RUNS / f"{name}.jsonl").is_file()
    }
    (ROOT / "docs" / "drop_in.md").write_text(page(results))
    return failed


def environment(entry: Entry) -> Path:
    """Return the Python of an environment with a project's packages, and install them if needed."""
    if not entry.requirements:
        return Path(sys.executable)
    folder = RUNS / "environments" / "+".join(entry.requirements).replace("/", "_")
    python = folder / "bin" / "python"
    done = folder / ".installed"
    if done.is_file():
        return python
    venv.create(folder, clear=True, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (site / "zz_ours.pth").write_text("\n".join([*ours, str(ROOT)]) + "\n")
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version(name)}\n" for name in KEPT))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
    subprocess.run([*pip, "-c", str(constraints), *entry.requirements], check=True)
    done.touch()
    return python


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or PROJECTS))
