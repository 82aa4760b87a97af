"""Text data sets in the forms in which the field publishes them, and labels in all notations."""

import gzip
import itertools
import json
import random
import zipfile
from pathlib import Path

import pandas
import pytest

from lightning_plugins.datamodules import AITextDataModule
from lightning_plugins.datamodules.ai_text.dataset_readers import TableOptions, read_samples
from lightning_plugins.datamodules.ai_text.given_texts import given_texts
from lightning_plugins.datamodules.ai_text.labels import read_labels
from lightning_plugins.datamodules.ai_text.splits import cleaned, split_by_source
from lightning_plugins.datamodules.ai_text.text_sample import Sample

DRAW = random.Random(0)


def words(count=12):
    return " ".join(DRAW.choices([f"w{i}" for i in range(3000)], k=count))


def jsonl(folder, name, records):
    (folder / name).write_text("\n".join(map(json.dumps, records)))
    return folder / name


def reading(path, **options):
    reports = []
    samples = read_samples(path, TableOptions(**options), reports.append)
    return samples, "\n".join(reports)


STYLES = {
    "whole": ("0", "1"),
    "float": ("0.0", "1.0"),
    "boolean": ("False", "True"),
    "lower": ("false", "true"),
    "yes": ("no", "yes"),
    "names": ("human", "ai"),
    "generators": ("Human", "gpt-4"),
    "real": ("real", "fake"),
    "letters": ("N", "Y"),
    "words": ("Human written", "AI-generated"),
}


def test_all_label_styles_are_read_in_all_formats(tmp_path):
    for (style, (human, ai)), suffix in itertools.product(STYLES.items(), ("csv", "tsv", "jsonl")):
        rows = [{"text": words(), "label": ai if place % 3 else human} for place in range(12)]
        table = pandas.DataFrame(rows)
        path = tmp_path / f"{style}.{suffix}"
        if suffix == "jsonl":
            jsonl(tmp_path, path.name, rows)
        else:
            table.to_csv(path, index=False, sep={"csv": ";", "tsv": "\t"}[suffix])
        samples, report = reading(path)
        assert [one.label for one in samples] == [int(place % 3 > 0) for place in range(12)], style
        assert [one.text for one in samples] == table["text"].tolist()
        assert "12 rows, 0 dropped" in report
    for values in ([0, 1], [0.0, 1.0], [False, True]):
        assert read_labels(pandas.Series(values, name="label")).numbers == [0, 1]
    assert read_labels(pandas.Series([True, False], name="is_human")).numbers == [0, 1]


def test_unclear_labels_are_an_error_that_shows_the_option(tmp_path):
    path = jsonl(tmp_path, "a.jsonl", [{"text": words(), "label": n} for n in (1, 2, 1)])
    with pytest.raises(ValueError, match=r"column 'label' has the values '1', '2'.*set labels"):
        reading(path)
    samples, report = reading(path, labels={"1": "human", "2": "ai"})
    assert [one.label for one in samples] == [0, 1, 0]
    assert "1 = human, 2 = ai" in report
    with pytest.raises(ValueError, match="expected 'human', 'ai' or 'drop' for each value"):
        reading(path, labels={"1": "human"})
    path = jsonl(tmp_path, "b.jsonl", [{"text": words(), "flag": n} for n in (0, 1, 1)])
    with pytest.raises(ValueError, match=r"no label: expected columns=\{'label': 'flag'\}"):
        reading(path)
    assert sum(one.label for one in reading(path, columns={"label": "flag"})[0]) == 2


@pytest.mark.parametrize(
    "names",
    [("ai", "not AI"), ("human", "ai", "mixed"), ("human", "gpt-4", "human edited gpt-4")],
)
def test_labels_that_name_no_class_are_refused_with_the_option(names, tmp_path):
    path = jsonl(tmp_path, "a.jsonl", [{"text": words(), "label": name} for name in names])
    with pytest.raises(ValueError, match=r"column 'label' has the values .*set labels"):
        reading(path)
    options = dict(zip(names, ("human", "ai", "drop"), strict=False))
    samples, report = reading(path, labels=options)
    assert [one.label for one in samples] == [0, 1]
    assert f"{len(names) - 2} dropped" in report


def test_unknown_labels_are_missing(tmp_path):
    for label, human in (("gpt-4", "human"), (1, 0)):
        names = [label, "unknown", human, "nan"]
        records = [{"text": words(), "label": name} for name in names]
        samples, report = reading(jsonl(tmp_path, "a.jsonl", records))
        assert [one.label for one in samples] == [1, 0]
        assert "nan = no label, unknown = no label" in report
        assert "2 no label (row 2, 4)" in report


def test_lists_in_the_place_of_texts_are_refused(tmp_path):
    path = jsonl(tmp_path, "a.jsonl", [{"text": [words()], "label": n % 2} for n in range(4)])
    with pytest.raises(ValueError, match=r"a.jsonl: column 'text', row 1 is a list: expected text"):
        reading(path)
    lists = {"human_answers": str([words(), words()]), "chatgpt_answers": str([words()])}
    pandas.DataFrame([lists] * 3).to_csv(tmp_path / "hc3.csv", index=False)
    with pytest.raises(ValueError, match="'human_answers' has lists that are written as text"):
        reading(tmp_path / "hc3.csv")
    row = {"abstract": words(), "machine_abstract": words(), "model": "gpt"}
    with pytest.raises(
        ValueError, match=r"'human_text': 'abstract', 'ai_text': 'machine_abstract'"
    ):
        reading(jsonl(tmp_path, "m4.jsonl", [row] * 3))


def test_a_domain_that_names_writers_is_reported(tmp_path):
    records = [
        {"text": words(), "label": n % 2, "source": ("essays", "gpt")[n % 2]} for n in range(40)
    ]
    with pytest.warns(UserWarning, match=r"each value of the column 'source' has texts of one cl"):
        reading(jsonl(tmp_path, "a.jsonl", records), columns={"domain": "source"})


def test_rows_without_human_and_ai_text_are_dropped_and_counted(tmp_path):
    answers = [([words()], [words()]), ([], []), ([""], [words()])]
    records = [{"human_answers": h, "chatgpt_answers": c} for h, c in answers]
    samples, report = reading(jsonl(tmp_path, "a.jsonl", records))
    assert [one.label for one in samples] == [0, 1, 1]
    assert "3 texts, 1 rows without one of them, 1 without both" in report


def test_rows_without_text_or_label_are_dropped_and_reported_by_number(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na b,1.0\n,0.0\nc d,\ne f,0.0\n")
    samples, report = reading(tmp_path / "a.csv")
    assert [(one.text, one.label) for one in samples] == [("a b", 1), ("e f", 0)]
    assert "4 rows, 2 dropped; 1 no text (row 2); 1 no label (row 3)" in report
    assert "text ← text, label ← label" in report
    assert "0/1 = human/AI" in report


def test_m4_and_semeval_are_read(tmp_path):
    names = ["wikihow", "reddit", "arxiv"]
    records = [
        {
            "text": words(),
            "label": n % 2,
            "source": names[n // 2 % 3],
            "model": "chatGPT" if n % 2 else "human",
            "id": n,
        }
        for n in range(120)
    ]
    samples, report = reading(jsonl(tmp_path, "subtask.jsonl", records))
    assert {one.domain for one in samples} == set(names)
    assert {one.generator for one in samples} == {"human", "chatGPT"}
    assert "domain ← source (3 values)" in report
    records = [
        {"prompt": words(5), "human_text": words(), "machine_text": words(), "model": "davinci"}
        | {"source": "wikihow", "source_ID": n}
        for n in range(10)
    ]
    samples, _ = reading(jsonl(tmp_path, "wikihow_davinci.jsonl", records))
    assert [one.label for one in samples[:2]] == [0, 1]
    assert (samples[1].generator, samples[1].domain) == ("davinci", "wikihow")
    assert samples[0].source == samples[1].source != samples[2].source


def test_mage_with_labels_the_other_way_round_is_refused_with_the_option(tmp_path):
    rows = [
        {"text": words(), "label": n % 2, "src": "cmv_human" if n % 2 else "cmv_machine_gpt"}
        for n in range(40)
    ]
    pandas.DataFrame(rows).to_csv(tmp_path / "mage.csv", index=False)
    with pytest.raises(ValueError, match=r"20 of 20 rows are human by column 'src'.*labels="):
        reading(tmp_path / "mage.csv", columns={"domain": "src"})
    options = {"labels": {"1": "human", "0": "ai"}, "columns": {"domain": "src"}}
    samples, _ = reading(tmp_path / "mage.csv", **options)
    assert [one.label for one in samples[:2]] == [1, 0]


def test_a_source_that_is_neither_clearly_a_domain_nor_a_group_is_an_error(tmp_path):
    records = [{"text": words(), "label": n % 2, "source": f"s{n % 4}"} for n in range(40)]
    path = jsonl(tmp_path, "a.jsonl", records)
    with pytest.raises(ValueError, match=r"'source' can be .* columns=\{'domain': 'source'\} or"):
        reading(path)
    assert {one.domain for one in reading(path, columns={"domain": "source"})[0]} == {
        *("s0", "s1", "s2", "s3")
    }
    assert {one.source for one in reading(path, columns={"group": "source"})[0]} == {
        *("s0", "s1", "s2", "s3")
    }


def test_hc3_and_raid_are_read_as_files(tmp_path):
    records = [
        {"question": words(), "human_answers": [words(), words()], "chatgpt_answers": [words()]}
        | {"source": "finance"}
        for _ in range(10)
    ]
    samples, _ = reading(jsonl(tmp_path, "hc3.jsonl", records))
    assert [one.label for one in samples] == [0, 0, 1] * 10
    assert {one.generator for one in samples} == {"human", "chatgpt"}
    assert len({one.source for one in samples}) == 10
    header = "id,adv_source_id,source_id,model,decoding,attack,domain,title,prompt,generation"
    rows = "\n".join(
        f"{n},a{n},s{n // 2},{('human', 'llama')[n % 2]},greedy,{('none', 'case')[n > 7]},news,"
        f"t{n // 2},p{n // 2},{words()}"
        for n in range(10)
    )
    (tmp_path / "raid.csv.gz").write_bytes(gzip.compress(f"{header}\n{rows}\n".encode()))
    samples, report = reading(tmp_path / "raid.csv.gz")
    assert [one.label for one in samples] == [0, 1] * 4
    assert {one.source for one in samples} == {f"s{n}" for n in range(4)}
    assert "2 attacked (row 9, 10)" in report


def test_folders_of_ghostbuster_and_of_seqxgpt_are_read(tmp_path):
    for domain, writer in itertools.product(("essay", "wp"), ("human", "gpt", "claude")):
        folder = tmp_path / "ghost" / domain / writer
        (folder / "logprobs").mkdir(parents=True)
        for n in range(3):
            (folder / f"{n}.txt").write_text(f"{writer} {words()}")
            (folder / "logprobs" / f"{n}-ada.txt").write_text("the -1.5")
    samples, report = reading(tmp_path / "ghost")
    assert len(samples) == 18
    assert sum(one.label for one in samples) == 12
    assert {one.domain for one in samples} == {"essay", "wp"}
    assert len({one.source for one in samples}) == 6
    assert "claude (AI): 3, gpt (AI): 3, human (human): 3" in report
    (tmp_path / "seq").mkdir()
    for writer in ("human", "gpt2", "llama"):
        records = [{"text": words(), "label": writer, "prompt_len": 5} for _ in range(4)]
        jsonl(tmp_path / "seq", f"{writer}_lines.jsonl", records)
    samples, _ = reading(tmp_path / "seq")
    assert {(one.label, one.generator) for one in samples} == {
        *((0, "human"), (1, "gpt2"), (1, "llama"))
    }


def test_texts_that_share_a_prompt_are_kept_and_longer_copies_are_removed():
    prompt = words(20)
    samples = [Sample(f"{prompt} {words()}", n % 2, "a") for n in range(6)]
    copies = [Sample(samples[0].text.upper() + " and more", 0, "b")]
    kept, cleaning = cleaned([*samples, *copies], 1, 40, 0)
    assert [one.text for one in kept] == [one.text for one in samples]
    assert (cleaning.duplicates, cleaning.contradictory) == (1, 0)


def test_every_part_has_the_rare_class_in_each_domain_and_in_rare_domains():
    samples = [Sample(words(), int(n % 50 == 0), f"{n}", domain="abcd"[n % 4]) for n in range(1000)]
    samples += [Sample(words(), 1, f"rare{n}", domain=f"rare{n}") for n in range(10)]
    for seed in range(5):
        parts = split_by_source(samples, 0.2, 0.2, seed)
        ai = {part: sum(one.label for one in parts[part]) for part in parts}
        assert min(ai.values()) >= 5
        assert sum(ai.values()) == 30
        rare = {part: sum("rare" in one.source for one in parts[part]) for part in parts}
        assert rare == {"train": 6, "val": 2, "test": 2}


def test_texts_to_predict_keep_the_ids_of_the_user(tmp_path):
    table = pandas.DataFrame({"doc_id": ["007", "b-1"], "essay": [words(), words()]})
    table.to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    assert [one.id for one in given_texts(str(tmp_path / "a.tsv"))] == ["007", "b-1"]
    (tmp_path / "b.txt").write_bytes("ein Text".encode("utf-16"))
    given = given_texts(str(tmp_path))
    assert [one.id for one in given] == ["007", "b-1", "b.txt"]
    assert given[-1].text == "ein Text"
    (tmp_path / "c.json").write_text(json.dumps([{"text": ""}, {"text": "x"}]))
    assert given_texts(str(tmp_path / "c.json")) == [("1", ""), ("2", "x")]
    (tmp_path / "c.json.gz").write_bytes(gzip.compress((tmp_path / "c.json").read_bytes()))
    two = {"essay": [words()], "answer": [words()]}
    pandas.DataFrame(two).to_json(tmp_path / "d.json", orient="records")
    with pytest.raises(ValueError, match=r"columns=\{'text': 'essay'\} or columns="):
        given_texts(str(tmp_path / "d.json"))
    assert given_texts(str(tmp_path / "c.json.gz"))[1] == ("2", "x")
    options = TableOptions({"text": "answer"})
    assert given_texts(str(tmp_path / "d.json"), options)[0].text == two["answer"][0]


def test_both_texts_of_pairs_are_predicted_with_their_columns(tmp_path):
    records = [{"id": 7, "human_answers": ["a b", "c"], "chatgpt_answers": ["d e"]}]
    given = given_texts(str(jsonl(tmp_path, "hc3.jsonl", records)))
    assert given == [
        ("7:human_answers[0]", "a b"), ("7:human_answers[1]", "c"), ("7:chatgpt_answers[0]", "d e")
    ]  # fmt: skip
    pair = {"original": ["a b"], "sampled": ["c d"]}
    (tmp_path / "pairs.json").write_text(json.dumps(pair))
    assert given_texts(str(tmp_path / "pairs.json")) == [
        ("1:original", "a b"),
        ("1:sampled", "c d"),
    ]


def test_files_of_a_folder_keep_their_folders_and_only_texts_are_predicted(tmp_path):
    for name in ("a/1.txt", "b/1.txt", "b/logprobs/1.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.warns(UserWarning, match="left out: .*picture.png is not a text file"):
        assert given_texts(str(tmp_path)) == [("a/1.txt", "a/1.txt"), ("b/1.txt", "b/1.txt")]
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4 text")
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
        for part in ("[Content_Types].xml", "word/document.xml"):
            archive.writestr(part, "<w:t>words</w:t>")
    for name, error in (("picture.png", "not a text"), ("a.pdf", "not a text"), ("a.docx", "Word")):
        with pytest.raises(ValueError, match=f"{name} is .*{error}"):
            given_texts(str(tmp_path / name))


def test_missing_and_repeated_ids_are_reported(tmp_path):
    records = [{"id": 1, "text": "a"}, {"text": "b"}, {"id": 1, "text": "c"}]
    with pytest.warns(UserWarning, match="1 rows have none .* 1 rows repeat an id"):
        given = given_texts(str(jsonl(tmp_path, "a.jsonl", records)))
    assert [one.id for one in given] == ["1", "", "1"]


def test_shared_pairs_load_by_path():
    folder = Path(__file__).parents[3] / "shared" / "data" / "ai_text"
    if not folder.is_dir():
        folder = Path("../shared/data/ai_text")
    if not folder.is_dir():
        pytest.skip("needs shared/data/ai_text beside the checkout")
    data = AITextDataModule(str(folder), max_words=100)
    data.setup()
    texts = [one for part in ("train", "val", "test") for one in data.samples(part)]
    assert {one.domain for one in texts} == {"pubmed", "squad", "xsum"}
    assert {"gpt-4", "gpt2-xl", "human"} <= {one.generator for one in texts}
    assert data.leak_report.shared_sources == 0
