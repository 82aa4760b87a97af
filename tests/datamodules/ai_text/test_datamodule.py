"""The DataModule of texts: cleaning, splitting, reading of formats, and errors."""

import io
import json

import pytest
import torch
from lightning.pytorch import Trainer
from marker_corpus import write_marker_corpus

from lightning_plugins.datamodules import AITextDataModule
from lightning_plugins.datamodules.ai_text.dataset_readers import hub_samples, read_samples
from lightning_plugins.datamodules.ai_text.given_texts import given_texts
from lightning_plugins.datamodules.ai_text.splits import cleaned, leak_report, split_by_source
from lightning_plugins.datamodules.ai_text.text_sample import Sample


def numbered(count, start=0):
    return " ".join(f"word{start + i}" for i in range(count))


@pytest.fixture
def data(tmp_path):
    write_marker_corpus(tmp_path / "texts.jsonl", count=120)
    found = AITextDataModule(str(tmp_path / "texts.jsonl"), min_words=1, split_seed=1)
    found.setup()
    return found


def test_parts_have_their_shares_and_no_common_source(data):
    parts = {part: data.samples(part) for part in ("train", "val", "test")}
    sources = [{one.source for one in samples} for samples in parts.values()]
    assert sum(map(len, sources)) == len(set().union(*sources))
    total = sum(map(len, parts.values()))
    assert len(parts["test"]) == pytest.approx(0.2 * total, abs=1)
    assert len(parts["val"]) == pytest.approx(0.2 * total, abs=1)


def test_a_batch_has_texts_labels_domains_and_generators(data):
    batch = next(iter(data.train_dataloader()))
    assert len(batch["text"]) == len(batch["domain"]) == len(batch["generator"]) == 16
    assert batch["label"].dtype == torch.int64
    by_text = {one.text: one.label for one in data.samples("train")}
    assert [by_text[text] for text in batch["text"]] == batch["label"].tolist()


def test_the_split_depends_on_split_seed_and_the_order_on_seed(tmp_path):
    write_marker_corpus(tmp_path / "texts.jsonl", count=120)

    def first(**seeds):
        found = AITextDataModule(str(tmp_path / "texts.jsonl"), min_words=1, **seeds)
        found.setup()
        return found.samples("test"), next(iter(found.train_dataloader()))["text"]

    assert first() == first()
    assert first()[0] == first(seed=1)[0] != first(split_seed=1)[0]
    assert first()[1] != first(seed=1)[1]


def test_texts_of_a_pair_are_cut_to_one_length_and_removed_together_if_too_short():
    samples = [
        Sample(numbered(50), 0, "a", pair="1"),
        Sample(numbered(35, 100), 1, "a", pair="1"),
        Sample(numbered(60, 200), 0, "b", pair="2"),
        Sample(numbered(5, 300), 1, "b", pair="2"),
        Sample(numbered(80, 400), 0, "c"),
    ]
    kept, cleaning = cleaned(samples, min_words=30, max_words=40, skip_words=0)
    assert [len(one.text.split()) for one in kept] == [35, 35, 40]
    assert cleaning.short == 2
    skipped, _ = cleaned(samples[:1], min_words=1, max_words=3, skip_words=2)
    assert skipped[0].text == "word2 word3 word4"


def test_duplicates_and_contradictory_texts_are_removed():
    same, other = numbered(30), numbered(30, 100)
    samples = [
        Sample(same, 0, "a"),
        Sample(f"{same.upper()}, and more", 0, "b"),
        Sample(other, 0, "c"),
        Sample(other, 1, "d"),
        Sample(numbered(30, 200), 1, "e"),
    ]
    kept, cleaning = cleaned(samples, 1, 40, 0)
    assert [one.source for one in kept] == ["a", "e"]
    assert (cleaning.duplicates, cleaning.contradictory) == (1, 2)


def test_the_report_counts_the_overlap_of_training_and_test():
    train = [Sample(numbered(12), 0, "a"), Sample(numbered(12, 50), 1, "a")]
    test = [Sample(numbered(8, 4), 0, "b"), Sample(numbered(7, 54), 1, "b")]
    _, cleaning = cleaned([*train, *test], 1, 40, 0)
    report = leak_report({"train": train, "val": [], "test": test}, cleaning)
    assert report.overlapping == 1  # seven consecutive words are too few
    assert report.shared_sources == 0
    assert report.texts["train"] == (1, 1)
    assert report.mean_words["test"] == (8.0, 7.0)
    assert "1 test texts share 8 consecutive words" in str(report)


def test_every_part_has_every_domain():
    samples = [Sample(numbered(3, i), 0, f"{i // 2}", domain="ab"[i % 40 < 4]) for i in range(400)]
    for texts in split_by_source(samples, 0.2, 0.2, seed=0).values():
        assert {one.domain for one in texts} == {"a", "b"}


def pairs_file(folder, domain, generator, count=20):
    prompt = "the same five words begin"
    content = {
        "original": [f"{prompt} h{i} {domain} {numbered(40, 100 * i)}" for i in range(count)],
        "sampled": [
            f"{prompt} {generator}{i} {domain} {numbered(40, 100 * i + 50)}" for i in range(count)
        ],
    }
    # Each pair has its own prompt, as in the published files.
    for texts in content.values():
        texts[:] = [f"{i}opening {text}" for i, text in enumerate(texts)]
    (folder / f"{domain}_{generator}.raw_data.json").write_text(json.dumps(content))


def test_the_common_opening_of_pairs_is_removed_and_patterns_select_samples(tmp_path):
    for domain, generator in (("news", "m1"), ("news", "m2"), ("papers", "m1")):
        pairs_file(tmp_path, domain, generator)
    samples = read_samples(tmp_path)
    assert len(samples) == 3 * 40
    assert samples[0].text.split()[0] == "h0"
    assert samples[1].text.split()[0] == "m10"
    assert {(one.domain, one.generator) for one in samples if one.label} == {
        ("news", "m1"),
        ("news", "m2"),
        ("papers", "m1"),
    }
    data = AITextDataModule(str(tmp_path), train_on=["news/m1"], test_on=["papers/*"])
    data.setup()
    assert {(s.domain, s.generator) for s in data.samples("train")} == {
        ("news", "human"),
        ("news", "m1"),
    }
    assert {s.domain for s in data.samples("val")} == {"news"}
    assert {s.domain for s in data.samples("test")} == {"papers"}
    # One human text that several generators continued is one source, in one part.
    whole = AITextDataModule(str(tmp_path))
    whole.setup()
    assert whole.leak_report.shared_sources == 0
    with pytest.raises(ValueError, match=r"train_on=\['news/m9'\].*0 AI.*available: .*news/m1"):
        AITextDataModule(str(tmp_path), train_on=["news/m9"]).setup()


def test_records_of_seqxgpt_rows_of_raid_and_labels_of_scrn_are_read(tmp_path):
    lines = [{"text": "a b", "label": "human"}, {"text": "c d", "label": "gpt3re"}]
    (tmp_path / "x_lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "raid.csv").write_text(
        "id,source_id,model,attack,domain,generation\n"
        '1,s1,human,none,news,"two\nlines"\n2,s1,llama,none,news,text\n3,s1,llama,case,news,TEXT\n'
    )
    (tmp_path / "scrn.json").write_text(json.dumps([{"text": "e f", "labels": 1}]))
    found = [(s.text, s.label, s.generator, s.domain) for s in read_samples(tmp_path)]
    assert found == [
        ("two\nlines", 0, "human", "news"),
        ("text", 1, "llama", "news"),
        ("e f", 1, "ai", ""),
        ("a b", 0, "human", ""),
        ("c d", 1, "gpt3re", ""),
    ]
    assert read_samples(tmp_path / "raid.csv")[0].source == "s1"


def test_the_id_of_a_record_is_not_its_source(tmp_path):
    opening = "the river had risen in the night and by morning"
    lines = [{"id": n, "text": f"{opening} {n}", "label": n} for n in (0, 1)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    first, second = read_samples(tmp_path / "x.jsonl")
    assert first.source == second.source


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_a_text_may_contain_line_separators_that_json_does_not_escape(tmp_path, separator):
    text = f"a b{separator}c d"
    line = json.dumps({"text": text, "label": 0}, ensure_ascii=False)
    (tmp_path / "x.jsonl").write_text(f"{line}\r\n{line}\n", "utf-8")
    assert [sample.text for sample in read_samples(tmp_path / "x.jsonl")] == [text, text]
    assert given_texts(str(tmp_path / "x.jsonl")) == [("1", text), ("2", text)]


def test_hc3_and_raid_are_loaded_with_datasets(monkeypatch):
    datasets = pytest.importorskip("datasets")
    rows = {
        "Hello-SimpleAI/HC3": [
            {
                "question": "why?",
                "human_answers": ["because", " "],
                "chatgpt_answers": ["As an AI"],
                "source": "finance",
            }
        ],
        "liamdugan/raid": [
            {
                "generation": "t",
                "model": "gpt4",
                "domain": "news",
                "source_id": "7",
                "attack": "none",
            }
        ],
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, split: rows[name])
    human, machine = hub_samples("hc3")
    assert (human.text, human.label, human.generator) == ("because", 0, "human")
    assert (machine.label, machine.generator, machine.domain) == (1, "chatgpt", "finance")
    assert human.source == machine.source
    (generation,) = hub_samples("raid")
    assert (generation.label, generation.source, generation.generator) == (1, "7", "gpt4")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}', "no label"),
        ("a.jsonl", '{"label": 1}', "no column is named as the text"),
        ("a.jsonl", "{", "not JSON"),
        ("a.json", '{"original": ["a"], "sampled": []}', "different lengths"),
        ("a.json", '{"original": ["a"]}', "no column is named as the text"),
    ],
)
def test_the_error_names_a_file_of_an_unknown_format(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_samples(tmp_path)
    assert name in str(caught.value)


def test_the_error_names_a_missing_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        AITextDataModule(str(tmp_path / "nowhere")).setup()
    with pytest.raises(ValueError, match="has no table"):
        AITextDataModule(str(tmp_path)).setup()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        given_texts(str(tmp_path / "nowhere"))


def test_texts_to_predict_come_from_a_file_or_standard_input(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a whole\n\ntext")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n')
    (tmp_path / "a.csv").write_text('text\n"one\ntext"\n')
    assert given_texts(str(tmp_path / "a.txt")) == [("a.txt", "a whole\n\ntext")]
    assert given_texts(str(tmp_path / "a.jsonl")) == [("1", "one"), ("2", "two")]
    assert given_texts(str(tmp_path / "a.csv")) == [("1", "one\ntext")]
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe"))
    assert given_texts("-") == [("-", "from a pipe")]
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(ValueError, match="contains no text"):
        given_texts(str(tmp_path / "empty.txt"))
    data = AITextDataModule(predict_path=str(tmp_path / "a.jsonl"))
    data.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    data.prepare_data()
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert batches == [{"text": ["one"], "id": ["1"]}, {"text": ["two"], "id": ["2"]}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_words": 0}, "min_words=0"),
        ({"max_words": 20}, "max_words=20"),
        ({"val_share": 0.0}, r"val_share=0\.0"),
        ({"test_share": 0.8}, r"val_share \+ test_share below 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_pairs": 9}, "num_pairs=9"),
        ({"skip_words": -1}, "skip_words=-1"),
    ],
)
def test_the_error_names_an_argument_outside_its_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        AITextDataModule(**arguments)
