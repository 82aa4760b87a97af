"""Output and exit code of ``lightning-plugins assets``."""

from pathlib import Path
from typing import Any

import pytest

from lightning_plugins.assets import CATALOGUE, command
from lightning_plugins.assets import install as install_module
from lightning_plugins.assets.cache import cache_folder


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_PLUGINS_ASSETS", str(cache))


def test_the_cache_folder_is_the_variable_or_the_users_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("LIGHTNING_PLUGINS_ASSETS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == tmp_path / "lightning-plugins" / "assets"


def test_list_names_every_asset_with_licence_and_state(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["list"]) == 0
    printed = capsys.readouterr().out
    for asset in CATALOGUE:
        assert f"{asset.name:<20} {asset.version:<6} missing" in printed
        assert asset.licence in printed


def test_path_of_a_missing_asset_exits_with_2_and_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["path", "shakespeare"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "`lightning-plugins assets install shakespeare`" in line


def test_install_continues_after_one_asset_failed_and_exits_with_2(
    index: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = []

    def install(asset: Any, **kwargs: object) -> None:
        tried.append(asset.name)
        if asset is CATALOGUE[0]:
            raise OSError("the disk is full")

    monkeypatch.setattr(command, "install", install)
    assert command.main(["install"]) == 2
    assert tried == [asset.name for asset in CATALOGUE]
    assert "the disk is full" in capsys.readouterr().err


def test_a_misspelt_name_installs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    monkeypatch.setattr(install_module, "download", None)
    assert command.main(["install", "recbole", "shakespear"]) == 2
    assert "did you mean 'shakespeare'?" in capsys.readouterr().err
    assert not cache.exists()
