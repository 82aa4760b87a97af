"""Run by test_interruption.py: installs an asset and kills its own process at the place named.

usage: program_killed.py PLACE ENTRY_AS_JSON CACHE INDEX
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_plugins.assets import Asset
from lightning_plugins.assets import install as installation


def die(*args: object, **kwargs: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_half_way(source: Any, file: Any) -> None:
    file.write(source.read(10))
    file.flush()
    die()


def die_after(function: Callable[..., Any], calls: int = 1) -> Callable[..., Any]:
    left = [calls]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        left[0] -= 1
        if left[0] == 0:
            die()
        return result

    return wrapped


def main(place: str, entry: str, cache: str, index: str) -> None:
    asset = Asset(**{**json.loads(entry), "files": tuple(json.loads(entry)["files"])})
    if place == "after the download":
        installation.download = die_after(installation.download)
    else:
        installation.download = lambda *args, **kwargs: Path(index) / asset.artefact
    if place == "in the middle of a file":
        shutil.copyfileobj = die_half_way
    elif place == "between two files":
        shutil.copyfileobj = die_after(shutil.copyfileobj)
    elif place == "before the manifest":
        installation.write_manifest = die
    elif place == "before the rename":
        installation._put_in_place = die
    elif place == "between the two renames":
        os.replace = die_after(os.replace)
    elif place == "after the rename":
        installation._put_in_place = die_after(installation._put_in_place)
    installation.install(
        asset, cache=Path(cache), pip_arguments=["--no-index", "--find-links", index]
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
