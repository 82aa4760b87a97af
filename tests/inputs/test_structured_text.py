import json
import time

import pytest
import yaml

from lightning_plugins.inputs import LimitError, check_yaml, parse_json, parse_yaml


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 500 + "1" + "}" * 500])
def test_deep_json_is_refused(text):
    with pytest.raises(LimitError, match="nested levels"):
        parse_json(text)


def test_brackets_inside_json_strings_do_not_count():
    value = {"text": '[{\\"' * 1000, "more": ["]"] * 100}
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", '{"a": 1e999}', "9" * 5000, "{", '"\ud800'])
def test_json_that_is_not_finite_or_not_complete_is_a_value_error(text):
    with pytest.raises(ValueError, match="the file is not valid JSON"):
        parse_json(text, "the file")


@pytest.mark.parametrize("text", ["- " * 5000 + "1", "[" * 70 + "1" + "]" * 70])
def test_deep_yaml_is_refused(text):
    with pytest.raises(LimitError, match="nested levels"):
        parse_yaml(text)


def _chain(levels, repeated):
    lines = ["a0: &a0 [1, 2]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * repeated)}]" for i in range(1, levels)]
    return "\n".join(lines)


def test_yaml_anchors_that_expand_to_many_values_are_refused():
    assert len(_chain(9, 9)) < 500
    with pytest.raises(LimitError, match="values of a YAML text"):
        parse_yaml(_chain(9, 9))


def test_yaml_anchors_that_expand_to_many_levels_are_refused():
    with pytest.raises(LimitError, match="nested levels"):
        parse_yaml(_chain(100, 1))


def test_a_long_yaml_text_behind_an_anchor_counts_by_its_length():
    text = f"a: &a {'x' * 64_000}\nb: [{', '.join(['*a'] * 300)}]"
    with pytest.raises(LimitError, match="values of a YAML text"):
        check_yaml(text)


def test_a_yaml_anchor_that_contains_itself_is_refused():
    with pytest.raises(ValueError, match="contains itself"):
        parse_yaml("a: &a\n  b: [*a]\n")


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.getcwd []", "[" * 10_000, "a: *b ", "{"]
)
def test_invalid_yaml_is_a_value_error_and_takes_no_time(text):
    begin = time.process_time()
    with pytest.raises(ValueError, match="the file"):
        parse_yaml(text, "the file")
    assert time.process_time() - begin < 1


def test_ordinary_yaml_is_read_as_pyyaml_reads_it():
    text = "a: &x {b: [1, 2.5, null]}\nc: *x\nd: {<<: *x, e: 2020-01-01}\n"
    assert parse_yaml(text) == yaml.safe_load(text)
