"""Reads a file of users and targets to plan paths for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from lightning_plugins.datamodules.file_error_context import file_error_context
from lightning_plugins.datamodules.interactions.columns import PAIR_ROLES, without_types
from lightning_plugins.datamodules.interactions.interaction_table import identifier
from lightning_plugins.datamodules.interactions.splits import Question
from lightning_plugins.datamodules.tables import find_columns, read_table
from lightning_plugins.nn.recommendation import Catalogue
from lightning_plugins.nn.recommendation.catalogue import ItemId


def questions_of_pairs(
    path: str,
    user_ids: Sequence[ItemId],
    catalogue: Catalogue,
    sequences: Sequence[np.ndarray],
) -> tuple[list[Question], list[ItemId]]:
    """Return a question for each row with a known target, and the users that are not in the data.

    Such users have an empty history and the numbers after those of the data. Rows with an unknown
    target are left out with a warning.

    Args:
        path: A table with the columns ``user`` and ``target``.
        user_ids: Identifiers of the data's users by number.
        catalogue: The items.
        sequences: Item numbers per user.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: A column is missing, or no target is in the catalogue.
    """
    table = without_types(read_table(path))
    with file_error_context(Path(path)):
        found = find_columns(table, PAIR_ROLES, source=path)
    numbers = {name: number for number, name in enumerate(user_ids)}
    by_text = {str(name): number for name, number in numbers.items()}
    questions: list[Question] = []
    unknown_targets: list[ItemId] = []
    new_users: list[ItemId] = []
    for row in table[[found["user"], found["target"]]].itertuples(index=False):
        user, target = map(identifier, row)
        item = catalogue.number_of(target)
        if item is None:
            unknown_targets.append(target)
            continue
        number = numbers.get(user, by_text.get(str(user)))
        if number is None:
            number = numbers[user] = len(user_ids) + len(new_users)
            new_users.append(user)
        is_known = number < len(sequences)
        history = sequences[number] if is_known else np.empty(0, dtype=np.int64)
        questions.append(Question(number, history, item))
    if not questions:
        raise ValueError(
            f"pairs={path!r}: no target of its {len(table)} rows is in the catalogue of "
            f"{catalogue.num_items} items"
        )
    if unknown_targets:
        rank_zero_warn(
            f"pairs={path!r}: {len(unknown_targets)} of {len(table)} rows are left out, because "
            f"their target is not in the catalogue, for example {unknown_targets[0]!r}"
        )
    if new_users:
        rank_zero_warn(
            f"pairs={path!r}: {len(new_users)} users are not in the data and have an empty "
            f"history, for example {new_users[0]!r}"
        )
    return questions, new_users
