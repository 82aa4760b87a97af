"""A run on a stream of fresh samples, with its routing statistics."""

import pytest
from kill_and_resume import assert_killed_run_resumes_exactly


@pytest.mark.slow
def test_killed_run_resumes_bit_for_bit(tmp_path):
    options = [
        *("--config", "moe/shells", "--trainer.max_steps=60"),
        *("--data.init_args.batches_per_epoch=20", "--data.init_args.evaluation_samples=64"),
        *("--trainer.check_val_every_n_epoch=1", "--data.init_args.batch_size=32"),
    ]
    assert_killed_run_resumes_exactly(options, tmp_path, steps=60)
