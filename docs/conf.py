"""Configuration of Sphinx; `make docs` builds with warnings as errors, also without a network."""

import urllib.error
import urllib.request

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
]
html_theme = "furo"
html_title = "lightning-plugins"
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
add_module_names = False


def _reachable(mapping: dict[str, str]) -> dict[str, tuple[str, None]]:
    """The inventories that can be fetched now: a missing network is no error of the documents."""
    found: dict[str, tuple[str, None]] = {}
    for name, address in mapping.items():
        try:
            with urllib.request.urlopen(f"{address}/objects.inv", timeout=5):
                found[name] = (address, None)
        except (OSError, urllib.error.URLError):
            print(f"docs: {address} cannot be reached, links to {name} stay plain text")
    return found


intersphinx_mapping = _reachable(
    {
        "python": "https://docs.python.org/3",
        "torch": "https://docs.pytorch.org/docs/stable",
        "lightning": "https://lightning.ai/docs/pytorch/stable",
    }
)
