"""Preparation of tokens: resuming, damage, concurrent processes, and text statistics."""

import json
import lzma
import multiprocessing
import os
import signal

import numpy as np
import pytest

from lightning_plugins.datamodules.tokens.corpus import text_files
from lightning_plugins.datamodules.tokens.preparation import PreparedTokens, prepare
from lightning_plugins.datamodules.tokens.statistics import StatisticsOfText, entropy_bits
from lightning_plugins.datamodules.tokens.token_file import read_token_file
from lightning_plugins.datamodules.tokens.tokenizers import ByteTokenizer

TEXTS = [f"document {index} " * 20 for index in range(10)]
CHUNK_CHARACTERS = 3 * len(TEXTS[0])  # of the ten documents, shards of 3, 3, 3 and 1

# A fork has the imports of this process already.
_FORK = multiprocessing.get_context("fork")


class CountingTokenizer(ByteTokenizer):
    """Bytes; counts the documents that it encoded."""

    def __init__(self):
        self.num_documents = 0

    def encode(self, documents):
        self.num_documents += len(documents)
        return super().encode(documents)


class KilledAtAShard(ByteTokenizer):
    """Bytes; kills the process before it encodes shard ``kill_at``, counted from 1."""

    def __init__(self, kill_at):
        self.remaining = kill_at

    def encode(self, documents):
        self.remaining -= 1
        if self.remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(documents)


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "ten"
    (folder / "train").mkdir(parents=True)
    for index, text in enumerate(TEXTS):
        (folder / "train" / f"{index}.txt").write_text(text)
    (folder / "val.txt").write_text("a few words " * 30)
    return text_files(folder)


def start(folder, corpus, kill_at=0, chunk_characters=CHUNK_CHARACTERS):
    process = _FORK.Process(
        target=prepare,
        args=(folder, corpus, lambda: KilledAtAShard(kill_at)),
        kwargs={"chunk_characters": chunk_characters},
    )
    process.start()
    return process


def exit_code_of(process):
    process.join(60)
    process.kill()
    return process.exitcode


def prepare_here(folder, corpus):
    tokenizer = CountingTokenizer()
    prepare(folder, corpus, lambda: tokenizer, chunk_characters=CHUNK_CHARACTERS)
    return tokenizer.num_documents


def contents_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(("kill_at", "encoded_before"), [(3, 6), (5, 10)])
def test_a_killed_preparation_resumes_with_the_missing_shards(
    tmp_path, corpus, kill_at, encoded_before
):
    assert exit_code_of(start(tmp_path / "killed", corpus, kill_at)) == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    assert prepare_here(tmp_path / "killed", corpus) == 11 - encoded_before
    assert prepare_here(tmp_path / "straight", corpus) == 11
    assert contents_of(tmp_path / "killed") == contents_of(tmp_path / "straight")
    assert not [path.name for path in tmp_path.iterdir() if path.suffix in (".shards", ".tmp")]


def test_a_damaged_shard_is_encoded_again(tmp_path, corpus):
    assert exit_code_of(start(tmp_path / "killed", corpus, kill_at=3)) == -signal.SIGKILL
    shard = min(tmp_path.glob(".killed.shards/*.bin"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert prepare_here(tmp_path / "killed", corpus) == 11 - 6 + 3
    prepare_here(tmp_path / "straight", corpus)
    assert contents_of(tmp_path / "killed") == contents_of(tmp_path / "straight")


def test_shards_of_changed_text_are_not_used(tmp_path, corpus):
    assert exit_code_of(start(tmp_path / "killed", corpus, kill_at=3)) == -signal.SIGKILL
    (tmp_path / "ten" / "train" / "0.txt").write_text(TEXTS[0].upper())
    changed = text_files(tmp_path / "ten")
    assert prepare_here(tmp_path / "killed", changed) == 11 - 3
    tokens = read_token_file(tmp_path / "killed" / "train.bin")
    assert bytes(tokens[:10].tolist()) == b"DOCUMENT 0"


def test_two_processes_prepare_the_same_folder_safely(tmp_path, corpus):
    both = [start(tmp_path / "tokens", corpus, chunk_characters=1) for _ in range(2)]
    assert [exit_code_of(process) for process in both] == [0, 0]
    found = PreparedTokens.load(tmp_path / "tokens", corpus, ByteTokenizer())
    text = b"".join(text.encode() + b"\0" for text in TEXTS)
    assert read_token_file(found.path("train")).astype(np.uint8).tobytes() == text
    assert not [path.name for path in tmp_path.iterdir() if path.suffix in (".shards", ".tmp")]


def test_an_error_leaves_no_folder(tmp_path, corpus):
    class Broken(ByteTokenizer):
        def encode(self, documents):
            return super().encode(documents).astype(int) + 256

    with pytest.raises(ValueError, match="outside the vocabulary of 256"):
        prepare(tmp_path / "tokens", corpus, Broken)
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize("damage", ["another corpus", "tokenizer.json", "no val.bin", "vocabulary"])
def test_files_that_do_not_match_are_refused(tmp_path, corpus, damage):
    folder = tmp_path / "tokens"
    prepare_here(folder, corpus)
    expected = "prepare it again"
    if damage == "another corpus":
        (tmp_path / "ten" / "val.txt").write_text("others")
        corpus, expected = text_files(tmp_path / "ten"), "from another version of corpus 'ten'"
    elif damage == "tokenizer.json":
        (folder / damage).write_text('{"type": "other"}')
        expected = r"another tokenizer than its tokenizer\.json.*would be decoded as other text"
    elif damage == "no val.bin":
        (folder / "val.bin").unlink()
        expected = r"val\.bin is missing"
    else:
        description = json.loads((folder / "tokens.json").read_text())
        description["vocab_size"] = 2**16 + 1
        (folder / "tokens.json").write_text(json.dumps(description))
        expected = r"tokens of 16 bits, too few for vocab_size=65537"
    with pytest.raises(ValueError, match=expected):
        PreparedTokens.load(folder, corpus, ByteTokenizer())


def test_a_changed_token_is_detected_in_a_file_of_the_right_length(tmp_path, corpus):
    prepare_here(tmp_path / "tokens", corpus)
    path = tmp_path / "tokens" / "train.bin"
    content = bytearray(path.read_bytes())
    content[1500] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train\.bin is corrupt: the SHA-256 of its tokens"):
        PreparedTokens.load(tmp_path / "tokens", corpus, ByteTokenizer())


def test_the_statistics_match_the_text(tmp_path, corpus):
    prepare_here(tmp_path / "tokens", corpus)
    parts = PreparedTokens.load(tmp_path / "tokens", corpus, ByteTokenizer()).parts
    train, val = parts["train"], parts["val"]
    assert (train.num_documents, val.num_documents) == (10, 1)
    assert train.num_bytes == sum(map(len, TEXTS))
    assert train.num_tokens == train.num_bytes + 10
    assert val.bytes_per_token == 360 / 361
    text = ("a few words " * 30).encode() + b"\0"
    assert val.xz_bits_per_byte == 8 * len(lzma.compress(text, preset=9)) / len(text)
    assert train.xz_bits_per_byte is None
    counts = np.bincount(np.frombuffer(text, np.uint8))
    shares = counts[counts > 0] / len(text)
    assert val.unigram_bits_per_token == pytest.approx(-(shares * np.log2(shares)).sum())


def test_entropy_and_compression_of_three_random_bits():
    assert entropy_bits(np.array([5, 5, 5, 5, 0])) == 2
    assert entropy_bits(np.array([7, 0])) == 0
    text = np.random.default_rng(0).integers(97, 105, 20_000, np.uint8).tobytes()
    statistics = StatisticsOfText(with_xz=True)
    statistics.add([text[:9000], text[9000:]])
    assert 3 < statistics.with_token_counts(np.ones(8)).xz_bits_per_byte < 3.4


def test_the_progress_bar_is_hidden_without_a_terminal(tmp_path, corpus, capfd):
    prepare_here(tmp_path / "tokens", corpus)
    assert "tokens of" not in capfd.readouterr().err
