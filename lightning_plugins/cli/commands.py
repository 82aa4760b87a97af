"""What ``lightning-plugins fit|validate|test|predict``, ``export`` and ``check`` do."""

import logging
import os
import signal
import traceback
from argparse import ArgumentError
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI

from lightning_plugins._lightning_compat.loops import callbacks_of
from lightning_plugins.cli.explanation import located, merged_tree, refused_key
from lightning_plugins.cli.export import ExportCLI, export_arguments
from lightning_plugins.cli.plugin_cli import PluginCLI
from lightning_plugins.cli.run_folders import Run
from lightning_plugins.cli.schedule import schedule_arguments, show_schedule
from lightning_plugins.errors import (
    UserError,
    is_of_environment,
    is_user_error,
    one_line,
    user_errors_in_one_line,
)

_STRICT = {"exit_on_error": False, "allow_abbrev": False}


def run(arguments: list[str]) -> None:
    """Run ``fit``, ``validate``, ``test``, ``predict`` or ``export``.

    Raises:
        UserError: The command or its configuration is invalid; raised before the first batch.
    """
    # Lightning logs the seed before it builds the classes, that is above a one-line error.
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    _hide_tips()
    kind = ExportCLI if arguments[0] == "export" else PluginCLI
    cli = kind.__new__(kind)  # kept, to inspect the object after a failed construction
    try:
        with user_errors_in_one_line(lambda error: _explained(error, cli, arguments)):
            if isinstance(cli, ExportCLI):
                cli.output, arguments = export_arguments(arguments[1:])
            strict = {name: dict(_STRICT) for name in PluginCLI.subcommands()}
            cli.__init__(  # type: ignore[misc]
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                seed_everything_default=0,
                parser_kwargs={**_STRICT, **strict},
                args=arguments,
            )
    except UserError:
        _end_other_processes(cli)
        raise


def instantiate(options: list[str]) -> PluginCLI:
    """Build the trainer, model and data of ``options`` on the meta device, without running them.

    Raises:
        UserError: The options are invalid; the message is one line.
    """
    cli = PluginCLI.__new__(PluginCLI)
    explained = lambda error: _explained(error, cli, ["fit", *options])  # noqa: E731
    with user_errors_in_one_line(explained), torch.device("meta"):
        cli.__init__(  # type: ignore[misc]
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            run=False,
            parser_kwargs=_STRICT,
            args=options,
        )
        cli.check_plugins()
    return cli


def check(arguments: list[str]) -> None:
    """Build a configuration on the meta device, call every plugin's ``check``, and print a summary.

    Args:
        arguments: A recipe or file, and options.

    Raises:
        UserError: The configuration is invalid.
    """
    first = ["--config"] if arguments and not arguments[0].startswith("-") else []
    cli = instantiate([*first, *arguments])
    weights = sum(parameter.numel() for parameter in cli.model.parameters())
    data = type(cli.datamodule).__name__ if cli.datamodule is not None else "no data"
    names = ", ".join(type(callback).__name__ for callback in callbacks_of(cli.trainer))
    print(
        f"valid: {type(cli.model).__name__} with {weights:,} parameters so far, {data}, "
        f"{type(cli.trainer.strategy).__name__}; callbacks {names}"
    )


def schedule(arguments: list[str]) -> None:
    """Print and draw the learning rates and phases of a configuration, without training.

    Args:
        arguments: A recipe or file, options, and ``--output FILE.png``.

    Raises:
        UserError: The configuration is invalid, or the length of its run is unknown.
    """
    for name in ("fabric.utilities.seed", "pytorch.utilities.rank_zero"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    with user_errors_in_one_line():
        output, options = schedule_arguments(arguments)
    first = ["--config"] if options and not options[0].startswith("-") else []
    show_schedule(instantiate([*first, *options]), output)


def _end_other_processes(cli: LightningCLI) -> None:
    """End the processes that the Trainer started, which would wait for this one."""
    strategy = getattr(getattr(cli, "trainer", None), "strategy", None)
    launcher: Any = getattr(strategy, "launcher", None)
    if getattr(launcher, "procs", None):
        launcher.kill(signal.SIGTERM)


def _hide_tips() -> None:
    """Leave out Lightning's advice on other products, which it logs between our own lines."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    if _is_no_tip not in logger.filters:
        logger.addFilter(_is_no_tip)


def _is_no_tip(record: logging.LogRecord) -> bool:
    return "Tip:" not in str(record.msg)


def _explained(error: Exception, cli: LightningCLI, arguments: list[str]) -> str | None:
    """Return the message of a user error with its key and place, or None for other errors."""
    trainer = getattr(cli, "trainer", None)
    if trainer is not None and trainer.fit_loop.epoch_loop.batch_progress.total.ready > 0:
        return _stopped_by_environment(error, cli)
    is_built = trainer is not None
    if not is_user_error(error) and (is_built or _is_in_users_code(error)):
        return None
    command = getattr(cli, "command", None)
    options = command.arguments[1:] if command is not None else arguments[1:]
    message = one_line(error)
    parser = getattr(cli, "parser", None)
    if parser is None:  # the error was found before the parser exists
        return message
    parser = getattr(cli, "_subcommand_parsers", {}).get(arguments[0], parser)
    try:
        tree = merged_tree(options, command.run if command is not None else None)
        if isinstance(error, ArgumentError):
            return refused_key(parser, options, tree) or located(message, parser, tree)
        return located(message, parser, tree)
    except ValueError:  # the files cannot be read, which the message is about
        return message


def _stopped_by_environment(error: Exception, cli: Any) -> str | None:
    """Return how to continue after a full disk and the like, or None for errors of the program."""
    if not is_of_environment(error):
        return None
    step = cli.trainer.global_step
    stopped = f"{one_line(error)}: training stopped after step {step}"
    folder = cli.interruption.folder if cli.interruption is not None else None
    if folder is None or not Run(folder).checkpoints():
        return f"{stopped} without a checkpoint"
    return f"{stopped}; continue with: lightning-plugins fit --resume {folder}"


def _is_in_users_code(error: Exception) -> bool:
    """Whether the error was raised in a file of the current folder, where a traceback helps."""
    frames = traceback.extract_tb(error.__traceback__)
    folder = os.path.join(os.getcwd(), "")
    last = frames[-1].filename if frames else ""
    return last.startswith(folder) and "site-packages" not in last
