"""The tiny language model on a text of its own."""

import pytest
from kill_and_resume import assert_killed_run_resumes_exactly


@pytest.mark.slow
def test_killed_run_resumes_bit_for_bit(tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    for part in ("train", "val"):
        (text / f"{part}.txt").write_text("to be or not to be, that is the question\n" * 900)
    options = [
        *("--config", "language_model/tiny", "--trainer.max_steps=60"),
        *(f"--data.init_args.corpus={text}", f"--data.init_args.data_dir={tmp_path / 'tokens'}"),
        *("--trainer.val_check_interval=1.0", "--data.init_args.batch_size=8"),
    ]
    assert_killed_run_resumes_exactly(options, tmp_path / "runs", steps=60)
