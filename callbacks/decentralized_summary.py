"""A short summary at the end of decentralized training."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins._lightning_compat.loops import run_validation
from lightning_plugins.callbacks.merged_evaluation import MergedEvaluation, copied_module
from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.strategies.topologies import Complete


class _LastValidation(PluginCallback):
    """Validates after the last step, unless the Trainer has just done it."""

    _validated_step = -1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the step."""
        if not trainer.sanity_checking:
            self._validated_step = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate; the final merge is done, where there is one."""
        if self._validated_step != trainer.global_step and trainer.enable_validation:
            run_validation(trainer)


class DecentralizedSummary(_LastValidation):
    """Prints a metric before and after the merge, optionally that of a server, and the bytes sent.

    Requires :class:`MergedEvaluation` and prints its ``metric``. A run that does not end with a
    validation is validated once more; put this callback after ``CommunicationSchedule``. With
    ``server``, the run is repeated after its end, from the same weights on the same data, with all
    agents averaging after each step as a parameter server or DDP does. This doubles the duration of
    the run.

    Args:
        server: Also train the server's model.

    Attributes:
        lines: The printed lines.

    Raises:
        MisconfigurationException: The Trainer has no ``MergedEvaluation``, or ``server`` is used
            with ``on_peer_failure="drop"``.
    """

    results = ("lines",)

    def __init__(self, server: bool = False) -> None:
        self.server = server
        self.lines: list[str] = []
        self._start: LightningModule | None = None

    def check(self, trainer: Trainer) -> None:
        """Refuse a Trainer without :class:`MergedEvaluation` before data is prepared."""
        self._metric(trainer)
        if self.server and getattr(trainer.strategy, "on_peer_failure", "raise") == "drop":
            raise MisconfigurationException(
                "DecentralizedSummary(server=True) does not support on_peer_failure='drop': "
                "the server's run fails if an agent is lost; set server=False"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the Trainer before training."""
        self.check(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep a copy of the initial module."""
        if self.server:
            self._start = copied_module(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the summary."""
        metric = self._metric(trainer)
        values = trainer.callback_metrics
        has_values = f"{metric}_merged" in values  # not if validation is disabled
        report = trainer.strategy.report  # type: ignore[attr-defined]
        agents, steps = report["agents"], report["optimizer_steps"]
        self.lines = [f"{agents} agents, {steps} steps each: {metric}"]
        if has_values:
            self.lines += [
                f"  local, mean over agents       {float(values[f'{metric}_local_mean']):.3f}",
                f"  merged                        {float(values[f'{metric}_merged']):.3f}",
            ]
        if self.server and has_values:
            value = self._value_of_server(trainer, metric)
            self.lines.append(f"  server, averaging each step   {value:.3f}")
        sent, ddp = (report[key] / agents / 1e6 for key in ("training_bytes", "ddp_bytes"))
        times = f": {ddp / sent:.0f} times less" if sent else ""
        self.lines.append(f"each agent sent {sent:.2f} MB; DDP would send {ddp:.2f} MB{times}")
        if trainer.is_global_zero:
            print("\n".join(self.lines), flush=True)

    def _value_of_server(self, trainer: Trainer, metric: str) -> float:
        module, self._start = self._start, None
        assert module is not None
        strategy = trainer.strategy.with_topology(Complete())  # type: ignore[attr-defined]
        server = type(trainer)(
            accelerator="cpu" if module.device.type == "cpu" else "auto",
            devices=trainer.num_devices,
            num_nodes=trainer.num_nodes,
            strategy=strategy,
            max_epochs=trainer.max_epochs,
            max_steps=trainer.max_steps,
            limit_train_batches=trainer.limit_train_batches,
            limit_val_batches=trainer.limit_val_batches,
            accumulate_grad_batches=trainer.accumulate_grad_batches,
            num_sanity_val_steps=0,
            check_val_every_n_epoch=trainer.check_val_every_n_epoch,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[_LastValidation()],
            default_root_dir=trainer.default_root_dir,
        )
        server.fit(module, datamodule=trainer.datamodule)  # type: ignore[attr-defined]
        return float(server.callback_metrics[metric])

    def _metric(self, trainer: Trainer) -> str:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, MergedEvaluation):
                return callback.metric
        raise MisconfigurationException(
            "DecentralizedSummary prints values of MergedEvaluation: add MergedEvaluation()"
        )
