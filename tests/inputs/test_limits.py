import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lightning_plugins.inputs import (
    LIMITS,
    LimitError,
    check_rows,
    check_table_bytes,
    decompressed,
    file_name,
    limit,
    listed,
    path_inside,
    quoted,
    read_npz,
)


@pytest.mark.parametrize("name", LIMITS)
def test_an_environment_variable_replaces_each_limit(name, monkeypatch):
    assert limit(name) == LIMITS[name].default
    monkeypatch.setenv(f"LIGHTNING_PLUGINS_MAX_{name.upper()}", "7")
    assert limit(name) == 7


@pytest.mark.parametrize("value", ["", "0", "-1", "1e9", "9" * 30])
def test_a_limit_that_is_not_a_positive_number_is_an_error(value, monkeypatch):
    monkeypatch.setenv("LIGHTNING_PLUGINS_MAX_NESTING", value)
    with pytest.raises(ValueError, match="LIGHTNING_PLUGINS_MAX_NESTING"):
        limit("nesting")


def test_the_message_states_amount_limit_and_variable(tmp_path):
    file = tmp_path / "small.parquet"
    file.write_bytes(b"x")
    message = r"3,000,000 rows.*2,000,000.*LIGHTNING_PLUGINS_MAX_TABLE_ROWS"
    with pytest.raises(LimitError, match=message):
        check_rows(3_000_000, file)


def test_a_large_table_is_allowed_in_a_large_file(tmp_path, monkeypatch):
    file = tmp_path / "large.csv"
    with file.open("wb") as sparse:
        sparse.truncate(3_000_000)
    check_rows(3_000_000, file)
    monkeypatch.setenv("LIGHTNING_PLUGINS_MAX_TABLE_ROWS", "10")
    with pytest.raises(LimitError):
        check_rows(11, file)


def test_a_decompressed_stream_ends_at_the_limit(tmp_path, monkeypatch):
    file = tmp_path / "table.csv.gz"
    file.write_bytes(gzip.compress(b"0" * 1_000_000))
    with gzip.open(file) as stream:
        assert len(decompressed(stream, file).read()) == 1_000_000
    monkeypatch.setenv("LIGHTNING_PLUGINS_MAX_TABLE_BYTES", "999999")
    with gzip.open(file) as stream, pytest.raises(LimitError, match=r"table\.csv\.gz"):
        decompressed(stream, file).read()


def test_a_compressed_array_larger_than_the_limit_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, a=np.zeros(100_000))
    assert set(read_npz(path)) == {"a"}
    monkeypatch.setenv("LIGHTNING_PLUGINS_MAX_ARRAY_BYTES", "800000")
    with pytest.raises(LimitError):
        read_npz(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip"])
def test_a_broken_npz_file_is_a_value_error(content, tmp_path):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.npz"):
        read_npz(path)


def test_an_npz_file_of_objects_is_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="Object arrays"):
        read_npz(tmp_path / "objects.npz")


def test_an_npz_header_that_states_a_huge_shape_is_refused_without_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }"
        header = header.ljust(117) + b"\n"
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match="bytes of the arrays"):
        read_npz(tmp_path / "huge.npz")


@pytest.mark.parametrize("name", ["agent-3.ckpt", "model.safetensors", "a", "_x", "v1.0+cpu=2"])
def test_a_plain_file_name_is_accepted(name):
    assert file_name(name, "manifest") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/x",
        "C:x",
        ".hidden",
        "-rf",
        "a\n",
        "é",
        "x" * 300,
        7,
        None,
        "a.",
    ],
)
def test_any_other_file_name_is_refused(name):
    with pytest.raises(ValueError, match="manifest"):
        file_name(name, "manifest")


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "~/x",
        "a\\..\\..\\x",
        "C:/x",
        "\\\\host\\x",
        "",
        "a\0b",
        3,
    ],
)
def test_a_path_that_leads_out_of_the_folder_is_refused(path, tmp_path):
    with pytest.raises(ValueError, match=r"captions\.json"):
        path_inside(tmp_path, path, "captions.json")


def test_a_path_inside_the_folder_is_accepted(tmp_path):
    assert path_inside(tmp_path, "train/a..b.png", "x") == tmp_path / "train" / "a..b.png"


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        "\x1b[2J" * 100,
        [["a" * 10_000] * 1000] * 1000,
        pytest.param(10**10_000, id="int"),
        b"a" * 200,
        {"k" * 99: 1},
    ],
)
def test_a_quoted_value_has_at_most_80_printable_characters(value):
    assert 0 < len(quoted(value)) <= 80
    assert quoted(value).isprintable()
    assert quoted("short") == "'short'"


def test_the_security_policy_lists_every_limit():
    policy = Path(__file__).parents[2].joinpath("SECURITY.md").read_text("utf-8")
    for name in LIMITS:
        assert f"| `{name}` |" in policy


def test_listed_names_are_short_and_few():
    assert listed(["a", "it's", "\x1b[2J"]) == "a, it's, \\x1b[2J"
    text = listed(["x" * 1000] * 1000)
    assert text.endswith(" and 980 more")
    assert len(text) < 20 * 82 + 20


def test_a_small_file_is_not_allowed_to_become_a_large_table(tmp_path, monkeypatch):
    file = tmp_path / "small.parquet"
    file.write_bytes(b"x" * 100)
    check_table_bytes(500 << 20, file)
    with pytest.raises(LimitError, match=r"600,000,000 bytes.*allowed are 536,870,912"):
        check_table_bytes(600_000_000, file)
    monkeypatch.setenv("LIGHTNING_PLUGINS_MAX_TABLE_BYTES", "600000000")
    check_table_bytes(600_000_000, file)
    with pytest.raises(LimitError):
        check_table_bytes(600_000_001, file)
