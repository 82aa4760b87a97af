"""A killed run on newly drawn data resumes with the same data."""

import pytest
from kill_and_resume import assert_killed_run_resumes_exactly


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["mixture", "markov", "repeats"])
def test_a_killed_run_on_fresh_data_resumes_bit_for_bit(recipe, tmp_path):
    options = ["--config", f"induction_heads/{recipe}", "--trainer.max_steps=40"]
    # Within an epoch, and across its end.
    options.append("--data.init_args.steps_per_epoch=25")
    assert_killed_run_resumes_exactly(options, tmp_path, steps=40)
