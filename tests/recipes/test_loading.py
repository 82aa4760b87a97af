from lightning_plugins.recipes import merge


def test_mappings_are_merged_and_other_values_are_replaced():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merge(base, {"a": {"c": [9]}, "e": 4}) == {"a": {"b": 1, "c": [9]}, "d": 3, "e": 4}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 3}


def test_a_plus_appends_to_a_list():
    assert merge({"a": [1]}, {"a+": [2, 3]}) == {"a": [1, 2, 3]}
    assert merge({}, {"a+": {"b": 1}}) == {"a": [{"b": 1}]}
    assert merge({"a": None}, {"a+": [1]}) == {"a": [1]}


def test_a_plus_works_inside_a_mapping_that_the_base_does_not_have():
    assert merge({}, {"trainer": {"callbacks+": [1]}}) == {"trainer": {"callbacks": [1]}}


def test_another_class_drops_the_arguments_of_the_replaced_class():
    base = {"class_path": "A", "init_args": {"x": 1}}
    assert merge(base, {"class_path": "B"}) == {"class_path": "B"}
    assert merge(base, {"class_path": "A", "init_args": {"y": 2}}) == {
        "class_path": "A",
        "init_args": {"x": 1, "y": 2},
    }
