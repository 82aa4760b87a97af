"""``lightning-plugins fit|validate|test|predict``: LightningCLI with support for the plugins.

To add the same support to your own command line::

    class MyCLI(PluginCLIMixin, LightningCLI): ...
"""

from lightning_plugins.cli.commands import check, instantiate, run, schedule
from lightning_plugins.cli.configuration import with_recipes
from lightning_plugins.cli.plugin_cli import PluginCLI, PluginCLIMixin

__all__ = ["PluginCLI", "PluginCLIMixin", "check", "instantiate", "run", "schedule", "with_recipes"]
