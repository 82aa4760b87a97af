"""The digits recipes with all sources of randomness: order, dropout masks, shifted images.

The fast suite kills late_sam/digits in tests/cli/test_interrupted_runs.py.
"""

import pytest
from kill_and_resume import assert_killed_run_resumes_exactly

RANDOM = [
    "--trainer.max_epochs=3",
    "--trainer.check_val_every_n_epoch=1",
    "--model.init_args.dropout=0.2",
    "--data.init_args.random_shift=1",
    "--data.init_args.label_noise=0.1",
]


# In the second run SAM is always active; in the first one the kill is before or after its start.
@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["late_sam/digits", "late_sam/digits_sam"])
def test_killed_run_resumes_bit_for_bit(recipe, tmp_path):
    assert_killed_run_resumes_exactly(["--config", recipe, *RANDOM], tmp_path, steps=120)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--config", "image/digits"],
        ["--config", "late_at/digits"],
        ["--config", "late_sam/digits", "--data.init_args.num_workers=1"],
        ["--config", "late_sam/digits", "--trainer.gradient_clip_val=0.1"],
        [
            *("--config", "image/digits", "--trainer.callbacks+=LateSAM"),
            *("--trainer.callbacks.start=0.5", "--trainer.callbacks.momentum=reset"),
        ],
    ],
    ids=["sgd", "adversarial", "workers", "clipping", "momentum reset"],
)
def test_killed_run_with_other_settings_resumes_bit_for_bit(options, tmp_path):
    assert_killed_run_resumes_exactly([*options, *RANDOM], tmp_path, steps=120)
