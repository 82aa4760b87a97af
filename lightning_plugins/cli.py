"""``lightning-plugins fit|validate|test|predict``: LightningCLI with what the plugins need.

To add the same to a command line of your own::

    class MyCLI(PluginCLIMixin, LightningCLI): ...
"""

import functools
import importlib
import logging
import os
import sys
from types import MethodType
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_plugins._lazy import load_exports
from lightning_plugins.errors import user_errors_in_one_line
from lightning_plugins.optimizers.configuration import configure_optimizers, scheduler_config
from lightning_plugins.recipes import load_recipe

# jsonargparse finds a class by its bare name (`--model ImageClassifier`) once it is imported.
load_exports(
    *(
        f"lightning_plugins.{folder}"
        for folder in ("callbacks", "datamodules", "litmodels", "optimizers", "strategies")
    )
)


class PluginCLIMixin:
    """What a LightningCLI needs for the plugins; put it before ``LightningCLI`` in the bases.

    - ``--config`` takes a packaged recipe, ``image/digits+late_sam``, as well as a file.
    - ``--optimizer`` gets named parameters and is built when Lightning asks for it, so that it
      sees the parameters that ``configure_model`` made.
    - ``--lr_scheduler`` that counts optimizer steps advances every step, and one that takes
      ``total_steps`` is told the length of the run.
    - Before ``fit``, every callback's and the strategy's ``check(trainer)`` is called, so that a
      run that cannot be is refused before data is prepared.
    - The configuration is saved beside the checkpoints, and a second run in a folder overwrites it.
    - Classes of the folder you stand in are found: ``--model my_package.MyModel``.
    """

    trainer: Trainer
    model: LightningModule

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["save_config_kwargs"] = {
            "overwrite": True,
            **(kwargs.get("save_config_kwargs") or {}),
        }
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        super().__init__(*args, **kwargs)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse ``args``, or the command line, with recipe names replaced by their contents."""
        if args is None:
            args = sys.argv[1:]
        if isinstance(args, list):
            self.config = parser.parse_args(with_recipes(args))
        else:
            self.config = parser.parse_object(args)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Lightning's own, which a ``trainer`` that is no mapping would break."""
        options = self._get(self.config_init, "trainer", default={})  # type: ignore[attr-defined]
        if not hasattr(options, "keys"):
            raise ValueError(f"trainer={options!r}: expected the Trainer's options by name")
        trainer: Trainer = super().instantiate_trainer(**kwargs)  # type: ignore[misc]
        return trainer

    def before_fit(self) -> None:
        """Let every plugin refuse a Trainer that it cannot work in."""
        for plugin in (*self.trainer.callbacks, self.trainer.strategy):  # type: ignore[attr-defined]
            check = getattr(plugin, "check", None)
            if callable(check):
                check(self.trainer)

    @staticmethod
    def configure_optimizers(
        lightning_module: LightningModule, optimizer: Optimizer, lr_scheduler: Any = None
    ) -> Any:
        """LightningCLI's hook, with the interval that the schedule counts in."""
        if lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": scheduler_config(lr_scheduler)}

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        config = self.config_init[subcommand] if subcommand else self.config_init  # type: ignore[attr-defined]
        optimizer, lr_scheduler = config.get("optimizer"), config.get("lr_scheduler")
        if not optimizer or "class_path" not in optimizer:
            # Nothing was given, or a subclass of this CLI fixed the class: Lightning's own way.
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
    """The command line of this package; it knows no task."""


def run(arguments: list[str]) -> None:
    """Run ``fit``, ``validate``, ``test`` or ``predict``.

    Raises:
        UserError: what can be mended in the command or its configuration, before the first batch.
    """
    # Said before the classes are built, so it would stand above a one-line error.
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    strict = {"exit_on_error": False, "allow_abbrev": False}
    cli = PluginCLI.__new__(PluginCLI)  # held here, so that a failed construction can be asked
    with user_errors_in_one_line(lambda: _has_begun(cli), lambda: _known_names(cli, arguments[0])):
        cli.__init__(  # type: ignore[misc]
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            parser_kwargs={**strict, **{name: dict(strict) for name in PluginCLI.subcommands()}},
            args=arguments,
        )


def instantiate(options: list[str]) -> None:
    """Build the trainer, model and data that ``options`` describe, without memory or a run.

    Raises:
        UserError: what is wrong with the options, in one line.
    """
    with user_errors_in_one_line(), torch.device("meta"):
        PluginCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            run=False,
            parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
            args=options,
        )


def _has_begun(cli: LightningCLI) -> bool:
    trainer = getattr(cli, "trainer", None)
    return trainer is not None and trainer.fit_loop.epoch_loop.batch_progress.total.ready > 0


def _known_names(cli: LightningCLI, subcommand: str) -> list[str]:
    options = [action.dest for action in cli._subcommand_parsers[subcommand]._actions]
    bases = (Optimizer, LRScheduler, Callback, LightningModule, LightningDataModule, Logger)
    return options + sorted({cls.__name__ for base in bases for cls in _subclasses(base)})


def _subclasses(base: type) -> set[type]:
    direct: set[type] = set(base.__subclasses__())
    return direct.union(*(_subclasses(cls) for cls in direct))


def with_recipes(arguments: list[str]) -> list[str]:
    """``arguments`` with each ``--config RECIPE`` replaced by the recipe's merged YAML.

    A value that is a file, or that holds YAML itself, stays.
    """
    replaced = []
    is_config = False
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if is_config:
            argument = _contents(argument)
        elif equals and flag in ("--config", "-c"):
            argument = f"{flag}={_contents(value)}"
        is_config = not is_config and argument in ("--config", "-c")
        replaced.append(argument)
    return replaced


def _contents(config: str) -> str:
    if os.path.isfile(config) or "\n" in config or ":" in config:
        return config
    return yaml.safe_dump(load_recipe(config), sort_keys=False)


def _factory(init: Any) -> functools.partial:
    module, _, name = init["class_path"].rpartition(".")
    init_args = init.get("init_args") or {}
    arguments = init_args.as_dict() if hasattr(init_args, "as_dict") else dict(init_args)
    given = {key: value for key, value in arguments.items() if key != "total_steps" or value}
    return functools.partial(getattr(importlib.import_module(module), name), **given)
