"""Finds out what kind of data a path holds, and reads it."""

from collections.abc import Mapping
from pathlib import Path

from lightning_plugins.assets import asset_path
from lightning_plugins.datamodules.interactions.atomic import read_atomic
from lightning_plugins.datamodules.interactions.column_file import read_column_file
from lightning_plugins.datamodules.interactions.movielens import read_movielens
from lightning_plugins.datamodules.interactions.table import InteractionTable


def read_interactions(source: str, columns: Mapping[str, str]) -> InteractionTable:
    """The interactions of a folder, a file, or ``movielens-100k``, which is an asset.

    Raises:
        FileNotFoundError: no such path, or the asset is not installed.
        ValueError: nothing that is known, a row or column that is missing.
    """
    if source == "movielens-100k":
        path = asset_path("recbole") / "recbole" / "dataset_example" / "ml-100k"
    else:
        path = Path(source).expanduser()
    if path.suffix in (".csv", ".parquet") and path.is_file():
        return read_column_file(path, columns)
    if path.is_dir():
        for read in (read_movielens, read_atomic):
            table = read(path)
            if table is not None:
                return table
        raise ValueError(
            f"source={source!r}: expected ratings.dat, ratings.csv or u.data of MovieLens, or a "
            ".inter file of RecBole, in this folder"
        )
    raise FileNotFoundError(
        f"source={source!r}: no such folder, .csv or .parquet file; the embedded default is "
        "'movielens-100k'"
    )
