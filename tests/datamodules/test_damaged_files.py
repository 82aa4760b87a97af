"""A file with random bytes changed is read, or refused with an error that names it."""

import json
import random

import numpy as np
import pytest

from lightning_plugins.datamodules.ai_text.dataset_readers import read_samples
from lightning_plugins.datamodules.change_captioning.caption_files import read_captions
from lightning_plugins.datamodules.interactions.readers import read_interactions
from lightning_plugins.datamodules.tokens.token_file import read_token_file, write_token_file
from lightning_plugins.simulators.fiber_laser import load_spectroscopy
from lightning_plugins.simulators.fiber_laser.design_file import load_design, read_design_text


def movielens_100k(folder):
    (folder / "u.genre").write_text("unknown|0\nAction|1\nDrama|2\n")
    (folder / "u.item").write_text("1|Toy Story (1995)|a||b|0|1|0\n2|Heat (1995)|a||b|0|1|1\n")
    (folder / "u.data").write_text("1\t1\t5\t880000000\n1\t2\t3\t880000001\n2\t1\t4\t880000002\n")
    return folder / "u.data", lambda: read_interactions(str(folder), {})


def movielens_items(folder):
    _, read = movielens_100k(folder)
    return folder / "u.item", read


def movielens_latest(folder):
    (folder / "movies.csv").write_text('movieId,title,genres\n1,"Heat, The (1995)",Action|Drama\n')
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,96\n2,1,3.5,97\n")
    return folder / "ratings.csv", lambda: read_interactions(str(folder), {})


def atomic(folder):
    file = folder / "set.inter"
    file.write_text("user_id:token\titem_id:token\ttimestamp:float\n1\t2\t3.5\n2\t2\t4.5\n")
    return file, lambda: read_interactions(str(folder), {})


def column_file(folder):
    file = folder / "mine.csv"
    file.write_text("user,item,timestamp,rating,year\na,b,1.5,4,1999\nc,b,2.5,3,\n")
    return file, lambda: read_interactions(str(file), {})


def captions(folder):
    file = folder / "captions.json"
    sentences = [{"raw": f"a road is built {n}"} for n in range(5)]
    image = {"filename": "0.png", "split": "train", "sentences": sentences, "changeflag": 1}
    file.write_text(json.dumps({"images": [image]}))
    return file, lambda: read_captions(folder)


def texts(folder):
    file = folder / "texts.jsonl"
    rows = [{"text": "one two three", "label": 0}, {"text": "four five", "label": 1}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file, lambda: read_samples(file)


def tokens(folder):
    file = folder / "tokens.bin"
    write_token_file(file, [np.arange(300)], 512)
    return file, lambda: read_token_file(file, verify=True)


def cross_sections(folder):
    file = folder / "glass.txt"
    wavelengths = np.linspace(900, 1100, 21)
    file.write_text("".join(f"{nm:.1f}\t2.0e-25\t1.5e-25\n" for nm in wavelengths))
    return file, lambda: load_spectroscopy(file, lifetime_s=1e-3)


def laser_design(folder):
    file = folder / "mine.yaml"
    file.write_text(read_design_text("reference_1018"))
    return file, lambda: load_design(file)


FILES = (
    movielens_100k,
    movielens_items,
    movielens_latest,
    atomic,
    column_file,
    captions,
    texts,
    tokens,
    cross_sections,
    laser_design,
)


def damaged(content, chance):
    """Some bytes changed, a piece left out, written twice, or the rest cut off."""
    content = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(content)) if content else 0
        end = min(len(content), start + chance.randint(1, 12))
        what = chance.choice(("change", "drop", "double", "cut"))
        if what == "change":
            content[start:end] = bytes(chance.randrange(256) for _ in range(end - start))
        elif what == "drop":
            del content[start:end]
        elif what == "double":
            content[start:start] = content[start:end]
        else:
            del content[start:]
    return bytes(content)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("write", FILES, ids=lambda write: write.__name__)
def test_it_is_read_or_refused_by_name(tmp_path, write):
    file, read = write(tmp_path)
    read()
    sound = file.read_bytes()
    for seed in range(100):
        file.write_bytes(damaged(sound, random.Random(seed)))
        refusal = refused(read)
        assert refusal is None or file.name in str(refusal), f"seed {seed}: {refusal!r}"


def refused(read):
    try:
        read()
    except ValueError as error:
        return error
    return None
