"""The tiny language model on a generated text, killed and resumed."""

import hashlib
import math
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from kill_and_resume import assert_killed_run_resumes_exactly
from recording_callbacks import recorded

BATCH_SIZE, NUM_WINDOWS, CHECKPOINT_EVERY = 4, 332, 5
STEPS_PER_EPOCH = (
    42  # with two processes, which fill the last batch with the first samples of the epoch
)
HARNESS = Path(__file__).parents[1] / "harness"


@pytest.fixture
def options(tmp_path):
    """Return a text whose lines, and therefore windows, all differ."""
    text = tmp_path / "text"
    text.mkdir()
    for part in ("train", "val"):
        lines = [f"{part} {index}: to be or not to be, that is {index}\n" for index in range(500)]
        (text / f"{part}.txt").write_text("".join(lines))
    return [
        *("--config", "language_model/tiny", "--trainer.val_check_interval=1.0"),
        *(f"--data.init_args.corpus={text}", f"--data.init_args.data_dir={tmp_path / 'tokens'}"),
        *(f"--data.init_args.batch_size={BATCH_SIZE}", "--data.init_args.context_length=64"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("masks_documents", ["false", "true"])
def test_killed_run_resumes_bit_for_bit(tmp_path, options, masks_documents):
    options += ["--trainer.max_steps=120", f"--data.init_args.mask_documents={masks_documents}"]
    assert_killed_run_resumes_exactly(options, tmp_path / "runs", steps=120)


@pytest.mark.scale(plugin="ExactResume", strategy="ddp")
@pytest.mark.slow
def test_two_processes_resume_without_repeating_or_skipping_a_sample(tmp_path, options):
    kill_at = random.randrange(STEPS_PER_EPOCH + CHECKPOINT_EVERY, 2 * STEPS_PER_EPOCH - 1)
    kill = ["--trainer.callbacks+=kill_and_resume.KillAt", "--trainer.callbacks.hook"]
    kill += ["on_train_batch_start", f"--trainer.callbacks.step={kill_at}"]
    assert fit_processes(options + kill, tmp_path / "killed") == -signal.SIGKILL
    resume = [f"--ckpt_path={tmp_path / 'killed' / 'last.ckpt'}"]
    assert fit_processes(options + resume, tmp_path / "resumed") == 0
    killed, resumed = recorded(tmp_path / "killed"), recorded(tmp_path / "resumed")
    last = kill_at - kill_at % CHECKPOINT_EVERY
    assert min(resumed[0]) == last + 1, f"killed at {kill_at}"
    for epoch in range(3):
        steps = range(epoch * STEPS_PER_EPOCH + 1, (epoch + 1) * STEPS_PER_EPOCH + 1)
        ranks = [
            [
                sample
                for step in steps
                for sample in (killed if step <= last else resumed)[rank][step]
            ]
            for rank in range(2)
        ]
        assert [len(samples) for samples in ranks] == [NUM_WINDOWS // 2] * 2
        assert len(set(ranks[0] + ranks[1])) == NUM_WINDOWS, f"epoch {epoch}, killed at {kill_at}"


@pytest.mark.slow
def test_a_killed_mixture_of_corpora_uses_each_window_as_often_as_it_says(tmp_path):
    uses, parts, corpus = {"a": 2, "b": 1, "c": 0.5}, {}, []
    for (name, epochs), size in zip(uses.items(), (60, 40, 80), strict=True):
        folder = tmp_path / name
        folder.mkdir()
        text = random.Random(name).randbytes(32 * size).hex()
        (folder / "train.txt").write_text(text)
        (folder / "val.txt").write_text(text[:200])
        tokens = torch.tensor([*text.encode(), 0])
        parts[name] = [
            hashlib.sha256(tokens[64 * n : 64 * n + 65].numpy().tobytes()).hexdigest()
            for n in range(size)
        ]
        corpus.append({"corpus": str(folder), "epochs": epochs})
    data = {"corpus": corpus, "data_dir": str(tmp_path / "tokens")}
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"data": {"init_args": data}}))
    options = ["--config", "language_model/tiny", f"--config={tmp_path / 'mixture.yaml'}"]
    options += ["--data.init_args.context_length=64"]
    kill_at = random.randrange(31, 49)
    kill = ["--trainer.callbacks+=kill_and_resume.KillAt", "--trainer.callbacks.hook"]
    kill += ["on_train_batch_start", f"--trainer.callbacks.step={kill_at}"]
    before = [*options, "--data.init_args.batch_size=4", *kill]
    assert fit_processes(before, tmp_path / "killed") == -signal.SIGKILL
    after = [*options, "--data.init_args.batch_size=6", f"--ckpt_path={tmp_path}/killed/last.ckpt"]
    assert fit_processes(after, tmp_path / "resumed", devices=1) == 0
    last = kill_at - kill_at % CHECKPOINT_EVERY
    killed, resumed = recorded(tmp_path / "killed"), recorded(tmp_path / "resumed")
    seen = Counter(
        window
        for steps in killed.values()
        for step, windows in steps.items()
        if step <= last
        for window in windows
    )
    seen.update(window for windows in resumed[0].values() for window in windows)
    assert sum(seen.values()) == 3 * 200
    for name, epochs in uses.items():
        expected = {math.floor(3 * epochs), math.ceil(3 * epochs)}
        assert {seen[window] for window in parts[name]} == expected, f"killed at {kill_at}"


def fit_processes(options, folder, devices=2):
    """Train three epochs, record each sample, and return the exit code of the first process."""
    folder.mkdir()
    command = [
        *(sys.executable, "-m", "lightning_plugins", "fit", *options),
        *(f"--trainer.devices={devices}", "--trainer.strategy=ddp", "--trainer.max_steps=-1"),
        *("--trainer.max_epochs=3", "--trainer.limit_val_batches=0", "--trainer.logger=false"),
        *("--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={folder}"),
        *("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_last=true"),
        f"--trainer.callbacks.dirpath={folder}",
        f"--trainer.callbacks.every_n_train_steps={CHECKPOINT_EVERY}",
        "--trainer.callbacks+=recording_callbacks.RecordBatches",
        f"--trainer.callbacks.folder={folder}",
    ]
    path = os.pathsep.join([str(HARNESS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    with open(folder / "log.txt", "w") as log:
        return subprocess.run(
            command, cwd=folder, env=environment, stdout=log, stderr=log, check=False
        ).returncode
