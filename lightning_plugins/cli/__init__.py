"""``lightning-plugins fit|validate|test|predict``: LightningCLI with support for the plugins.

To add the same support to your own command line::

    class MyCLI(PluginCLIMixin, LightningCLI): ...
"""

from lightning_plugins.cli.plugin_cli import (
    PluginCLI,
    PluginCLIMixin,
    instantiate,
    run,
    with_recipes,
)

__all__ = ["PluginCLI", "PluginCLIMixin", "instantiate", "run", "with_recipes"]
