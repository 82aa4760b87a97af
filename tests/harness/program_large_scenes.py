"""Captions two scenes of 20,000 x 20,000 pixels and prints memory and speed.

usage: program_large_scenes.py FOLDER [SIDE]
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from lightning.pytorch import LightningModule, Trainer
from rasterio.windows import Window

from lightning_plugins.datamodules import ScenePairDataModule
from lightning_plugins.litmodels.change_captioning import SceneCaptionWriter

BLOCK = 256


def write_scene(path, side, planted):
    """Write four bands of uint16 in compressed blocks, each one of eight random blocks."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(200, 3000, (8, 4, BLOCK // 8, BLOCK // 8)).repeat(8, 2).repeat(8, 3)
    blocks = blocks.astype(np.uint16)
    profile = {"driver": "GTiff", "count": 4, "height": side, "width": side, "dtype": "uint16",
               "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate",
               "zlevel": 1, "crs": "EPSG:32650", "photometric": "MINISBLACK",
               "transform": rasterio.transform.from_origin(5e5, 4e6, 0.5, 0.5)}  # fmt: skip
    with rasterio.Env(GDAL_CACHEMAX=64 << 20), rasterio.open(path, "w", **profile) as file:
        for row in range(0, side, BLOCK):
            for column in range(0, side, BLOCK):
                block = blocks[(row * 7 + column * 3) // BLOCK % 8]
                if planted and (row // BLOCK + column // BLOCK) % 40 == 0:
                    block = block.copy()
                    block[0, 100:120, 100:120] = 4095
                height, width = min(BLOCK, side - row), min(BLOCK, side - column)
                file.write(block[:, :height, :width], window=Window(column, row, width, height))


class Reader(LightningModule):
    """A stand-in captioner that names what is much brighter in the second image."""

    def predict_step(self, batch, batch_idx):
        before, after = batch["images"][:, :, 0].unbind(1)
        seen = ((after - before) > 0.3).sum((-2, -1)) >= 100
        captions = ["a red roof appears" if one else "nothing has changed" for one in seen]
        return [{"id": i, "caption": c} for i, c in zip(batch["id"], captions, strict=True)]


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(folder, side=20_000):
    torch.set_num_threads(1)
    scenes = [folder / "old.tif", folder / "new.tif"]
    for scene in scenes:
        if not scene.is_file():
            write_scene(scene, side, planted=scene.name == "new.tif")
            print("written", flush=True)
    if "--write" in sys.argv:
        return
    before = peak_mib()
    data = ScenePairDataModule(*map(str, scenes), window=256, overlap=32, batch_size=8)
    writer = SceneCaptionWriter(str(folder / "out"))
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False,
                      enable_model_summary=False, callbacks=[writer])  # fmt: skip
    start = time.perf_counter()
    trainer.predict(Reader(), datamodule=data, return_predictions=False)
    seconds = time.perf_counter() - start
    print(f"windows {len(data.windows)} seconds {seconds:.1f} "
          f"per_second {len(data.windows) / seconds:.1f} "
          f"above_imports_mib {peak_mib() - before:.0f}")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(arg) for arg in sys.argv[2:3] if arg.isdigit()))
