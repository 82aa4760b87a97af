"""Files and addresses that another person wrote."""

import socket
from datetime import timedelta
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from lightning_plugins.strategies.agent_checkpoints import AgentCheckpoints
from lightning_plugins.strategies.fault_tolerant_peers import connect_to_store, host_store


@pytest.mark.parametrize(
    "save", ["../../x", "/etc/passwd", "a/b", "..", "a\\b", "x" * 300, "\n", ""]
)
def test_the_name_of_a_save_stays_in_its_folder(save, tmp_path):
    with pytest.raises(ValueError, match=r"last\.ckpt, its save: .* is not a plain file name"):
        AgentCheckpoints(tmp_path / "last.ckpt").path(save, 0)


def test_a_plain_name_of_a_save_is_accepted(tmp_path):
    path = AgentCheckpoints(tmp_path / "last.ckpt").path("00000012-0a1b2c3d", 3)
    assert path == Path(tmp_path, "last.ckpt.agents", "00000012-0a1b2c3d.agent3.pt")


def listens_on_all_interfaces(port):
    """Whether the port accepts connections to another address of this machine than 127.0.0.1."""
    with socket.socket() as other:
        other.settimeout(1)
        return other.connect_ex(("127.0.0.2", port)) == 0


def test_the_store_listens_on_loopback_unless_a_host_is_given():
    assert not listens_on_all_interfaces(host_store().port)
    assert listens_on_all_interfaces(host_store(host="0.0.0.0").port)


def test_agents_with_the_secret_share_a_store_that_others_do_not_see(monkeypatch):
    hosted = host_store()
    seconds = timedelta(seconds=5)
    monkeypatch.setenv("LIGHTNING_PLUGINS_STORE", f"127.0.0.1:{hosted.port}/secret")
    first, second = connect_to_store(seconds), connect_to_store(seconds)
    first.set("vote", "1")
    assert second.get("vote") == b"1"
    stranger = TCPStore("127.0.0.1", hosted.port, is_master=False, timeout=seconds)
    assert not stranger.check(["vote"])


@pytest.mark.parametrize("address", ["", "host", "host:", ":29400", "host:port"])
def test_an_invalid_address_is_an_error(address, monkeypatch):
    monkeypatch.setenv("LIGHTNING_PLUGINS_STORE", address)
    with pytest.raises(ValueError, match="LIGHTNING_PLUGINS_STORE: expected ADDRESS:PORT"):
        connect_to_store(timedelta(seconds=1))


def test_a_link_in_place_of_the_agents_folder_is_refused(tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "last.ckpt.agents").symlink_to(tmp_path / "private")
    with pytest.raises(ValueError, match="symbolic link"):
        AgentCheckpoints(tmp_path / "last.ckpt")


def test_files_of_others_in_the_agents_folder_are_not_removed(tmp_path):
    files = AgentCheckpoints(tmp_path / "last.ckpt")
    for save in ("first", "second"):
        files.write(save, 0, {})
    (files.folder / "notes.txt").write_text("mine")
    (files.folder / "first.agent0.pt").unlink()
    (files.folder / "first.agent0.pt").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("mine")
    files.keep_only("second")
    assert {path.name for path in files.folder.iterdir()} == {"notes.txt", "second.agent0.pt"}
    files.remove()
    assert [path.name for path in files.folder.iterdir()] == ["notes.txt"]
    assert (tmp_path / "elsewhere").read_text() == "mine"
