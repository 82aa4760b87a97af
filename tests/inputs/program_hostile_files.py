"""Reads hostile files with an address space of 3 GB more than the process has; prints the outcomes.

Run by test_hostile_files.py as a process of its own, because the limit cannot be raised again.
"""

import gzip
import io
import json
import resource
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
import yaml
from PIL import Image

from lightning_plugins.checkpoints import read_checkpoint
from lightning_plugins.datamodules.change_captioning.caption_files import PairRecord, read_captions
from lightning_plugins.datamodules.change_captioning.image_pairs import read_pair
from lightning_plugins.datamodules.image_source import from_folder
from lightning_plugins.datamodules.tables import read_table
from lightning_plugins.inputs import parse_json, parse_yaml
from lightning_plugins.simulators.fiber_laser.cross_section_files import _cells as cells_of
from lightning_plugins.simulators.fiber_laser.design_file import load_design
from lightning_plugins.simulators.fiber_laser.design_file import parse_yaml as parse_design
from lightning_plugins.simulators.fiber_laser.quantities import parse_quantity
from lightning_plugins.simulators.fiber_laser.result_files import load_result

folder = Path(sys.argv[1])


def png(path, side):
    """Write a black image of one bit a pixel, of ``side`` x ``side``."""
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(1 + (side + 7) // 8)) for _ in range(side)) + rows.flush()
    head = side.to_bytes(4, "big") * 2 + b"\x01\x00\x00\x00\x00"
    content = b"\x89PNG\r\n\x1a\n"
    for kind, part in ((b"IHDR", head), (b"IDAT", data), (b"IEND", b"")):
        checked = kind + part
        content += len(part).to_bytes(4, "big") + checked + zlib.crc32(checked).to_bytes(4, "big")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


large = png(folder / "large.png", 13_000)
png(folder / "classes/test/a/0.png", 8)
png(folder / "classes/train/a/0.png", 8).write_bytes(large.read_bytes())
(folder / "captions").mkdir()
record = {"uid": "1", "img1_path": "../large.png", "img2_path": "a.png", "change_flag": 1}
(folder / "captions/c.json").write_text(json.dumps([{**record, "change_caption": ["a"]}]))
(folder / "deep.json").write_text("[" * 100_000)
rows = pyarrow.table({"user": pyarrow.array(np.zeros(10_000_000, dtype=np.int64))})
pyarrow.parquet.write_table(rows, folder / "rows.parquet", compression="zstd")
cells = pyarrow.DictionaryArray.from_arrays(
    pyarrow.array(np.zeros(4_000, dtype=np.int32)), pyarrow.array(["x" * 2_000_000])
)
pyarrow.parquet.write_table(
    pyarrow.table({"text": cells}), folder / "cells.parquet", store_schema=False
)
anchors = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
anchors += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
bomb = "\n".join(anchors)
(folder / "bomb.yaml").write_text(f"{bomb}\nstages: *a8\n")
(folder / "keys.yaml").write_text("1: 2\n2: 3\n")
(folder / "deep.yaml").write_text("stages: " + "[" * 9_000)
(folder / "many.yaml").write_text("\n".join(f"k{i}: 1" for i in range(20_000)))
with zipfile.ZipFile(folder / "zeros.npz", "w", zipfile.ZIP_DEFLATED) as archive:
    head = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (6_000_000_000,)}
    np.lib.format.write_array_header_1_0(head, shape)
    archive.writestr("a.npy", head.getvalue())
with zipfile.ZipFile(folder / "header.npz", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("a.npy", b"\x93NUMPY\x02\x00" + (10**7).to_bytes(4, "little") + b" " * 10**7)
zeros = pyarrow.array(np.zeros(1_900_000, dtype=np.int64))
pyarrow.parquet.write_table(
    pyarrow.table({f"c{i}": zeros for i in range(150)}), folder / "columns.parquet"
)
(folder / "keys.json").write_text(json.dumps([{f"k{i}": 1} for i in range(20_000)]))
split = {"columns": ["a"] * 20_000, "data": [[0] * 20_000, *([[]] * 20_000)]}
(folder / "split.json").write_text(json.dumps(split))
levels = json.dumps([{"a": 1}, {"a": 1}]).replace("1", "[" * 70 + "]" * 70)
(folder / "levels.json").write_text(levels)
(folder / "levels.jsonl").write_text("\n".join(["{}", levels[1:-1].split(", ")[0]]))
(folder / "name.json").write_text(json.dumps({"a" * 100_000: [1], "b": [1, 2]}))
repeated = gzip.compress(b"1,2\n" * 25_000_000, 6)
(folder / "zeros.csv.gz").write_bytes(gzip.compress(b"a,b\n") + 6 * repeated)
torch.save({"state_dict": {}}, folder / "stored.ckpt")
with (
    zipfile.ZipFile(folder / "stored.ckpt") as stored,
    zipfile.ZipFile(folder / "packed.ckpt", "w", zipfile.ZIP_DEFLATED) as packed,
):
    for name in stored.namelist():
        packed.writestr(name, stored.read(name))
program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"
(folder / "program.png").write_bytes(program)
noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))
noise.save(folder / "whole.png")
(folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:500])
small = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30,) * 2)


def pair_of(name):
    return PairRecord("1", folder / name, folder / name)


cases = {
    "pair of images": lambda: read_pair(PairRecord("1", large, large)),
    "image by class": lambda: from_folder(str(folder / "classes"), None, None).train.read(0),
    "caption path": lambda: read_captions(folder / "captions"),
    "table rows": lambda: read_table(folder / "rows.parquet"),
    "table cells": lambda: read_table(folder / "cells.parquet"),
    "table depth": lambda: read_table(folder / "deep.json"),
    "json depth": lambda: parse_json((folder / "deep.json").read_text()),
    "yaml anchors": lambda: parse_yaml(bomb),
    "design anchors": lambda: load_design(folder / "bomb.yaml"),
    "design keys": lambda: load_design(folder / "keys.yaml"),
    "design depth": lambda: load_design(folder / "deep.yaml"),
    "design of many keys": lambda: load_design(folder / "many.yaml"),
    "design infinity": lambda: parse_quantity("power", "1e999 W", "_w"),
    "long quantity": lambda: parse_quantity("power", "1" * 200_000 + " " * 200_000 + "x", "_w"),
    "long white space": lambda: parse_quantity("power", " " * 400_000 + "x", "_w"),
    "npz header": lambda: load_result(folder / "header.npz"),
    "table columns": lambda: read_table(folder / "columns.parquet"),
    "table keys": lambda: read_table(folder / "keys.json"),
    "table split": lambda: read_table(folder / "split.json"),
    "table levels": lambda: read_table(folder / "levels.json"),
    "table levels of a line": lambda: read_table(folder / "levels.jsonl"),
    "table name": lambda: read_table(folder / "name.json"),
    "packed table": lambda: read_table(folder / "zeros.csv.gz"),
    "packed checkpoint": lambda: read_checkpoint(folder / "packed.ckpt"),
    "packed checkpoint file": lambda: read_checkpoint((folder / "packed.ckpt").open("rb")),
    "image that is a program": lambda: read_pair(pair_of("program.png")),
    "image that ends": lambda: read_pair(pair_of("cut.png")),
    "json quotes": lambda: parse_json("[" * 65 + '"' + '\\"' * 200_000),
    "yaml base 60": lambda: parse_yaml("a: " + "1:" * 150_000 + "1"),
    "yaml tag": lambda: parse_yaml("!!bool x"),
    "design tag": lambda: parse_design("seed: !!int ''"),
    "design base 60": lambda: parse_design("a: " + "1:" * 300 + "1.0"),
    "design digits": lambda: parse_design("a: " + "1" * 200_000 + "x"),
    "cross-section digits": lambda: cells_of("1" * 200_000 + "e" + "1" * 200_000 + "x 1 1"),
    "npz": lambda: load_result(folder / "zeros.npz"),
}
for name, read in cases.items():
    begin = time.process_time()
    try:
        read()
        outcome = "read"
    except (ValueError, yaml.YAMLError) as error:
        outcome = f"{type(error).__name__}: {error}"
    except BaseException as error:
        outcome = f"unexpected {type(error).__name__} {error}"
    seconds = time.process_time() - begin
    print(json.dumps({"name": name, "outcome": outcome[:5000], "seconds": seconds}))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"name": "sizes", "files": small, "peak": peak}))
