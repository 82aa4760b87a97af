"""``lightning-plugins schedule``: rates and phases are those of the run, which is not started."""

import pytest

from lightning_plugins.cli import instantiate
from lightning_plugins.cli.schedule import planned_run

EPOCHS = ["--trainer.max_epochs=3", "--trainer.accumulate_grad_batches=2", "--model=my_pkg.MyModel"]
MINE = [*EPOCHS, "--trainer.limit_train_batches=4", "--data=my_pkg.MyData"]
STAGES = (
    "{class_path: lightning_plugins.callbacks.StagedTraining, init_args: {warmup: 0.5, stages: "
    "[{epochs: 1, learning_rates: {bias: 0.1}}, {epochs: 2, learning_rates: {.*: 0.2}}]}}"
)


def planned(*options):
    return planned_run(instantiate(list(options)))


def test_a_recipe_is_described_and_drawn_without_its_data(command, users_folder):
    answer = command("schedule", "late_sam/digits", "--trainer.max_epochs=10")
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[0].endswith(" optimizer steps")
    total = int(answer.out.split()[0])
    assert f"LateSAM: steps {round(0.7 * total)} to {total}" in answer.out
    assert (users_folder / "schedule.png").read_bytes().startswith(b"\x89PNG")
    answer = command("schedule", "language_model/tiny", "--output", "tiny.png")
    assert answer.out.splitlines()[:2] == [
        "2000 optimizer steps",
        "lr/0: 3e-05, rises to 0.003 by step 100, constant until step 1401, falls to 5e-06 by step "
        "2000",
    ]


SGD = ["--optimizer=SGD", "--optimizer.lr=0.1"]
STEPS = [*SGD, "--lr_scheduler=StepLR", "--lr_scheduler.step_size=2"]


@pytest.mark.parametrize(
    ("options", "phases"),
    [
        (STEPS, {}),
        ([*SGD, f"--trainer.callbacks+={STAGES}"], {"stage 1": (0, 2), "stage 2": (2, 6)}),
    ],
)
def test_the_rates_are_those_of_the_run(command, users_folder, options, phases):
    found = planned(*MINE, *options)
    assert found.phases == phases
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    watch = ["--trainer.callbacks+=my_pkg.WritesRates", "--trainer.logger=false"]
    answer = command("fit", *MINE, *options, *quiet, *watch)
    assert answer.code == 0, answer.err
    lines = (users_folder / "rates").read_text().splitlines()[::2]  # the first of two batches
    groups = {name: curve for names, curve in found.rates.items() for name in names.split(", ")}
    assert len(groups) == len(lines[0].split())
    for number, curve in enumerate(groups[name] for name in sorted(groups)):
        assert curve == pytest.approx([float(line.split()[number]) for line in lines])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([*MINE, "--trainer.max_epochs=-1"], "the run has no known end"),
        (
            [*MINE, "--trainer.max_epochs=null", "--trainer.max_steps=9", *STEPS],
            "whose length is unknown",
        ),
        (["--output", "schedule.pdf"], "does not end with .png"),
    ],
)
def test_what_is_unknown_before_the_run_is_refused(command, options, named):
    answer = command("schedule", *options)
    assert answer.code == 2
    assert named in answer.err
