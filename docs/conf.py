"""Configuration of Sphinx; `make docs` builds with warnings as errors, also without a network."""

import http.client
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightning_plugins

project = "lightning-plugins"
author = "The lightning-plugins contributors"
copyright = "The lightning-plugins contributors"
release = version = lightning_plugins.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
]
html_theme = "furo"
html_title = "lightning-plugins"
html_static_path = ["static"]
html_css_files = ["pages.css"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
add_module_names = False


def _inventory(name: str, address: str) -> tuple[str, str] | None:
    """The address with a copy of its inventory; None, and a line, where it cannot be had.

    Sphinx would fetch it itself, and end ``make docs`` where that fails: a missing network is no
    error of the documents.
    """
    copy = Path(__file__).parent / "_build" / "inventories" / f"{name}.inv"
    try:
        with urllib.request.urlopen(f"{address}/objects.inv", timeout=5) as answer:
            content = answer.read()
    except (OSError, http.client.HTTPException):
        content = b""
    if content.startswith(b"# Sphinx inventory version 2"):  # not the page of some gateway
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    if not copy.exists():
        print(f"docs: {address} cannot be reached, links to {name} stay plain text")
        return None
    return address, str(copy)


_ELSEWHERE = {
    "python": "https://docs.python.org/3",
    "torch": "https://docs.pytorch.org/docs/stable",
    "lightning": "https://lightning.ai/docs/pytorch/stable",
}
with ThreadPoolExecutor() as _pool:  # one time limit for all of them
    _inventories = list(_pool.map(_inventory, _ELSEWHERE, _ELSEWHERE.values()))
intersphinx_mapping = {
    name: found for name, found in zip(_ELSEWHERE, _inventories, strict=True) if found
}
