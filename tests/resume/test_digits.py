"""The digits recipes with everything random in them: order, dropout masks, shifted images."""

import pytest
from kill_and_resume import assert_killed_run_resumes_exactly

RANDOM = [
    "--trainer.max_epochs=3",
    "--trainer.check_val_every_n_epoch=1",
    "--model.init_args.dropout=0.2",
    "--data.init_args.random_shift=1",
    "--data.init_args.label_noise=0.1",
]


OPTIONS = ["--config", "late_sam/digits", *RANDOM]


def test_killed_run_resumes_bit_for_bit(tmp_path):
    assert_killed_run_resumes_exactly(OPTIONS, tmp_path, steps=120)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        ["--config", "image/digits"],
        ["--data.init_args.num_workers=1"],
        ["--trainer.accumulate_grad_batches=1", "--trainer.gradient_clip_val=0.1"],
    ],
)
def test_killed_run_of_another_kind_resumes_bit_for_bit(change, tmp_path):
    assert_killed_run_resumes_exactly([*OPTIONS, *change], tmp_path, steps=120)
