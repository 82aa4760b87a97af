"""Manifests that somebody else wrote."""

import json
from dataclasses import replace

import pytest

from lightning_plugins.assets.cache import (
    CorruptedAssetError,
    asset_path,
    files_digest,
    find_corruption,
    sha256_of,
)
from lightning_plugins.assets.catalogue import CATALOGUE, Asset

ASSET = Asset("poems", "1.0", "poems.whl", "0" * 64, ("*",), "poems", "none", "none")
CONTENT = {"data/poem.txt": b"text", "data/large.bin": bytes(3_000_000)}


@pytest.fixture
def installed(tmp_path):
    """Return (asset, folder, a function that writes the manifest of changed entries)."""
    folder = tmp_path / ASSET.folder_name
    for name, content in CONTENT.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    hashes = {name: sha256_of(folder / name) for name in CONTENT}
    asset = replace(ASSET, files_sha256=files_digest(hashes))

    def write(**changes):
        files = {n: {"size": len(c), "sha256": hashes[n]} for n, c in CONTENT.items()}
        manifest = {"artefact_sha256": ASSET.sha256, "files": files | changes}
        (folder / "manifest.json").write_text(json.dumps(manifest))

    write()
    return asset, folder, write


def test_an_unchanged_asset_is_found(installed, tmp_path):
    asset, folder, _ = installed
    assert asset_path("poems", cache=tmp_path, catalogue=(asset,)) == folder


def test_a_changed_byte_of_a_large_file_is_found(installed, tmp_path):
    asset, folder, _ = installed
    (folder / "data/large.bin").write_bytes(bytes(2_999_999) + b"1")
    with pytest.raises(CorruptedAssetError, match=r"large\.bin was changed"):
        asset_path("poems", cache=tmp_path, catalogue=(asset,))


def test_a_manifest_rewritten_together_with_a_file_is_found(installed):
    asset, folder, write = installed
    (folder / "data/poem.txt").write_bytes(b"evil")
    write(**{"data/poem.txt": {"size": 4, "sha256": sha256_of(folder / "data/poem.txt")}})
    assert "other files than the catalogue" in find_corruption(asset, folder)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "data/../../x", "", "C:/x"])
def test_a_path_outside_the_folder_is_refused(path, installed):
    asset, folder, write = installed
    write(**{path: {"size": 1, "sha256": "0" * 64}})
    assert "is missing or unreadable" in find_corruption(asset, folder)


@pytest.mark.parametrize("text", ["[" * 10_000, "{}", "[]", '{"files": {"a": 1}}', "NaN"])
def test_a_manifest_of_another_form_is_reported(text, installed):
    asset, folder, _ = installed
    (folder / "manifest.json").write_text(text)
    assert "is missing or unreadable" in find_corruption(asset, folder)


@pytest.mark.parametrize("asset", CATALOGUE, ids=lambda asset: asset.name)
def test_every_asset_of_the_catalogue_pins_all_its_files(asset):
    assert len(asset.files_sha256) == 64
