"""Names of parameters for optimizers that are given bare ones."""

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_plugins.optimizers.parameter_names import register_names


class ParameterNames(Callback):
    """Lets optimizers that act by block find the names of parameters handed over without them.

    Needed only where a module's ``configure_optimizers`` makes a list of parameters first:
    ``model.parameters()`` and ``model.named_parameters()`` tell their names by themselves. It has
    no state, and writes and logs nothing.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register the module; parameters that ``configure_model`` makes later are found too."""
        register_names(pl_module)
