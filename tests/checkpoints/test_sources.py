"""Checkpoints of a stranger, by path and by URL, for every command and loader."""

import contextlib
import io
import pickle
import socket
import sys
import threading
import time

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_plugins.__main__ import main
from lightning_plugins.checkpoints import read_checkpoint, reading
from lightning_plugins.datamodules import DigitsDataModule
from lightning_plugins.litmodels import ImageClassifier

OPTIONS = ["--config", "image/digits", "--trainer.logger=false", "--trainer.max_steps=1"]
MLP = {"network": "mlp", "in_channels": 1, "image_size": 8}


@pytest.fixture
def clean(tmp_path):
    """Checkpoint of an untrained classifier that fits the recipe ``image/digits``."""
    module = ImageClassifier(**MLP)
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "clean.ckpt")
    return torch.load(tmp_path / "clean.ckpt", weights_only=True)


@pytest.mark.parametrize("source", ["path", "URL", "file"])
@pytest.mark.parametrize("cls", [ImageClassifier, DigitsDataModule])
def test_a_module_loads_plain_data_only(cls, source, clean, exploit, address, tmp_path):
    torch.save({**clean, "extra": exploit}, tmp_path / "evil.ckpt")
    where = {
        "path": tmp_path / "evil.ckpt",
        "URL": f"{address}/evil.ckpt",
        "file": io.BytesIO((tmp_path / "evil.ckpt").read_bytes()),
    }[source]
    with pytest.raises(pickle.UnpicklingError):
        cls.load_from_checkpoint(where)
    assert not (tmp_path / "owned").exists()


def test_a_clean_checkpoint_loads_from_a_url_each_time_anew(clean, address, tmp_path):
    for value in (1.0, 2.0):
        weights = {name: torch.full_like(w, value) for name, w in clean["state_dict"].items()}
        torch.save({**clean, "state_dict": weights}, tmp_path / "clean.ckpt")
        loaded = ImageClassifier.load_from_checkpoint(f"{address}/clean.ckpt")
        assert all((w == value).all() for w in loaded.state_dict().values())


@pytest.mark.parametrize("key", ["hparams", "module_arguments"])
def test_hyperparameters_under_old_names_are_refused(key, clean, tmp_path):
    torch.save({**clean, key: {"network": "/etc/passwd"}}, tmp_path / "old.ckpt")
    with pytest.raises(ValueError, match="another name"):
        ImageClassifier.load_from_checkpoint(tmp_path / "old.ckpt")


def test_hyperparameters_cannot_be_wrapped_in_an_argument(clean, tmp_path):
    torch.save({**clean, "hparams_name": "lr_scheduler"}, tmp_path / "wrapped.ckpt")
    with pytest.raises(ValueError, match="another name"):
        ImageClassifier.load_from_checkpoint(tmp_path / "wrapped.ckpt")


def test_unpickling_cannot_be_asked_for(clean, tmp_path):
    with pytest.raises(ValueError, match="weights_only=False"):
        ImageClassifier.load_from_checkpoint(tmp_path / "clean.ckpt", weights_only=False)


def test_a_download_larger_than_the_limit_ends(clean, address, monkeypatch):
    monkeypatch.setenv("LIGHTNING_PLUGINS_MAX_DOWNLOAD_BYTES", "1000")
    with pytest.raises(ValueError, match="bytes of a downloaded checkpoint"):
        read_checkpoint(f"{address}/clean.ckpt")


@pytest.fixture
def users_folder(tmp_path, monkeypatch):
    """The current folder, with a module ``planted`` that leaves a marker when it is imported."""
    (tmp_path / "planted.py").write_text(
        "import pathlib\n"
        "pathlib.Path('owned').mkdir(exist_ok=True)\n"
        "from lightning_plugins.litmodels import ImageClassifier\n"
        "class Model(ImageClassifier): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "owned").exists()
    assert "planted" not in sys.modules


HOSTILE = {
    "a class": {"_class_path": "planted.Model"},
    "a class in place of the module": {"class_path": "planted.Model", "init_args": {}},
    "a class as an argument": {"optimizer": {"class_path": "planted.Model"}},
    "a function as an argument": {"optimizer": "planted.Model"},
    "a builder": {"_instantiator": "planted.Model"},
    "a path": {"network": "local-dir:planted"},
    "a new argument": {"planted": 1},
}


@pytest.mark.parametrize("by", ["path", "URL"])
@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_a_command_runs_and_imports_nothing(
    command, by, clean, exploit, address, users_folder, capsys
):
    cases = {"code": {**clean, "extra": exploit}}
    for name, hostile in HOSTILE.items():
        stored = {**clean["hyper_parameters"], **hostile}
        cases[name] = {**clean, "hyper_parameters": stored}
    if command != "fit" or by == "URL":  # one command and source sees all of them
        cases = {name: cases[name] for name in ("code", "a class")}
    for name, content in cases.items():
        torch.save(content, "evil.ckpt")
        source = f"{address}/evil.ckpt" if by == "URL" else "evil.ckpt"
        options = OPTIONS if command == "fit" else [*OPTIONS[:3]]
        assert main([command, *options, f"--ckpt_path={source}"]) == 2, name
        message = capsys.readouterr().err
        assert message.count("\n") == 1, name
        assert "evil.ckpt" in message or "mkdir" in message, message


def test_a_command_refuses_to_unpickle(clean, users_folder, capsys):
    options = ["--ckpt_path=clean.ckpt", "--weights_only=false"]
    assert main(["test", *OPTIONS[:3], *options]) == 2
    assert "weights_only" in capsys.readouterr().err


def test_a_command_accepts_the_clean_checkpoint_by_path_and_by_url(clean, address, users_folder):
    model = ["--model.network=mlp", "--model.in_channels=1", "--model.image_size=8"]
    for source in ("clean.ckpt", f"{address}/clean.ckpt"):
        assert main(["test", *OPTIONS[:3], *model, f"--ckpt_path={source}"]) == 0


@pytest.mark.parametrize("dripped", ["headers", "body"])
def test_a_download_that_drips_ends(dripped, monkeypatch):
    monkeypatch.setattr(reading, "_SECONDS_WITHOUT_DATA", 0.3)
    content = b"HTTP/1.0 200 OK\r\n" + (b"\r\n" if dripped == "body" else b"A: ")

    def drip(listener):
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            connection.sendall(content)
            for _ in range(100):
                connection.sendall(b"x")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip, args=[listener], daemon=True).start()
        with pytest.raises(TimeoutError):
            read_checkpoint(f"http://127.0.0.1:{listener.getsockname()[1]}/x.ckpt")


def test_a_download_that_ends_early_is_an_error():
    def cut(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nx")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=cut, args=[listener], daemon=True).start()
        with pytest.raises(OSError, match="ended after 1 bytes"):
            read_checkpoint(f"http://127.0.0.1:{listener.getsockname()[1]}/x.ckpt")
