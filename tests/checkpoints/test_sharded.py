import io
import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp

from lightning_plugins.__main__ import main
from lightning_plugins.checkpoints import check_sharded, read_checkpoint

STATE = {
    "state_dict": {"weight": torch.ones(3), "scale": torch.ones(2, dtype=torch.bfloat16)},
    "optimizer_0": {"lr": 0.1, "betas": (0.9, 0.99)},
}


@pytest.fixture
def folder(tmp_path):
    """A sharded checkpoint."""
    dcp.save(STATE, checkpoint_id=tmp_path / "sharded", no_dist=True)
    return tmp_path / "sharded"


def description(folder, change=None):
    with (folder / ".metadata").open("rb") as file:
        found = pickle.load(file)  # noqa: S301 - written by this test
    if change:
        change(found)
        (folder / ".metadata").write_bytes(pickle.dumps(found))
    return found


def test_a_checkpoint_of_torch_is_accepted(folder):
    check_sharded(folder)


def test_one_process_reads_the_parts_as_a_file_of_lightning(folder):
    torch.save({"global_step": 3}, folder / "meta.pt")
    found = read_checkpoint(folder)
    assert found.keys() == {"state_dict", "optimizer_states", "global_step"}
    for name, value in STATE["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][name], value, rtol=0, atol=0)
    assert found["global_step"] == 3
    assert found["optimizer_states"][0]["lr"] == STATE["optimizer_0"]["lr"]


def test_code_in_a_folder_is_not_run_by_reading_it(folder, exploit, tmp_path):
    (folder / ".metadata").write_bytes(pickle.dumps(exploit))
    with pytest.raises(pickle.UnpicklingError):
        read_checkpoint(folder)
    assert not (tmp_path / "owned").exists()


def test_code_in_the_description_is_refused(folder, exploit, tmp_path):
    (folder / ".metadata").write_bytes(pickle.dumps(exploit))
    with pytest.raises(pickle.UnpicklingError, match=r"mkdir is not part of a checkpoint"):
        check_sharded(folder)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "name", ["torch\nload", "torch.distributed.checkpoint.filesystem\nos.system", "torch\nhub.load"]
)
def test_other_names_of_torch_are_refused(folder, name):
    (folder / ".metadata").write_bytes(b"c" + name.encode() + b"\n.")
    with pytest.raises(pickle.UnpicklingError, match="is not part"):
        check_sharded(folder)


def test_code_in_a_value_is_refused(folder, exploit, tmp_path):
    buffer = io.BytesIO()
    torch.save(exploit, buffer)
    found = description(folder)
    (place,) = [p for i, p in found.storage_data.items() if i.fqn == "optimizer_0.lr"]
    file = folder / place.relative_path

    def append(found):
        for index, place in found.storage_data.items():
            if index.fqn == "optimizer_0.lr":
                place.offset, place.length = file.stat().st_size, len(buffer.getvalue())

    description(folder, append)
    with file.open("ab") as opened:
        opened.write(buffer.getvalue())
    with pytest.raises(pickle.UnpicklingError):
        check_sharded(folder)
    assert not (tmp_path / "owned").exists()


def test_a_part_outside_the_folder_is_refused(folder):
    def move(found):
        for place in found.storage_data.values():
            place.relative_path = "../elsewhere"

    description(folder, move)
    with pytest.raises(ValueError, match="leads out"):
        check_sharded(folder)


def test_the_command_line_refuses_it(folder, exploit, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (folder / ".metadata").write_bytes(pickle.dumps(exploit))
    assert main(["test", "--config", "image/digits", "--ckpt_path=sharded"]) == 2
    assert not (tmp_path / "owned").exists()
    assert "mkdir" in capsys.readouterr().err
