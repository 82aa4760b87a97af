import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from lightning_plugins.datamodules import TokenDataModule
from lightning_plugins.datamodules.tokens.corpus import Corpus, shakespeare, text_files
from lightning_plugins.datamodules.tokens.prepared import PreparedTokens, prepare
from lightning_plugins.datamodules.tokens.token_file import read_token_file, write_token_file
from lightning_plugins.datamodules.tokens.tokenizer import BytePairTokenizer, ByteTokenizer

WORDS = "the quick brown fox jumps over the lazy dog, naïve and slow\n"


@pytest.fixture
def corpus_folder(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "train").mkdir(parents=True)
    for index in range(3):
        (folder / "train" / f"{index}.txt").write_text(WORDS * (20 + index), "utf-8")
    (folder / "val.txt").write_text("the lazy dog\n" * 30)
    return folder


def data_of(corpus_folder, **arguments):
    data = TokenDataModule(
        str(corpus_folder),
        data_dir=str(corpus_folder.parent / "tokens"),
        **{"context_length": 16, "batch_size": 4, **arguments},
    )
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize(("vocab_size", "bytes_each"), [(256, 2), (65536, 2), (65537, 4)])
def test_a_token_file_gives_back_what_was_written(tmp_path, vocab_size, bytes_each):
    chunks = [np.arange(5), np.zeros(0, int), np.array([vocab_size - 1])]
    assert write_token_file(tmp_path / "a.bin", chunks, vocab_size) == 6
    tokens = read_token_file(tmp_path / "a.bin")
    assert tokens.tolist() == [0, 1, 2, 3, 4, vocab_size - 1]
    assert (tmp_path / "a.bin").stat().st_size == 1024 + 6 * bytes_each
    header = np.fromfile(tmp_path / "a.bin", "<i4", 256)
    assert header[:4].tolist() == [20240520, 1 if bytes_each == 2 else 2, 6, 0]


@pytest.mark.parametrize("change", ["truncated", "longer", "no header", "not one"])
def test_a_corrupt_token_file_is_named(tmp_path, change):
    path = tmp_path / "a.bin"
    write_token_file(path, [np.arange(100)], 256)
    content = path.read_bytes()
    changed = {
        "truncated": content[:-1],
        "longer": content + b"x",
        "no header": content[:100],
        "not one": b"\0" * len(content),
    }
    path.write_bytes(changed[change])
    with pytest.raises(ValueError, match=r"a\.bin .*prepare it again"):
        read_token_file(path)


def test_tokens_outside_the_vocabulary_are_refused_and_leave_no_file(tmp_path):
    with pytest.raises(ValueError, match="a token is 300, outside the vocabulary of 256"):
        write_token_file(tmp_path / "a.bin", [np.array([300])], 256)
    assert not os.listdir(tmp_path)


def test_bytes_are_the_text():
    (tokens,) = ByteTokenizer().encode(["naïve"])
    assert bytes(tokens.tolist()) == "naïve".encode() + b"\0"


def test_byte_pairs_give_back_the_text_and_are_fewer():
    documents = [WORDS * 2000, "unseen: Æ €"]
    tokenizer = BytePairTokenizer.learned_from(documents[:1], 300)
    assert tokenizer.vocab_size == 300
    tokens = np.concatenate(list(tokenizer.encode(documents)))
    (ends,) = np.nonzero(tokens == 0)
    assert len(ends) == 2
    decode = tokenizer._tokenizer.decode
    assert decode(tokens[: ends[0]].tolist()) == documents[0]
    assert decode(tokens[ends[0] + 1 : ends[1]].tolist()) == documents[1]
    assert len(tokens) < 0.6 * sum(len(document.encode()) for document in documents)
    assert BytePairTokenizer.learned_from(documents[:1], 300).sha256 == tokenizer.sha256


def test_windows_have_every_token_once_as_a_target(corpus_folder):
    data = data_of(corpus_folder)
    tokens = read_token_file(next((corpus_folder.parent / "tokens").glob("*/train.bin")))
    windows = torch.stack([data.train_dataset[i] for i in range(len(data.train_dataset))])
    assert windows.shape == ((len(tokens) - 1) // 16, 17)
    targets = windows[:, 1:].flatten()
    assert targets.tolist() == tokens[1 : 1 + len(targets)].tolist()
    assert (windows[1:, 0] == windows[:-1, -1]).all()


def test_the_order_is_a_function_of_seed_and_epoch(corpus_folder):
    def order(seed, epoch):
        loader = data_of(corpus_folder, seed=seed).train_dataloader()
        loader.set_epoch(epoch)
        return torch.cat(list(loader))

    assert torch.equal(order(1, 0), order(1, 0))
    assert not torch.equal(order(1, 0), order(1, 1))
    assert not torch.equal(order(1, 0), order(2, 0))


def test_the_second_preparation_does_nothing(corpus_folder):
    data_of(corpus_folder)
    (path,) = (corpus_folder.parent / "tokens").glob("*/train.bin")
    before = path.stat().st_mtime_ns
    data_of(corpus_folder)
    assert path.stat().st_mtime_ns == before


def test_a_changed_corpus_is_prepared_anew_and_never_mixed(corpus_folder):
    data_of(corpus_folder)
    (corpus_folder / "val.txt").write_text("something else\n" * 30)
    changed = data_of(corpus_folder)
    assert bytes(changed.val_dataset[0].tolist()[:9]) == b"something"
    folders = list((corpus_folder.parent / "tokens").iterdir())
    assert len(folders) == 2
    with pytest.raises(ValueError, match="made from another corpus"):
        PreparedTokens.load(folders[0], "0" * 64)


@pytest.mark.parametrize("broken", ["tokens.json", "train.bin", "count"])
def test_a_damaged_preparation_is_named(corpus_folder, broken):
    data = data_of(corpus_folder)
    (folder,) = (corpus_folder.parent / "tokens").iterdir()
    if broken == "count":
        description = json.loads((folder / "tokens.json").read_text())
        description["num_tokens"]["train"] += 1
        (folder / "tokens.json").write_text(json.dumps(description))
    else:
        content = (folder / broken).read_bytes()
        (folder / broken).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="prepare it again"):
        data.setup()


def test_a_killed_preparation_leaves_nothing_under_its_name(corpus_folder, tmp_path):
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from lightning_plugins.datamodules.tokens import prepared\n"
        "from lightning_plugins.datamodules.tokens.corpus import text_files\n"
        "from lightning_plugins.datamodules.tokens.tokenizer import ByteTokenizer\n"
        "class Killed(ByteTokenizer):\n"
        "    def encode(self, documents):\n"
        "        yield from super().encode(documents[:1])\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepared.prepare(Path(sys.argv[1]), text_files(Path(sys.argv[2])), Killed())\n"
    )
    folder = tmp_path / "tokens" / "killed"
    run = subprocess.run([sys.executable, "-c", program, folder, corpus_folder], check=False)
    assert run.returncode == -signal.SIGKILL
    assert not folder.exists()
    corpus = text_files(corpus_folder)
    prepare(folder, corpus, ByteTokenizer())
    assert len(PreparedTokens.load(folder, corpus.sha256).tokens("train")) > 0


def test_bytes_per_token_are_those_of_the_text(corpus_folder):
    data = data_of(corpus_folder, tokenizer="bpe", vocab_size=280)
    num_bytes = len((corpus_folder / "val.txt").read_bytes())
    tokens = read_token_file(next((corpus_folder.parent / "tokens").glob("*/val.bin")))
    assert data.bytes_per_token["val"] == pytest.approx(num_bytes / len(tokens))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"corpus": "nowhere"}, "corpus='nowhere'"),
        ({"tokenizer": "words"}, "tokenizer='words'"),
        ({"tokenizer": "bpe", "vocab_size": 100}, "vocab_size=100"),
        ({"context_length": 0}, "context_length=0"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        TokenDataModule(**arguments)


def test_a_corpus_without_text_or_too_short_is_named(corpus_folder):
    with pytest.raises(ValueError, match="context_length=5000: train of corpus"):
        data_of(corpus_folder, context_length=5000)
    with pytest.raises(ValueError, match="no more than"):
        data_of(corpus_folder, tokenizer="bpe", vocab_size=5000)
    (corpus_folder / "val.txt").write_text("")
    with pytest.raises(ValueError, match="has no text for val"):
        data_of(corpus_folder)


def test_a_corpus_without_a_test_part_says_so(corpus_folder):
    with pytest.raises(ValueError, match=r"has no test part: add test\.txt"):
        data_of(corpus_folder).test_dataloader()


def test_the_embedded_corpus_has_no_play_on_two_sides():
    try:
        corpus = shakespeare()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    counts = {part: len(documents) for part, documents in corpus.parts.items()}
    assert counts["val"] == counts["test"] == 3
    assert counts["train"] > 30
    titles = {part: {text[:300] for text in texts} for part, texts in corpus.parts.items()}
    assert not titles["train"] & (titles["val"] | titles["test"])
    assert sum(len(text) for texts in corpus.parts.values() for text in texts) > 5_000_000


def test_the_hash_of_a_corpus_sees_a_document_that_moves():
    one = Corpus("a", {"train": ("x", "y"), "val": ("z",)})
    other = Corpus("a", {"train": ("x",), "val": ("y", "z")})
    assert one.sha256 != other.sha256
    assert one.sha256 != Corpus("a", {"train": ("xy",), "val": ("z",)}).sha256
