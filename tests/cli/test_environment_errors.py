"""What a machine refuses is reported in one line with exit code 2, before and in training."""

import os
import pwd
import resource
import socket
from contextlib import contextmanager

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SHORT = [
    *("--trainer.max_epochs=2", "--trainer.limit_train_batches=4"),
    "--trainer.check_val_every_n_epoch=1",
]


def the_line(answer):
    """Return our line after what Lightning logs about the machine."""
    assert answer.code == 2, answer.err
    (line,) = (x for x in answer.err.splitlines() if x.startswith("lightning-plugins: "))
    assert line == answer.err.splitlines()[-1]
    assert "Traceback" not in answer.err
    return line


@contextmanager
def largest_file(size):
    """Fail to write files of more than ``size`` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_before_training(command):
    with largest_file(64):
        answer = command("fit", "--config=image/digits", *SHORT, *QUIET)
    assert "File too large" in the_line(answer)


def test_a_disk_that_is_full_at_the_first_checkpoint(command):
    with largest_file(20_000):
        answer = command("fit", "--config=image/digits", *SHORT, *QUIET)
    line = the_line(answer)
    assert "File too large" in line
    assert "training stopped after step 4 without a checkpoint" in line


def test_a_disk_that_is_full_later_leaves_a_run_that_continues(command):
    full = "--trainer.callbacks+=my_pkg.FullDisk"
    line = the_line(command("fit", "--config=image/digits", *SHORT, *QUIET, full))
    assert line == (
        "lightning-plugins: No space left on device: runs/metrics.csv: training stopped after step "
        "6; continue with: lightning-plugins fit --resume runs/digits/version_0"
    )
    answer = command("fit", "--resume", "runs/digits/version_0")
    assert answer.code == 0, answer.err
    assert "runs/digits/version_0: 4 steps from step 4 in" in answer.out


def test_a_busy_port(command, monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(port))
        answer = command("fit", "--config=image/digits", "--trainer.strategy=ddp", *SHORT, *QUIET)
    assert f"port {port} is in use by another program: set MASTER_PORT" in the_line(answer)


def test_without_a_home_directory(command, monkeypatch):
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "LIGHTNING_PLUGINS_ASSETS"):
        monkeypatch.delenv(name, raising=False)
    assert os.path.expanduser("~") == "~"
    answer = command("fit", "--config=image/digits", *SHORT, *QUIET)
    assert answer.code == 0, answer.err
    line = the_line(command("fit", "--config=language_model/tiny", *QUIET))
    assert "no home directory: set HOME, or LIGHTNING_PLUGINS_ASSETS to a folder" in line


def test_a_folder_that_cannot_be_created(command):
    options = ["--config=image/digits", "--trainer.logger=false", *SHORT, *QUIET]
    answer = command("fit", *options, "--trainer.default_root_dir=/proc/x")
    assert "No such file or directory: /proc/x" in the_line(answer)
