"""The mixin for LightningCLI, and the command line of this package."""

import argparse
import functools
import importlib
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from types import MethodType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from torch.optim import Optimizer

from lightning_plugins._lazy import load_exports
from lightning_plugins._lightning_compat.loops import callbacks_of
from lightning_plugins.callbacks.replica_check import add_replica_check
from lightning_plugins.checkpoints import (
    checked_hyperparameters,
    is_sharded_checkpoint,
    is_url,
    joined,
    keep_local_copy,
)
from lightning_plugins.cli.configuration import bounded_yaml, config_tree, with_recipes
from lightning_plugins.cli.continuation import HELP, Command, checkpoint_step, read_command
from lightning_plugins.cli.interruption import Interruption, report_interruption
from lightning_plugins.cli.run_record import RunRecord, continue_metrics
from lightning_plugins.cli.run_summary import RunSummary
from lightning_plugins.current_folder import typed_modules
from lightning_plugins.optimizers.configuration import configure_optimizers, scheduler_config
from lightning_plugins.recipes.sources import plain

# jsonargparse finds a class by its bare name (`--model ImageClassifier`) once it is imported.
load_exports(
    *(
        f"lightning_plugins.{folder}"
        for folder in ("callbacks", "datamodules", "litmodels", "optimizers", "strategies")
    )
)


class PluginCLIMixin:
    """Mixin that adds support for the plugins; put it before ``LightningCLI`` in the bases.

    - ``--config`` accepts a packaged recipe such as ``image/digits+late_sam`` or a file.
    - ``--optimizer`` receives named parameters. It is built when Lightning calls
      ``configure_optimizers``, so it includes the parameters created by ``configure_model``.
    - An ``--lr_scheduler`` that counts optimizer steps advances every step, and one with an
      argument ``total_steps`` receives the length of the run.
    - Before ``fit``, ``check(trainer)`` of every callback and of the strategy is called, so that an
      invalid configuration raises an error before data is prepared.
    - The configuration is saved next to the checkpoints; a second run in the same folder
      overwrites it.
    - Classes in the current directory are found if they are named in the configuration or on the
      command line: ``--model my_package.MyModel``. Nothing else is imported from it.
    - A checkpoint, also from a URL, is read as tensors and plain data. It cannot name files,
      classes, servers or variables.
    - ``fit --resume last|FOLDER|CHECKPOINT`` continues a run in its folder, and ``validate``,
      ``test`` and ``predict`` evaluate one with ``--run last|FOLDER``; its configuration is reused.
    - ``fit`` ends with a summary, to which plugins add a line by a method ``run_summary(trainer)``.
    - A run that receives Ctrl-C or SIGTERM saves a checkpoint that resumes exactly.
    - ``validate``, ``test`` and ``predict`` refuse a model without a checkpoint, unless
      ``--untrained`` is given or the model's class has ``requires_training = False``.
    """

    trainer: Trainer
    model: LightningModule
    config: Any
    subclass_mode_model: bool
    _model_class: Any
    command: Command | None = None
    interruption: Interruption | None = None
    summary: RunSummary | None = None
    verb: str | None = None  # of the note about a run, if not the subcommand

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("save_config_callback", RunRecord)
        kwargs["save_config_kwargs"] = {
            "overwrite": True,
            **(kwargs.get("save_config_kwargs") or {}),
        }
        super().__init__(*args, **kwargs)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse ``args``, or the command line, after replacing recipe names by their contents."""
        if args is None:
            args = sys.argv[1:]
        with bounded_yaml():
            if isinstance(args, list):
                args = self._of_run(args)
                typed_modules().add(part for arg in args for part in (arg, arg.partition("=")[2]))
                self.config = parser.parse_args(with_recipes(args))
            else:
                self.config = parser.parse_object(args)
        self._check_checkpoint(parser)

    def _of_run(self, args: list[str]) -> list[str]:
        """Return the arguments with those of the run that they continue or evaluate."""
        if not args or args[0] not in self.subcommands():  # type: ignore[attr-defined]
            return args
        self.command = read_command(args, lambda config: plain(config_tree(config)), self.verb)
        for note in self.command.notes:
            rank_zero_only(print)(note, flush=True)
        return self.command.arguments

    def _check_checkpoint(self, parser: LightningArgumentParser) -> None:
        """Check the checkpoint and copy its hyperparameters into the configuration."""
        subcommand = self.config.get("subcommand") or ""
        options = self.config.get(subcommand, {})
        if options.get("weights_only") is False:
            raise ValueError("weights_only=False: checkpoints are read as plain data only")
        if not (source := options.get("ckpt_path")):
            return
        self._checkpoint = source
        if is_url(source):
            self._checkpoint = str(keep_local_copy(source, self._temporary_folder()))
        model = options.get("model")
        stored = checked_hyperparameters(self._checkpoint, model, self._model_class, source)
        if stored and not (self.command and self.command.run):  # whose configuration is saved
            if self.subclass_mode_model:
                stored = {"class_path": model["class_path"], "dict_kwargs": stored}
            self.config = parser.parse_object({subcommand: {"model": stored}}, self.config)

    def _temporary_folder(self) -> str:
        """A folder that is removed with this object."""
        self._temporary = tempfile.TemporaryDirectory(prefix="lightning-plugins-")
        return self._temporary.name

    def _parse_ckpt_path(self) -> None:
        """Replace Lightning's method, which imports what the checkpoint names."""

    def after_instantiate_classes(self) -> None:
        """Load the checked file, as tensors and plain data.

        The parts of a sharded checkpoint are joined for a strategy that reads a single file.
        """
        options = self.config_init.get(self.subcommand or "", {})  # type: ignore[attr-defined]
        if options.get("ckpt_path"):
            reads_parts = type(self.trainer.strategy).__name__.startswith(("ModelParallel", "FSDP"))
            if is_sharded_checkpoint(self._checkpoint) and not reads_parts:
                file = Path(self._temporary_folder()) / "joined.ckpt"
                self._checkpoint = str(joined(Path(self._checkpoint), file))
            options["ckpt_path"] = self._checkpoint
            options["weights_only"] = True

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Instantiate the Trainer, after checking that ``trainer`` is a mapping."""
        options = self._get(self.config_init, "trainer", default={})  # type: ignore[attr-defined]
        if not hasattr(options, "keys"):
            raise ValueError(f"trainer={options!r}: expected a mapping of Trainer options")
        trainer: Trainer = super().instantiate_trainer(**kwargs)  # type: ignore[misc]
        for callback in callbacks_of(trainer):
            if isinstance(callback, RunRecord) and self.command is not None:
                callback.recipe = self.command.recipe
        return trainer

    def before_fit(self) -> None:
        """Call every plugin's ``check(trainer)``, and prepare for an interruption.

        Raises:
            ValueError: A plugin does not support this Trainer.
        """
        self.check_plugins()
        add_replica_check(self.trainer)
        if self.trainer.checkpoint_callbacks:
            self.interruption = Interruption()
            callbacks_of(self.trainer).append(self.interruption)
        self.summary = RunSummary()
        callbacks_of(self.trainer).append(self.summary)
        if self.command is not None and self.command.run is not None:
            path = self.config_init.fit.ckpt_path  # type: ignore[attr-defined]
            warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
            continue_metrics(self.trainer, checkpoint_step(path) if path else 0)

    def check_plugins(self) -> None:
        """Call ``check(trainer)`` of each callback and of the strategy, if they have it.

        A module of the user's may have a method ``check`` of its own, so that of the model is
        called ``check_trainer``.
        """
        plugins = [(one, "check") for one in (*callbacks_of(self.trainer), self.trainer.strategy)]
        for plugin, name in (*plugins, (self.model, "check_trainer")):
            check = getattr(plugin, name, None)
            if callable(check):
                check(self.trainer)

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Train; after an interruption, print the command that continues and exit."""
        try:
            self.trainer.fit(model, **kwargs)
        except (SystemExit, KeyboardInterrupt):
            interruption = self.interruption
            if interruption is None or not (interruption.signal or interruption.saved):
                raise
            report_interruption(interruption)
            # Only the first rank's code counts, and Lightning kills it if another process fails.
            code = 0 if self.trainer.global_rank else 128 + (interruption.signal or signal.SIGTERM)
            raise SystemExit(code) from None

    def after_fit(self) -> None:
        """Print what the run did."""
        if self.summary is not None and self.trainer.is_global_zero:
            print("\n".join(self.summary.lines(self.trainer)), flush=True)

    def before_validate(self) -> None:
        """Refuse to evaluate untrained weights."""
        self._refuse_untrained_weights("validate")

    def before_test(self) -> None:
        """Refuse to evaluate untrained weights."""
        self._refuse_untrained_weights("test")

    def before_predict(self) -> None:
        """Refuse to predict with untrained weights."""
        self._refuse_untrained_weights("predict")

    def _refuse_untrained_weights(self, subcommand: str) -> None:
        warnings.filterwarnings("ignore", "The dirpath has changed")  # to the part for evaluation
        allowed = self.command is not None and self.command.untrained
        has_checkpoint = self.config_init[subcommand].get("ckpt_path")  # type: ignore[attr-defined]
        if has_checkpoint or allowed or not getattr(self.model, "requires_training", True):
            return
        raise ValueError(
            f"{subcommand} without a checkpoint would use untrained weights: add --run last|FOLDER "
            "or --ckpt_path FILE, or --untrained to use the initial weights"
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> Any:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)  # type: ignore[misc]
        # Shown by --help; `read_command` replaces them before the parser runs.
        for name, text in HELP[subcommand].items():
            parser.add_argument(name, default=argparse.SUPPRESS, help=text)
        return parser

    @staticmethod
    def configure_optimizers(
        lightning_module: LightningModule, optimizer: Optimizer, lr_scheduler: Any = None
    ) -> Any:
        """Return optimizer and schedule, with the interval (step or epoch) of the schedule."""
        if lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": scheduler_config(lr_scheduler)}

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        config = self.config_init[subcommand] if subcommand else self.config_init  # type: ignore[attr-defined]
        optimizer, lr_scheduler = config.get("optimizer"), config.get("lr_scheduler")
        if not optimizer or "class_path" not in optimizer:
            # No optimizer is given, or a subclass of this CLI fixed its class.
            super()._add_configure_optimizers_method_to_model(subcommand)  # type: ignore[misc]
            return
        configure = functools.partial(
            configure_optimizers,
            optimizer=_factory(optimizer),
            lr_scheduler=_factory(lr_scheduler) if lr_scheduler else None,
        )
        functools.update_wrapper(configure, configure_optimizers)
        self.model.configure_optimizers = MethodType(configure, self.model)  # type: ignore[method-assign]


class PluginCLI(PluginCLIMixin, LightningCLI):
    """The command line of this package; it is independent of the tasks."""


def _factory(init: Any) -> functools.partial:
    module, _, name = init["class_path"].rpartition(".")
    init_args = init.get("init_args") or {}
    arguments = init_args.as_dict() if hasattr(init_args, "as_dict") else dict(init_args)
    given = {key: value for key, value in arguments.items() if key != "total_steps" or value}
    return functools.partial(getattr(importlib.import_module(module), name), **given)
