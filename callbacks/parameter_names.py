"""Registers parameter names for optimizers that receive parameters without names."""

from lightning.pytorch import LightningModule, Trainer

from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.optimizers.parameter_names import register_names


class ParameterNames(PluginCallback):
    """Makes parameter names available to optimizers that receive parameters without names.

    Optimizers with settings per block type need the names. The callback is only required if
    ``configure_optimizers`` builds a list of parameters first: with ``model.parameters()`` and
    ``model.named_parameters()`` the optimizers find the names without it. It has no state, and
    writes and logs nothing.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register the module; parameters that ``configure_model`` creates later are included."""
        register_names(pl_module)
