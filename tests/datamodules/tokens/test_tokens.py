import json
import os

import numpy as np
import pytest
import torch

from lightning_plugins.datamodules import TokenDataModule
from lightning_plugins.datamodules.tokens.corpus import TextCorpus, shakespeare, text_files
from lightning_plugins.datamodules.tokens.preparation import PreparedTokens
from lightning_plugins.datamodules.tokens.token_file import read_token_file, write_token_file
from lightning_plugins.datamodules.tokens.tokenizers import (
    BytePairTokenizer,
    ByteTokenizer,
    sha256_of,
)

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
def test_a_token_file_returns_the_written_tokens(tmp_path, vocab_size, bytes_each):
    chunks = [np.arange(5), np.zeros(0, int), np.array([vocab_size - 1])]
    assert write_token_file(tmp_path / "a.bin", chunks, vocab_size) == 6
    tokens = read_token_file(tmp_path / "a.bin")
    assert tokens.tolist() == [0, 1, 2, 3, 4, vocab_size - 1]
    assert (tmp_path / "a.bin").stat().st_size == 1024 + 6 * bytes_each
    header = np.fromfile(tmp_path / "a.bin", "<i4", 256)
    assert header[:4].tolist() == [20240520, 1 if bytes_each == 2 else 2, 6, 0]


@pytest.mark.parametrize("change", ["truncated", "longer", "no header", "not one"])
def test_the_error_names_a_corrupt_token_file(tmp_path, change):
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


def test_byte_tokens_are_the_bytes_of_the_text():
    tokens = ByteTokenizer().encode(["naïve", "x"])
    assert bytes(tokens.tolist()) == "naïve".encode() + b"\0x\0"


def test_byte_pairs_decode_to_the_text_and_are_fewer_than_bytes():
    documents = [WORDS * 2000, "unseen: Æ €"]
    tokenizer = BytePairTokenizer.learned_from(documents[:1], 300)
    assert tokenizer.vocab_size == 300
    tokens = tokenizer.encode(documents)
    (ends,) = np.nonzero(tokens == 0)
    assert len(ends) == 2
    decode = tokenizer._tokenizer.decode
    assert decode(tokens[: ends[0]].tolist()) == documents[0]
    assert decode(tokens[ends[0] + 1 : ends[1]].tolist()) == documents[1]
    assert len(tokens) < 0.6 * sum(len(document.encode()) for document in documents)
    assert sha256_of(BytePairTokenizer.learned_from(documents[:1], 300)) == sha256_of(tokenizer)


def test_every_token_is_a_target_once(corpus_folder):
    data = data_of(corpus_folder)
    tokens = read_token_file(next((corpus_folder.parent / "tokens").glob("*/train.bin")))
    windows = torch.stack([data.train_dataset[i] for i in range(len(data.train_dataset))])
    assert windows.shape == ((len(tokens) - 1) // 16, 17)
    targets = windows[:, 1:].flatten()
    assert targets.tolist() == tokens[1 : 1 + len(targets)].tolist()
    assert (windows[1:, 0] == windows[:-1, -1]).all()


def test_the_order_depends_on_seed_and_epoch(corpus_folder):
    def order(seed, epoch):
        loader = data_of(corpus_folder, seed=seed).train_dataloader()
        loader.set_epoch(epoch)
        return torch.cat(list(loader))

    assert torch.equal(order(1, 0), order(1, 0))
    assert not torch.equal(order(1, 0), order(1, 1))
    assert not torch.equal(order(1, 0), order(2, 0))


def test_a_second_preparation_does_nothing(corpus_folder):
    data_of(corpus_folder)
    (path,) = (corpus_folder.parent / "tokens").glob("*/train.bin")
    before = path.stat().st_mtime_ns
    data_of(corpus_folder)
    assert path.stat().st_mtime_ns == before


def test_a_changed_corpus_is_prepared_again_in_another_folder(corpus_folder):
    before = text_files(corpus_folder).fingerprint
    data_of(corpus_folder)
    (corpus_folder / "val.txt").write_text("something else\n" * 30)
    changed = data_of(corpus_folder)
    assert bytes(changed.val_dataset[0].tolist()[:9]) == b"something"
    folders = list((corpus_folder.parent / "tokens").glob("corpus-*"))
    assert len(folders) == 2
    (old,) = (folder for folder in folders if folder.name.endswith(before[:12]))
    with pytest.raises(ValueError, match="prepared from another version of corpus 'corpus'"):
        PreparedTokens.load(old, text_files(corpus_folder), ByteTokenizer())


@pytest.mark.parametrize("broken", ["tokens.json", "train.bin", "count"])
def test_a_damaged_preparation_is_refused(corpus_folder, broken):
    data = data_of(corpus_folder)
    (folder,) = (corpus_folder.parent / "tokens").glob("corpus-*")
    if broken == "count":
        description = json.loads((folder / "tokens.json").read_text())
        description["parts"]["train"]["num_tokens"] += 1
        (folder / "tokens.json").write_text(json.dumps(description))
    else:
        content = (folder / broken).read_bytes()
        (folder / broken).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="prepare it again"):
        data.setup()


def test_bytes_per_token_match_the_text(corpus_folder):
    data = data_of(corpus_folder, tokenizer="bpe", vocab_size=280)
    num_bytes = len((corpus_folder / "val.txt").read_bytes())
    tokens = read_token_file(next((corpus_folder.parent / "tokens").glob("*/val.bin")))
    assert data.bytes_per_token["val"] == pytest.approx(num_bytes / len(tokens))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"corpus": "nowhere"}, "corpus='nowhere'"),
        ({"tokenizer": "bpe", "vocab_size": 100}, "vocab_size=100"),
        ({"context_length": 0}, "context_length=0"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_errors_name_the_invalid_argument(arguments, named):
    with pytest.raises(ValueError, match=named):
        TokenDataModule(**arguments)


def test_a_corpus_without_text_or_with_too_little_text_is_refused(corpus_folder):
    with pytest.raises(ValueError, match="context_length=5000: train of corpus"):
        data_of(corpus_folder, context_length=5000)
    with pytest.raises(ValueError, match="no more than"):
        data_of(corpus_folder, tokenizer="bpe", vocab_size=5000)
    (corpus_folder / "val.txt").write_text("")
    with pytest.raises(ValueError, match="has no text for val"):
        data_of(corpus_folder)


def test_a_document_is_its_text_without_a_byte_order_mark(corpus_folder):
    (corpus_folder / "val.txt").write_bytes(b"\xef\xbb\xbfabc " + b"def " * 50)
    assert bytes(data_of(corpus_folder).val_dataset[0][:4].tolist()) == b"abc "


def test_a_text_that_would_end_documents_is_refused(corpus_folder):
    (corpus_folder / "val.txt").write_text("ab\0cd " * 50)
    with pytest.raises(ValueError, match="contains the character NUL, which ends documents"):
        data_of(corpus_folder)


def test_a_part_that_is_both_a_file_and_a_folder_is_refused(corpus_folder):
    (corpus_folder / "val").mkdir()
    (corpus_folder / "val" / "1.txt").write_text("abc")
    with pytest.raises(ValueError, match=r"both val\.txt and texts in val: remove one"):
        data_of(corpus_folder)


def test_a_corpus_without_a_test_part_is_refused_for_testing(corpus_folder):
    with pytest.raises(ValueError, match=r"has no test part: add test\.txt"):
        data_of(corpus_folder).test_dataloader()


def test_no_play_of_the_embedded_corpus_is_in_two_parts():
    try:
        corpus = shakespeare()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    texts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for part, text in corpus.documents():
        texts[part].append(text)
    assert len(texts["val"]) == len(texts["test"]) == 3
    assert len(texts["train"]) > 30
    titles = {part: {text[:300] for text in several} for part, several in texts.items()}
    assert not titles["train"] & (titles["val"] | titles["test"])
    assert 5_000_000 < corpus.num_bytes < 6_000_000


def test_the_fingerprint_changes_if_text_moves_between_files(tmp_path):
    x, y, z = (tmp_path / f"{name}.txt" for name in "xyz")
    for path in (x, y, z):
        path.write_text(path.stem)
    one = TextCorpus("a", {"train": (x, y), "val": (z,)})
    assert one.fingerprint == TextCorpus("b", {"train": (x, y), "val": (z,)}).fingerprint
    assert one.fingerprint != TextCorpus("a", {"train": (x,), "val": (y, z)}).fingerprint
    assert one.fingerprint != TextCorpus("a", {"train": (y, x), "val": (z,)}).fingerprint
    x.write_text("xy")
    y.write_text("")
    assert one.fingerprint != TextCorpus("a", {"train": (x, y), "val": (z,)}).fingerprint


def test_the_error_names_a_file_that_is_not_utf8(corpus_folder):
    (corpus_folder / "val.txt").write_bytes("naïve ".encode("latin1") * 50)
    with pytest.raises(ValueError, match=r"val\.txt is not UTF-8 \(byte 2\): convert it"):
        data_of(corpus_folder)
