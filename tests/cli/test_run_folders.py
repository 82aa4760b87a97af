"""``--resume`` and ``--run`` choose a run, its configuration and its checkpoint."""

import csv
import re
from pathlib import Path

import pytest
import torch
import yaml

SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=4"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
FEW = [f"--trainer.limit_{part}_batches=1" for part in ("val", "test", "predict")]


@pytest.fixture
def finished_run(command):
    answer = command("fit", "--config", "image/digits", *SHORT, *QUIET, *FEW)
    assert answer.code == 0, answer.err
    return Path("runs/digits/version_0")


def test_a_run_is_evaluated_and_continued_from_its_folder(command, finished_run):
    for subcommand in ("validate", "test", "predict"):
        answer = command(subcommand, "--run", "last")
        assert answer.code == 0, answer.err
        assert f"{subcommand} of {finished_run} from" in answer.out
    (row,) = csv.DictReader((finished_run / "test" / "metrics.csv").open())
    assert float(row["test/accuracy"]) > 0
    before = (finished_run / "metrics.csv").read_text()
    assert yaml.safe_load((finished_run / "config.yaml").read_text())["model"]

    answer = command("fit", f"--resume={finished_run}", "--trainer.max_epochs=2")
    assert answer.code == 0, answer.err
    assert "changed: trainer.max_epochs 1 -> 2; the run will differ" in answer.out
    assert [path.name for path in finished_run.parent.iterdir()] == ["version_0"]
    after = list(csv.DictReader((finished_run / "metrics.csv").open()))
    assert before.splitlines()[1].split(",")[0] in after[0].values()
    saved = (finished_run / "config.yaml").read_text()
    assert saved.startswith("# recipe: image/digits\n")
    assert yaml.safe_load(saved)["trainer"]["max_epochs"] == 2


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_untrained_weights_are_refused_unless_wanted(command, subcommand):
    options = [subcommand, "--config", "image/digits", *QUIET, *FEW]
    answer = command(*options)
    assert answer.code == 2
    assert "untrained weights: add --run last|FOLDER" in answer.err
    assert command(*options, "--ckpt_path=last").code == 2
    if subcommand == "test":
        assert command(*options, "--untrained").code == 0


def test_last_is_the_newest_run_of_the_given_recipe(command, finished_run):
    second = command("fit", "--config", "image/digits+late_sam", *SHORT, *QUIET, *FEW)
    assert second.code == 0, second.err
    answer = command("validate", "--run", "last", "--config", "image/digits")
    assert f"validate of {finished_run} from" in answer.out
    answer = command("validate", "--run=last")
    assert "validate of runs/digits/version_1 from" in answer.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fit", "--resume", "last"], "no run in runs, lightning_logs"),
        (["test", "--run", "last"], "no run in runs, lightning_logs"),
        (["test", "--run", "runs/nope"], "no folder or checkpoint 'runs/nope'"),
        (["fit", "--run", "last"], "fit continues a run with --resume"),
        (["test", "--resume", "last"], "evaluate one with --run"),
        (["fit", "--resume"], "--resume requires a value"),
        (["fit", "--config", "image/digits", "--ckpt_path=last"], "use --resume last"),
    ],
)
def test_a_missing_run_is_one_line(command, arguments, told):
    answer = command(*arguments)
    assert answer.code == 2
    assert told in answer.err
    assert answer.err.count("\n") == 1


def test_a_truncated_checkpoint_is_not_chosen(command, finished_run):
    newest = finished_run / "checkpoints" / "truncated.ckpt"
    newest.write_bytes((finished_run / "checkpoints" / "last.ckpt").read_bytes()[:1000])
    answer = command("validate", "--run", "last")
    assert answer.code == 0, answer.err
    assert "truncated" not in answer.out


@pytest.mark.parametrize("arguments", [["test", "--run=last"], ["fit", "--resume=last"]])
@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("  max_epochs: 1\n", "  max_epochs: x\n", "trainer.max_epochs: expected a whole number"),
        ("    dropout:", "    dropuot:", "unknown key; did you mean dropout?"),
        ("trainer:\n", "trainer:\n\t", "invalid YAML: a tab"),
        ("trainer:\n", "trainer: 3\nmodel_:\n", ""),
    ],
)
def test_an_error_in_the_configuration_of_a_run_names_its_file_and_line(
    command, finished_run, arguments, before, after, told
):
    path = finished_run / "config.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    answer = command(*arguments)
    assert answer.code == 2
    assert re.match(rf"lightning-plugins: {path}:\d+: ", answer.err), answer.err
    assert told in answer.err
    assert answer.err.count("\n") == 1


def test_a_model_without_export_is_refused(command, finished_run):
    answer = command("export", "--run", "last", "--output", "exported")
    assert answer.code == 2
    assert "ImageClassifier has no method `export(folder)`" in answer.err
    answer = command("export", "--run", "last")
    assert answer.code == 2
    assert "export requires --run last|FOLDER and --output FOLDER" in answer.err
    answer = command("export", "--run=last", "--output=runs")
    assert answer.code == 2
    assert "'runs' exists and is not empty: choose a new folder" in answer.err


def test_an_exported_run_is_loaded_by_transformers(command, users_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = "to be or not to be, that is the question\n" * 40
    (users_folder / "text").mkdir()
    for part in ("train", "val"):
        (users_folder / "text" / f"{part}.txt").write_text(words)
    options = [
        *("--config=language_model/tiny", "--trainer.max_steps=2", "--data.init_args.corpus=text"),
        *("--data.init_args.data_dir=tokens", "--data.init_args.batch_size=2"),
        *("--trainer.val_check_interval=2", "--data.init_args.context_length=64"),
    ]
    answer = command("fit", *options, *QUIET)
    assert answer.code == 0, answer.err
    answer = command("export", "--run", "last", "--output", "exported/model")
    assert answer.code == 0, answer.err
    assert "export of runs/language_model_tiny/version_0 from" in answer.out
    model = AutoModelForCausalLM.from_pretrained("exported/model")
    (last,) = Path("runs").rglob("last.ckpt")
    for name, value in torch.load(last, weights_only=True)["state_dict"].items():
        assert torch.equal(model.get_parameter(name.removeprefix("network.")), value)
    tokenizer = AutoTokenizer.from_pretrained("exported/model")
    assert tokenizer.decode(tokenizer.encode("to be", add_special_tokens=False)) == "to be"
    assert [path.name for path in Path("exported").iterdir()] == ["model"]
