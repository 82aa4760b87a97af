"""Mixtures of corpora, and corpora that are already tokens."""

import time
from collections import Counter

import numpy as np
import pytest
import torch

from lightning_plugins.datamodules import (
    BinCorpus,
    CorpusShare,
    HubCorpus,
    ResumableDataLoader,
    TokenDataModule,
)
from lightning_plugins.datamodules.tokens.token_file import write_token_file
from lightning_plugins.datamodules.tokens.windows import MixedWindows, TokenWindows


def token_file(path, first, windows, context_length=4):
    """Windows whose first token is their number, counted from ``first``."""
    tokens = np.zeros((windows, context_length), np.uint16)
    tokens[:, 0] = np.arange(first, first + windows)
    write_token_file(path, [np.append(tokens.ravel(), 0)], 2**16)
    return path


def mixed(folder, sizes, per_epoch, seed=3):
    firsts = np.cumsum([1, *sizes[:-1]])
    parts = [
        TokenWindows([token_file(folder / f"{first}.bin", first, size)], 4)
        for first, size in zip(firsts, sizes, strict=True)
    ]
    return MixedWindows(parts, per_epoch, seed)


def test_each_window_of_a_mixture_is_used_equally_often_or_once_more(tmp_path):
    sizes, per_epoch = (10, 7, 30), (25, 7, 12)
    windows = mixed(tmp_path, sizes, per_epoch)
    loader = ResumableDataLoader(windows, 11, shuffle=True)
    seen = Counter()
    for epoch in range(4):
        loader.set_epoch(epoch)
        order = [int(token) for batch in loader for token in batch[:, 0]]
        assert order != sorted(order)
        seen.update(order)
        first = 1
        for size, count in zip(sizes, per_epoch, strict=True):
            uses = [seen[number] for number in range(first, first + size)]
            assert sum(uses) == count * (epoch + 1)
            assert max(uses) - min(uses) <= 1
            first += size


def test_a_window_is_the_same_alone_in_a_batch_and_in_a_worker(tmp_path):
    windows = mixed(tmp_path, (10, 7), (25, 7))
    windows.set_epoch(2)
    together = windows.batch(range(32))
    assert all(torch.equal(windows[index], together[index]) for index in range(32))
    loaders = [ResumableDataLoader(windows, 8, num_workers=n, shuffle=True) for n in (0, 2)]
    for loader in loaders:
        loader.set_epoch(2)
    for one, other in zip(*loaders, strict=True):
        assert torch.equal(one, other)


def test_windows_of_several_files_do_not_cross_their_borders(tmp_path):
    files = [token_file(tmp_path / f"{n}.bin", first, 3) for n, first in enumerate((1, 4))]
    windows = TokenWindows(files, 4)
    assert [int(window[0]) for window in windows] == [1, 2, 3, 4, 5, 6]
    assert torch.equal(windows.batch([5, 0]), torch.stack([windows[5], windows[0]]))


def text_folder(folder, letter, windows, context_length=8):
    folder.mkdir()
    (folder / "train.txt").write_text(letter * (windows * context_length))
    (folder / "val.txt").write_text(letter * 2 * context_length)
    return str(folder)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([{"epochs": 2}, {}, {"epochs": 0.5}], {"a": 20, "b": 30, "c": 20}),
        ([{"weight": 1}, {"weight": 2}, {"weight": 1}], {"a": 10, "b": 20, "c": 10}),
        ([{"weight": 0.5}, {"weight": 6}, {"weight": 3.5}], {"a": 2, "b": 30, "c": 18}),
    ],
)
def test_epochs_and_weights_determine_the_windows_of_each_corpus(tmp_path, shares, expected):
    sizes = {"a": 10, "b": 30, "c": 40}
    corpus = [
        CorpusShare(text_folder(tmp_path / letter, letter, size), **share)
        for (letter, size), share in zip(sizes.items(), shares, strict=True)
    ]
    data = TokenDataModule(corpus, context_length=8, data_dir=str(tmp_path / "tokens"))
    data.prepare_data()
    data.setup()
    letters = Counter(chr(int(window[0])) for window in data.train_dataset)
    assert letters == pytest.approx(expected, abs=1 if "weight" in shares[0] else 0)
    assert len(data.val_dataset) == 6
    assert data.bytes_per_token["val"] == pytest.approx(16 / 17)


def raw(tokens, path):
    np.asarray(tokens, "<u2").tofile(path)


def with_header(tokens, path):
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, len(tokens)
    path.write_bytes(header.tobytes() + np.asarray(tokens, "<u2").tobytes())


@pytest.mark.parametrize(
    ("write", "train"),
    [(raw, ["train.bin"]), (with_header, ["c4_train_000001.bin", "c4_train_2.bin"])],
)
def test_token_files_of_nanogpt_are_mapped(tmp_path, write, train):
    for number, name in enumerate(train):
        write(range(40 * number, 40 * number + 41), tmp_path / name)
    write(range(9), tmp_path / ("val.bin" if write is raw else "c4_val_000000.bin"))
    data = TokenDataModule(
        BinCorpus(str(tmp_path), vocab_size=90, end_of_document=5),
        context_length=8,
        mask_documents=True,
    )
    data.prepare_data()
    data.setup()
    assert (data.vocab_size, data.end_of_document, len(data.val_dataset)) == (90, 5, 1)
    assert len(data.train_dataset) == 5 * len(train)
    first = data.train_dataset[0]
    assert first["input_ids"].tolist() == list(range(9))
    assert first["position_ids"].tolist() == [*range(6), 0, 1, 2]
    assert first["labels"].tolist() == [0, 1, 2, 3, 4, 5, -100, 7, 8]
    assert not data.bytes_per_token
    with pytest.raises(ValueError, match=r"has the token \d+, outside of the vocabulary of 30"):
        TokenDataModule(BinCorpus(str(tmp_path), vocab_size=30), context_length=8).setup()


def half_filled(tokens, path):
    np.asarray(tokens, "<u4").tofile(path)


def of_numpy(tokens, path):
    with path.open("wb") as file:
        np.save(file, np.asarray(tokens, "<u2"))


def with_an_index(tokens, path):
    raw(tokens, path)
    path.with_suffix(".idx").write_bytes(b"MMIDIDX")


@pytest.mark.parametrize(
    ("write", "vocab_size", "named"),
    [
        (half_filled, 90, "every second one is 0: tokens of 32 bits need the header of llm.c"),
        (raw, 100_000, "vocab_size=100000: tokens of 32 bits need the header"),
        (of_numpy, 90, "is an array of numpy"),
        (with_an_index, 90, "has an index beside it, as Megatron writes"),
    ],
)
def test_token_files_of_other_programs_are_not_read_as_16_bits(tmp_path, write, vocab_size, named):
    for part in ("train", "val"):
        write(range(80), tmp_path / f"{part}.bin")
    with pytest.raises(ValueError, match=named):
        TokenDataModule(BinCorpus(str(tmp_path), vocab_size), context_length=8).setup()


def test_token_files_of_llm_c_for_llama_3_are_mapped(tmp_path):
    header = np.zeros(256, "<i4")
    header[:3] = 20240801, 7, 80
    for part in ("train", "val"):
        tokens = np.arange(100_000, 100_080, dtype="<u4")
        (tmp_path / f"{part}.bin").write_bytes(header.tobytes() + tokens.tobytes())
    data = TokenDataModule(BinCorpus(str(tmp_path), 128_256), context_length=8)
    data.setup()
    assert data.val_dataset[0].tolist() == list(range(100_000, 100_009))


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_file_of_records_is_a_corpus(tmp_path, ending):
    datasets = pytest.importorskip("datasets")
    texts = [f"text {number}" for number in range(40)]
    table = datasets.Dataset.from_dict({"text": texts})
    path = tmp_path / f"data.{ending}"
    (table.to_parquet if ending == "parquet" else table.to_json)(path)
    assert TokenDataModule(str(path)).corpus == HubCorpus(str(path))
    found = [text for _, text in HubCorpus(str(path), held_out=0.2).documents()]
    assert sorted(found) == sorted(texts)


def test_each_file_of_a_folder_of_texts_is_a_document(tmp_path):
    texts = [f"first line {number}\nsecond line\n" for number in range(20)]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text)
    found = [text for _, text in HubCorpus(str(tmp_path), held_out=0.2).documents()]
    assert sorted(found) == sorted(texts)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"corpus": []}, r"corpus=\[\]"),
        ({"corpus": "bin:nowhere"}, "has no file for train"),
        ({"corpus": [CorpusShare("bin:x"), CorpusShare("bin:y")], "tokenizer": "bpe"}, "'bpe'"),
    ],
)
def test_errors_name_the_fault_of_a_mixture(tmp_path, arguments, named):
    with pytest.raises(ValueError, match=named):
        TokenDataModule(**arguments).setup()


@pytest.mark.parametrize(
    ("share", "named"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": float("inf")}, "epochs=inf"),
        ({"weight": -1}, "weight=-1"),
        ({"epochs": 1, "weight": 1}, "one"),
    ],
)
def test_a_share_that_is_not_positive_is_refused(share, named):
    with pytest.raises(ValueError, match=named):
        CorpusShare("shakespeare", **share)


@pytest.mark.slow
@pytest.mark.parametrize(("end", "least"), [(None, 10e6), (0, 8e6)])
def test_the_data_path_delivers_millions_of_tokens_per_second(tmp_path, end, least):
    tokens = np.random.default_rng(0).integers(256, size=2_000_001)
    write_token_file(tmp_path / "train.bin", [tokens], 256)
    loader = ResumableDataLoader(TokenWindows([tmp_path / "train.bin"], 128, end), 16, shuffle=True)
    rates = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        started = time.process_time()
        for _ in loader:
            pass
        rates.append(2e6 / (time.process_time() - started))
    assert max(rates) > least
