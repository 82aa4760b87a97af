"""The end of ``fit`` says what happened."""

import re
from pathlib import Path

import pytest

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def test_a_run_ends_with_its_folder_metrics_plugins_files_and_next_command(command):
    few = ["--trainer.limit_train_batches=4", "--trainer.check_val_every_n_epoch=1"]
    mine = ["--trainer.callbacks+=my_pkg.Summarized"]
    answer = command(
        *("fit", "--config", "late_sam/digits", "--trainer.max_epochs=5"), *QUIET, *few, *mine
    )
    assert answer.code == 0, answer.err
    first, *lines = answer.out.splitlines()[-9:]
    assert re.fullmatch(r"runs/late_sam_digits/version_0: 20 steps in \d+ s", first)
    number = r"\d+(?:\.\d+)?"
    names = ("val/loss", "val/accuracy", "train/loss", "train/accuracy")
    for name, line in zip(names, lines, strict=False):
        assert re.fullmatch(rf"  {name} +{number}( -> {number})?", line), line
    assert lines[4:6] == ["  LateSAM: 6 SAM steps from step 14", "  Summarized: 20 batches"]
    assert lines[6].startswith("  files: config.yaml, hparams.yaml, metrics.csv, checkpoints/")
    assert lines[7] == "next: lightning-plugins test --run runs/late_sam_digits/version_0"
    # The first value is that of the first step, the last one that of the last epoch.
    loss = re.search(rf"train/loss +({number}) -> ({number})", answer.out)
    rows = Path("runs/late_sam_digits/version_0/metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("train/loss_epoch")
    last = [row.split(",")[column] for row in rows[1:] if row.split(",")[column]][-1]
    assert loss[2] == f"{float(last):.4g}"
    assert abs(float(loss[1]) - 2.3) < 0.1  # log 10


def test_a_resumed_run_counts_its_own_steps(command):
    few = ["--trainer.limit_train_batches=3", "--trainer.limit_val_batches=1"]
    answer = command("fit", "--config=image/digits", "--trainer.max_epochs=1", *QUIET, *few)
    assert answer.code == 0, answer.err
    answer = command("fit", "--resume=last", "--trainer.max_epochs=3")
    assert answer.code == 0, answer.err
    assert "runs/digits/version_0: 6 steps from step 3 in " in answer.out


@pytest.mark.parametrize(
    "length",
    [
        ["--trainer.max_epochs=1"],
        pytest.param(["--trainer.max_steps=7"], marks=pytest.mark.slow),
        pytest.param(
            ["--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=2"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_decentralized_runs_of_any_length_print_their_summary(command, length):
    answer = command("fit", "--config=decentralized/digits16", *length, *QUIET)
    assert answer.code == 0, answer.err
    assert re.search(r"16 agents, \d+ steps each: val/accuracy\n", answer.out)
    assert re.search(r"  merged +0\.\d\d\d\n", answer.out)
    merged = float(re.search(r"merged +(0\.\d\d\d)", answer.out)[1])
    (shown,) = re.findall(r"  val/accuracy +(?:.* -> )?(0\.\d+)\n", answer.out)
    assert merged == pytest.approx(float(shown), abs=6e-4)  # of the last step, not an earlier one
    assert re.search(r"  CommunicationSchedule: rounds of gossip: \d; merges: 1; ", answer.out)
