"""Installs the wheel with each extra into an environment of its own, and runs the smallest example.

usage: python scripts/try_extras.py [EXTRA …] [--torch SITE_PACKAGES]

``core`` is the wheel without an extra. Without arguments, all extras for users are tried. With
``--torch``, torch and the CUDA libraries are linked from this folder, which saves 5 GB.
"""

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
SHORT = "--trainer.max_steps=2 --trainer.limit_val_batches=1 --trainer.enable_progress_bar=false"
LATE_SAM = """
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning_plugins.callbacks import ExactResume, LateSAM

callbacks = [LateSAM(start=0.5), ExactResume()]
trainer = Trainer(max_epochs=1, limit_train_batches=4, callbacks=callbacks)
trainer.fit(BoringModel())
"""
SCENES = """
import numpy, rasterio
from lightning_plugins.datamodules import ScenePairDataModule

grid = rasterio.transform.from_origin(500_000, 4_000_000, 0.5, 0.5)
profile = dict(driver="GTiff", width=64, height=64, count=3, dtype="uint8", crs="EPSG:32650")
pixels = numpy.random.default_rng(0).integers(0, 255, (3, 64, 64), dtype=numpy.uint8)
for name in ("before.tif", "after.tif"):
    with rasterio.open(name, "w", transform=grid, **profile) as file:
        file.write(pixels)
data = ScenePairDataModule("before.tif", "after.tif", window=32, overlap=8)
data.setup("predict")
print(len(list(data.predict_dataloader())), "batches of windows")
"""
# A command line, or a program of several lines.
EXAMPLES = {
    "core": LATE_SAM,
    "vision": f"lightning-plugins fit --config late_sam/digits {SHORT}",
    "text": f"lightning-plugins fit --config language_model/tiny {SHORT}",
    "recsys": f"lightning-plugins fit --config recommendation/tiny_gru4rec {SHORT}",
    "report": "lightning-plugins reproduce induction-heads --scale smoke --output report",
    "laser": "fiber-laser run reference_1018 --output laser",
    "geo": SCENES,
    "all": f"lightning-plugins fit --config change_captioning/tiny {SHORT}",
}
FOR_DEVELOPERS = {"bench", "docs", "dev"}


def main() -> int:
    """Try the extras and return the number of those that fail."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("extras", nargs="*", default=list(EXAMPLES), metavar="EXTRA")
    parser.add_argument("--torch", type=Path, metavar="SITE_PACKAGES")
    arguments = parser.parse_args()
    with (ROOT / "pyproject.toml").open("rb") as file:
        declared = tomllib.load(file)["project"]["optional-dependencies"]
    if unknown := set(arguments.extras) - set(EXAMPLES):
        parser.error(f"unknown extras {sorted(unknown)}: expected some of {', '.join(EXAMPLES)}")
    missing = set(declared) - set(EXAMPLES) - FOR_DEVELOPERS
    if missing:
        parser.error(f"no example for the extras {sorted(missing)}: add them to EXAMPLES")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        # Through the sdist, which leaves no build folder in the checkout.
        build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(folder).glob("*.whl")
        torch = linked_torch(arguments.torch, Path(folder)) if arguments.torch else None
        for extra in arguments.extras:
            with tempfile.TemporaryDirectory() as environment:
                failed += [] if works(extra, wheel, Path(environment), torch) else [extra]
    return len(failed)


def works(extra: str, wheel: Path, environment: Path, torch: Path | None) -> bool:
    """Install the wheel with the extra, run its example, and print how long both took."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    if torch is not None:
        (site,) = environment.glob("lib/python*/site-packages")
        (site / "torch_of_another_environment.pth").write_text(f"{torch}\n")
    wanted = str(wheel) if extra == "core" else f"{wheel}[{extra}]"
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted]
    installed = subprocess.run(install, check=False)
    ready = time.monotonic()
    example = EXAMPLES[extra]
    program, *options = example.split()
    command = [python, "-c", example] if "\n" in example else [python.with_name(program), *options]
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    right = installed.returncode == 0 and ended.returncode == 0
    seconds = f"installed in {ready - began:.0f} s, example in {time.monotonic() - ready:.0f} s"
    print(f"{extra}: {'works' if right else 'FAILS'}, {seconds}", flush=True)
    if not right:
        print(ended.stdout[-1000:] + ended.stderr[-2000:], flush=True)
    return right


def linked_torch(site: Path, folder: Path) -> Path:
    """A folder with links to torch and to what torch requires, and to nothing else."""
    links = folder / "torch"
    links.mkdir()
    waiting, seen = ["torch"], set()
    while waiting:
        name = waiting.pop()
        (distribution,) = importlib.metadata.distributions(name=name, path=[str(site)])
        for part in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (links / part).exists():
                (links / part).symlink_to(site / part)
        for requirement in map(Requirement, distribution.requires or ()):
            needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if needed and requirement.name not in seen:
                seen.add(requirement.name)
                waiting.append(requirement.name)
    return links


if __name__ == "__main__":
    sys.exit(main())
