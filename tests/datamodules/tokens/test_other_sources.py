"""Text from Hugging Face datasets, and tokenizers of transformers."""

import json

import pytest
import torch

from lightning_plugins.datamodules import BinCorpus, HubCorpus, TokenDataModule
from lightning_plugins.datamodules.tokens.token_file import map_tokens

ROWS = [f"row {index} " * 8 for index in range(40)]


@pytest.fixture
def hub_folder(tmp_path):
    """A folder that `datasets` reads as a dataset with one split."""
    pytest.importorskip("datasets")
    return dataset_folder(tmp_path / "set", train=ROWS)


def dataset_folder(folder, **splits):
    folder.mkdir(exist_ok=True)
    for split, texts in splits.items():
        rows = [json.dumps({"body": text, "id": index}) for index, text in enumerate(texts)]
        (folder / f"{split}.jsonl").write_text("\n".join(rows))
    return folder


def parts_of(corpus):
    parts = {}
    for part, text in corpus.documents():
        parts.setdefault(part, []).append(text)
    return parts


def test_held_out_documents_depend_on_their_text_alone(hub_folder):
    parts = parts_of(HubCorpus(str(hub_folder), column="body", held_out=0.25))
    assert sorted(parts["train"] + parts["val"]) == sorted(ROWS)
    assert 4 <= len(parts["val"]) <= 16
    dataset_folder(hub_folder, train=[text for text in reversed(ROWS) for _ in range(2)])
    twice = parts_of(HubCorpus(str(hub_folder), column="body", held_out=0.25))
    assert set(twice["val"]) == set(parts["val"])
    assert not set(twice["val"]) & set(twice["train"])


def test_splits_of_the_dataset_become_parts(hub_folder):
    dataset_folder(hub_folder, validation=["a validation text"], test=["a test text"])
    parts = parts_of(HubCorpus(str(hub_folder), column="body"))
    assert parts == {"train": ROWS, "val": ["a validation text"], "test": ["a test text"]}


@pytest.mark.parametrize("most", [1, 7, 100])
def test_max_documents_limits_each_split(hub_folder, most):
    dataset_folder(hub_folder, validation=ROWS[:3])
    parts = parts_of(HubCorpus(str(hub_folder), column="body", max_documents=most))
    assert parts["train"] == ROWS[:most]
    assert parts["val"] == ROWS[: min(most, 3)]


@pytest.mark.parametrize(
    ("file", "corpus"),
    [("train/a.txt", str), ("train.jsonl.gz", HubCorpus), ("train/0.parquet", HubCorpus),
     ("val_000000.bin", BinCorpus)],
)  # fmt: skip
def test_the_files_of_a_folder_decide_how_it_is_read(tmp_path, file, corpus):
    for name in (file, "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert isinstance(TokenDataModule(str(tmp_path)).corpus, corpus)


def test_a_dataset_saved_to_disk_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    split = datasets.Dataset.from_dict({"text": ROWS})
    split.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": split, "val": split.select(range(2))}).save_to_disk(
        tmp_path / "several"
    )
    one = parts_of(HubCorpus(str(tmp_path / "one"), held_out=0.25))
    assert len(one["train"]) + len(one["val"]) == 40
    assert parts_of(HubCorpus(str(tmp_path / "several")))["val"] == ROWS[:2]


def test_a_dataset_is_tokenized(hub_folder, tmp_path):
    dataset_folder(hub_folder, validation=ROWS[:3])
    data = TokenDataModule(
        HubCorpus(str(hub_folder), column="body"), context_length=16, data_dir=str(tmp_path / "t")
    )
    data.prepare_data()
    data.setup()
    windows = torch.cat([window[:-1] for window in data.train_dataset])
    assert bytes(windows.tolist()).startswith(b"row 0 row 0")
    assert data.bytes_per_token["val"] == len("row 0 " * 8) / (len("row 0 " * 8) + 1)


def test_a_short_name_selects_the_dataset_of_the_papers():
    data = TokenDataModule("hub:c4")
    assert data.corpus == HubCorpus("c4")
    assert data.corpus.fingerprint == HubCorpus("allenai/c4", "en").fingerprint
    other = [HubCorpus("c4", revision="main"), HubCorpus("c4", max_documents=3), HubCorpus("x/y")]
    assert len({corpus.fingerprint for corpus in (data.corpus, *other)}) == 4


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ('{"text": "a"}\n{"text": null}', r"row 2 of .* has no text there, but None"),
        ('{"text": "a"}\n{"text": ', r"after row \d .*mend the file"),
        (b'{"text": "caf\xe9"}', r"after row 0 .*mend the file"),
        (b'{"text": "\\ud800"}', r"after row 0 .*mend the file"),
        ("", "expected files of a format"),
    ],
)
def test_errors_name_the_row_of_a_broken_file(tmp_path, lines, named):
    path = tmp_path / "data.jsonl"
    path.write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    with pytest.raises(ValueError, match=named):
        parts_of(HubCorpus(str(path)))


def test_a_text_within_a_column_is_read(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f'{{"meta": {{"text": "text {number}"}}}}\n' for number in range(9)))
    found = [text for _, text in HubCorpus(str(path), column="meta.text").documents()]
    assert sorted(found) == [f"text {number}" for number in range(9)]
    with pytest.raises(ValueError, match=r"column='meta.body': row 1 .*None.*\['meta'\]"):
        parts_of(HubCorpus(str(path), column="meta.body"))


def test_errors_name_the_fault_of_a_dataset(hub_folder):
    with pytest.raises(ValueError, match=r"column='text'.*its columns are \['body', 'id'\]"):
        parts_of(HubCorpus(str(hub_folder)))
    with pytest.raises(FileNotFoundError, match=r"'nobody/nothing'.*cannot be read.*hf download"):
        parts_of(HubCorpus("nobody/nothing"))
    for arguments in ({"held_out": 0.0}, {"held_out": 1.0}, {"max_documents": 0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            HubCorpus("nobody/nothing", **arguments)
    (hub_folder / "train.jsonl").rename(hub_folder / "test.jsonl")
    with pytest.raises(ValueError, match=r"splits \['test'\]: expected one named train"):
        parts_of(HubCorpus(str(hub_folder), column="body"))


@pytest.fixture
def save_tokenizer(tmp_path):
    """Return a function that saves a word tokenizer, always to the same folder."""
    tokenizers = pytest.importorskip("tokenizers")
    from transformers import PreTrainedTokenizerFast

    def save(words, **special_tokens):
        vocabulary = {word: index for index, word in enumerate([*words, "[UNK]", "[END]"])}
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, unk_token="[UNK]", **special_tokens
        )
        fast.save_pretrained(tmp_path / "tokenizer")
        return str(tmp_path / "tokenizer")

    return save


@pytest.fixture
def words_with(tmp_path):
    """Return a function that prepares a few words with a tokenizer."""
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "train.txt").write_text("one two three two one " * 9)
    (folder / "val.txt").write_text("three two " * 9)

    def words_with(tokenizer, **arguments):
        data = TokenDataModule(
            str(folder),
            tokenizer,
            context_length=4,
            data_dir=str(tmp_path / "tokens"),
            **arguments,
        )
        data.prepare_data()
        data.setup()
        return data

    return words_with


def test_a_tokenizer_of_transformers_encodes_the_corpus(words_with, save_tokenizer):
    data = words_with(save_tokenizer(["one", "two", "three"], eos_token="[END]"))
    assert data.vocab_size == 5
    assert data.train_dataset[0].tolist() == [0, 1, 2, 1, 0]
    assert map_tokens(data.train_dataset.paths[0])[-1] == 4  # [END]


def test_a_changed_tokenizer_prepares_new_tokens(words_with, save_tokenizer, tmp_path):
    words_with(save_tokenizer(["one", "two", "three"], eos_token="[END]"))
    data = words_with(save_tokenizer(["three", "two", "one"], eos_token="[END]"))
    assert data.train_dataset[0].tolist() == [2, 1, 0, 1, 2]
    assert len(list(tmp_path.glob("tokens/words-tokenizer-*"))) == 2


def test_an_unusable_tokenizer_is_refused(words_with, save_tokenizer):
    with pytest.raises(ValueError, match="tokenizer='wrods': expected 'bytes', 'bpe', or a"):
        words_with("wrods")
    with pytest.raises(ValueError, match="has no end-of-sequence token"):
        words_with(save_tokenizer(["one", "two", "three"]))


def test_changed_byte_pairs_are_refused(words_with, tmp_path):
    data = words_with("bpe", vocab_size=260)
    (path,) = tmp_path.glob("tokens/words-*/tokenizer.json")
    path.write_text(path.read_text().replace("0", "1", 1))
    with pytest.raises(ValueError, match=r"another tokenizer than its tokenizer\.json"):
        data.setup()
