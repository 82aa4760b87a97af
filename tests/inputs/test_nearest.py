from types import SimpleNamespace

import pytest

from lightning_plugins.inputs.nearest import check_options, nearest

KNOWN = SimpleNamespace(num_hidden_layers=2, hidden_size=8)


def test_a_misspelt_option_is_refused_with_the_right_name():
    with pytest.raises(ValueError, match=r"has no option 'num_hiden_layers'; did you mean num_hi"):
        check_options("config", ["hidden_size", "num_hiden_layers"], KNOWN)


def test_options_that_other_objects_have_are_accepted():
    check_options("config", ["hidden_size", "max_position_embeddings"], KNOWN)


def test_one_changed_or_two_exchanged_letters_come_first():
    assert nearest("momentm", ["momentum", "moments_of_x"]) == "; did you mean momentum?"
    assert nearest("lr", ["rl", "learning_rate"]) == "; did you mean rl?"
    assert nearest("xyz", ["momentum"]) == ""
