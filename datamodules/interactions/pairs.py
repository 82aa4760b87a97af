"""Reads a file of users and targets to plan paths for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from lightning_plugins.datamodules.file_error_context import file_error_context
from lightning_plugins.datamodules.interactions.columns import PAIR_ROLES, without_types
from lightning_plugins.datamodules.interactions.interaction_table import identifier, of_same_ids
from lightning_plugins.datamodules.interactions.splits import Question
from lightning_plugins.datamodules.tables import find_columns, is_missing, read_table
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
    rows = table[[found["user"], found["target"]]]
    is_empty = is_missing(rows[found["user"]]) | is_missing(rows[found["target"]])
    rows = rows[~is_empty]
    ids = [[identifier(value) for value in rows[found[role]]] for role in ("user", "target")]
    known_users = of_same_ids(numbers, ids[0])
    targets = of_same_ids({name: n for n, name in enumerate(catalogue.ids, 1)}, ids[1])
    questions: list[Question] = []
    unknown_targets: list[ItemId] = []
    new_users: list[ItemId] = []
    seen_targets = 0
    for user, target in zip(*ids, strict=True):
        item = targets.get(target)
        if item is None:
            unknown_targets.append(target)
            continue
        number = known_users.get(user)
        if number is None:
            number = known_users[user] = len(user_ids) + len(new_users)
            new_users.append(user)
        is_known = number < len(sequences)
        history = sequences[number] if is_known else np.empty(0, dtype=np.int64)
        seen_targets += bool((history == item).any())
        questions.append(Question(number, history, item))
    if not questions:
        raise ValueError(
            f"pairs={path!r}: no target of its {len(table)} rows is in the catalogue of "
            f"{catalogue.num_items} items, which have identifiers such as {catalogue.ids[0]!r}"
        )
    if is_empty.any():
        rank_zero_warn(f"pairs={path!r}: {is_empty.sum()} rows without user or target are left out")
    if seen_targets:
        rank_zero_warn(
            f"pairs={path!r}: {seen_targets} targets are already in the history of their user"
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
