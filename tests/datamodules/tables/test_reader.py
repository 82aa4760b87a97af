"""Tables are read back as they were written: formats, encodings, delimiters, compressions."""

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import random
import struct
import warnings
import zipfile

import pandas
import pyarrow
import pytest
from pyarrow import parquet

from lightning_plugins.datamodules.tables import is_table, read_table

ALPHABETS = {
    "utf-8": "aeñç√漢字 हिन्दी ,;|\t\"'\n\r\u2028:#",
    "utf-8-sig": "aeñç√漢字,;|\t\"'\n",
    "utf-16": "ab漢字,;|\t\"'\nñ",
    "utf-16-le": "the quick brown fox,;\"'\n",
}
PACKERS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.compress(data, "zstd", asbytes=True),
}


def delimited(rows, header, delimiter, encoding):
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue().encode(encoding)


def records(rows, header):
    return [dict(zip(header, row, strict=True)) for row in rows]


def random_rows(draw, alphabet, count):
    def field():
        return "".join(draw.choices(alphabet, k=draw.randint(0, 30))) if draw.random() < 0.9 else ""

    return [[f"{draw.randint(0, 99):03}", field(), draw.choice("01")] for _ in range(count)]


def test_random_tables_of_all_formats_encodings_and_delimiters_are_read_back(tmp_path):
    draw = random.Random(0)
    header = ["id", "text", "label"]
    packers = itertools.cycle(PACKERS.items())
    for number, (encoding, delimiter) in enumerate(
        itertools.product(ALPHABETS, [*",;\t|^~:#%&*!"] * 3)
    ):
        rows = random_rows(draw, ALPHABETS[encoding], draw.randint(1, 20))
        suffix, pack = next(packers)
        path = tmp_path / f"{number}.csv{suffix}"
        path.write_bytes(pack(delimited(rows, header, delimiter, encoding)))
        table = read_table(path)
        assert list(table.columns) == header, (encoding, delimiter)
        assert table.values.tolist() == rows, (encoding, delimiter)
    for encoding in ALPHABETS:
        rows = random_rows(draw, ALPHABETS[encoding], 20)
        found = records(rows, header)
        forms = {
            "list.json": json.dumps(found, ensure_ascii=False),
            "split.json": json.dumps({"columns": header, "index": [*range(20)], "data": rows}),
            "wrapped.json": json.dumps({"version": "1.0", "data": found}),
            "columns.json": json.dumps(
                {name: [row[place] for row in rows] for place, name in enumerate(header)}
            ),
            "pandas.json": pandas.DataFrame(found).to_json(),
            "lines.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in found),
            "lines.json": "\r\n".join(json.dumps(row) for row in found) + "\n\n",
            "unnamed": json.dumps(found),
        }
        for name, content in forms.items():
            (tmp_path / name).write_bytes(content.encode(encoding))
            table = read_table(tmp_path / name)
            assert list(table.columns) == header, name
            assert table.values.tolist() == rows, (name, encoding)
    parquet.write_table(pyarrow.Table.from_pylist(found), tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet").values.tolist() == rows


def test_values_of_text_formats_stay_strings_of_any_length(tmp_path):
    long = "word " * 100_000
    (tmp_path / "a.csv").write_text(f'id,x,y\n007,NA,{long}\n1e5," 1,0 ",\nTrue,2020-01-01,nan\n')
    table = read_table(tmp_path / "a.csv")
    assert table.values.tolist() == [
        ["007", "NA", long],
        ["1e5", " 1,0 ", ""],
        ["True", "2020-01-01", "nan"],
    ]
    rows = "".join(f'{n},"{long}{long}",x\n' for n in range(10))
    (tmp_path / "b.csv").write_text(f"id,x,y\n{rows}10,short\n")
    with pytest.raises(ValueError, match="row 11 has 2 values in 3 columns"):
        read_table(tmp_path / "b.csv")  # larger than a block of the parser
    (tmp_path / "c.csv").write_text(f'id,x\n1,"{"é" * 3_000_000}"\n', "utf-8")
    assert read_table(tmp_path / "c.csv")["x"][0] == "é" * 3_000_000
    (tmp_path / "a.jsonl").write_text('{"id": "007", "n": 12345678901234567890}\n{"id": "8"}\n')
    table = read_table(tmp_path / "a.jsonl")
    assert table["id"].tolist() == ["007", "8"]
    assert table["n"][0] == 12345678901234567890


def test_tables_beyond_the_limits_are_refused(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text(f"id,x\n1,{'x' * 2000}\n")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes() * 50))
    rows = pyarrow.table({"x": ["y"] * 20_000})
    parquet.write_table(rows, tmp_path / "a.parquet")
    monkeypatch.setenv("LIGHTNING_PLUGINS_MAX_CELL_CHARACTERS", "1999")
    monkeypatch.setenv("LIGHTNING_PLUGINS_MAX_TABLE_BYTES", "99000")
    monkeypatch.setenv("LIGHTNING_PLUGINS_MAX_TABLE_ROWS", "19999")
    for name, error in (("a.csv", "CELL"), ("a.csv.gz", "TABLE_BYTES"), ("a.parquet", "ROWS")):
        with pytest.raises(ValueError, match=f"{name}.*LIGHTNING_PLUGINS_MAX_.*{error}"):
            read_table(tmp_path / name)


def test_tables_with_tabs_may_have_quotes_that_do_not_enclose(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tlabel\n"No," he said\t1\n5" wide\t0\n')
    assert read_table(tmp_path / "a.tsv")["text"].tolist() == ['"No," he said', '5" wide']


def test_a_table_may_have_no_header_one_column_or_a_line_for_excel(tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n3,4\n")
    assert read_table(tmp_path / "a.csv", names=["x", "y"])["y"].tolist() == ["2", "4"]
    (tmp_path / "b.csv").write_text("text\none, two\nthree\n")
    assert read_table(tmp_path / "b.csv")["text"].tolist() == ["one, two", "three"]
    (tmp_path / "c.csv").write_text("sep=;\na;b\n1,5;2\n")
    assert read_table(tmp_path / "c.csv").values.tolist() == [["1,5", "2"]]
    (tmp_path / "blank.csv").write_text("text,label,,\none,1,,\n")  # of a spreadsheet
    assert read_table(tmp_path / "blank.csv").columns.tolist() == ["text", "label"]
    (tmp_path / "d.csv").write_text("a b\n1 2\n")
    assert read_table(tmp_path / "d.csv").values.tolist() == [["1", "2"]]


def test_other_encodings_are_named_in_a_warning_or_an_error(tmp_path):
    file = tmp_path / "a.csv"
    western = "text;label\nun café très français;1\n"
    for text, encoding in ((western, "latin-1"), (western + "“quoted”;0\n", "cp1252")):
        file.write_bytes(text.encode(encoding))
        with pytest.warns(UserWarning, match=rf"a.csv is not in UTF-8: read as {encoding}.*café"):
            assert read_table(file)["text"][0] == "un café très français"
    for text, encoding in (
        ("text,label\nЭто написано по-русски,1\n", "cp1251"),
        ("text,label\nЭто написано по-русски,1\n", "koi8-r"),
        ("text,label\n这是中文的文本,1\n", "gb18030"),
        ("text,label\nun café français,1\n", "mac-roman"),
    ):
        file.write_bytes(text.encode(encoding))
        with pytest.raises(ValueError, match=rf"a.csv.*encoding is ambiguous.*{encoding}"):
            read_table(file)
        assert read_table(file, encoding=encoding)["text"][0] in text
    file.write_bytes(("text,label\n" + "été,1\n" * 20).encode() + b"\xc3,0\n")
    with pytest.raises(ValueError, match="no text in UTF-8: see its byte 171"):
        read_table(file)
    with pytest.raises(ValueError, match="encoding='klingon'"):
        read_table(file, encoding="klingon")


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.csv", "text,label\none,1\ntwo\n", r"row 2 has 1 values in 2 columns.*','.*1 such rows"),
        ("a.csv", "text,label\none,two,1\n", r"row 1 has 3 values in 2 columns"),
        ("a.csv", "a,b;c\n1,2;3\n", r"delimiter is ambiguous.*delimiter=CHARACTER.*',' or ';'"),
        ("a.csv", "a,a\n1,2\n", "several columns named 'a'"),
        ("a.csv", 'a,b\n"x \\"y\\" z",1\n', "line 2: the field .* a quote inside is not doubled"),
        ("a.csv", 'a,b\n"x\\"",1\n"y",2\n', "line 2: the field .* a quote inside is not doubled"),
        ("a.csv", 'a,b\n"x,1\n', "line 2: the field .* its end has none"),
        ("a.csv", 'a, b\n"x, y", "z, 1"\n', "row 1 has 3 values in 2 columns, .* ','"),
        ("a.csv", "\n", "is empty"),
        ("a.json", '[{"a": 1}, 2]', "row 2 is not a record but a number"),
        ("a.json", '{"a": [1, 2], "b": [1]}', "different lengths"),
        ("a.json", '{"a": {"x": 1}, "b": {"x": 2}}', "dictionary of dictionaries is ambiguous"),
        ("a.json", '[{"a": 1}', "not JSON"),
        ("a.json", '[{"a": 1, "b": 2, "a": 3}]', "a record has the key 'a' several times"),
        ("a.json", '{"a": [{"x": 1}], "b": [{"x": 2}]}', r"several lists of records \(a, b\)"),
        ("a.json", "[" * 100_000, "nested too deeply|not JSON"),
        ("a.jsonl", '{"a": 1}\n{"a" 2}\n', "line 2 is not JSON"),
        ("a.jsonl", "{'a': u'x'}\n{'a': u'y'}\n", "line 1 is a Python dictionary, not JSON"),
        ("a.json", "{u'a': 1}", "line 1 is a Python dictionary.*ast.literal_eval"),
        ("a.jsonl", "", "is empty"),
        ("a.parquet", "PAR1 and no more", "not a complete Parquet file"),
        ("a.parquet", "text,label\na,1\n", "not a Parquet file"),
        ("a.csv.gz", b"\x1f\x8b\x08 damaged", "damaged archive"),
        (
            "a.tar.gz",
            gzip.compress(b"\0" * 257 + b"ustar\0" + b"\0" * 249, mtime=0),
            "is a tar archive",
        ),
    ],
)
def test_what_is_no_table_is_refused_with_the_file_and_the_row(tmp_path, name, content, error):
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=error) as caught:
        read_table(tmp_path / name)
    assert name in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_table(tmp_path / "other.csv")


def test_a_zip_archive_contains_one_table(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/a.tsv", "text\tlabel\nx\t1\n")
        archive.writestr("__MACOSX/a.tsv", "junk")
    assert read_table(path).values.tolist() == [["x", "1"]]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("b.csv", "text\n")
    with pytest.raises(ValueError, match=r"2 files \(folder/a.tsv, b.csv\): expected one"):
        read_table(path)
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "")
    with pytest.raises(ValueError, match=r"Excel workbook: save .* CSV"):
        read_table(tmp_path / "a.xlsx")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "text\nx\n")
    locked = bytearray(path.read_bytes())
    for place in (6, locked.rindex(b"PK\x01\x02") + 8):  # the flag in both headers
        locked[place] |= 1
    path.write_bytes(locked)
    with pytest.raises(ValueError, match=r"a.zip: .* is encrypted"):
        read_table(path)


def test_zstandard_may_begin_with_a_skippable_frame(tmp_path):
    skipped = struct.pack("<II", 0x184D2A5A, 4) + b"size"
    data = skipped + pyarrow.compress(b"text,label\nx,1\n", "zstd", asbytes=True)
    (tmp_path / "a.csv.zst").write_bytes(data)
    assert read_table(tmp_path / "a.csv.zst").values.tolist() == [["x", "1"]]


def test_binary_columns_of_parquet_are_texts_if_all_values_are_utf8(tmp_path):
    columns = {"id": ["ü".encode(), b"b", None], "raw": [b"\xff", b"b", b"c"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert table["id"].tolist()[:2] == ["ü", "b"]
    assert table["id"].isna().tolist() == [False, False, True]
    assert table["raw"].tolist() == [b"\xff", b"b", b"c"]


def test_the_names_of_tables_are_known():
    assert all(map(is_table, ("a.csv", "a.CSV.gz", "a.b.jsonl.zst", "x/a.parquet")))
    assert not any(map(is_table, ("a.txt", "a.gz", "csv", "a.md")))


def test_reading_utf8_does_not_warn(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\ncafé,1\n", "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_table(tmp_path / "a.csv")
