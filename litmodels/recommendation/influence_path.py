"""A planned path with the identifiers of the user's data, and the requests of paths."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_warn

from lightning_plugins.litmodels.recommendation.language.chat_model import Usage
from lightning_plugins.nn.recommendation import Catalogue
from lightning_plugins.nn.recommendation.catalogue import ItemId


class InfluencePath(NamedTuple):  # Lightning refuses frozen dataclasses as predictions
    """A path of recommendations for one user towards a target, with the identifiers of the data.

    Args:
        planner: Label of the planner.
        user: Identifier of the user.
        target: Identifier of the target.
        items: Identifiers of the items in the order of recommendation, without the target.
        is_accepted: Whether the user took each item.
        titles: Titles of the items; an item without a title has its identifier.
        target_title: Title of the target.
        problem: Why the planner's own plan could not be used, or why the path is shorter; ``""``
            if there was no problem.
        usage: Requests, tokens and cost of a language model; zeros for other planners.
    """

    planner: str
    user: ItemId
    target: ItemId
    items: tuple[ItemId, ...]
    is_accepted: tuple[bool, ...]
    titles: tuple[str, ...] = ()
    target_title: str = ""
    problem: str = ""
    usage: Usage = Usage()


class PlanningRequests(NamedTuple):
    """Histories, targets and candidates as item numbers, one entry per user."""

    users: list[ItemId]
    histories: list[list[int]]
    targets: list[int]
    candidates: list[list[int]] | None


def planning_requests(
    catalogue: Catalogue,
    history: Sequence[Any],
    target: Any,
    candidates: Sequence[Any] | None = None,
    users: Sequence[ItemId] | None = None,
) -> PlanningRequests:
    """Look up the items of :meth:`InfluencePathPlanner.plan` in the catalogue.

    Raises:
        ValueError: The arguments have different lengths, a target is not in the catalogue, or a
            user has no candidate of the catalogue.
    """
    is_batch = isinstance(target, list | tuple)
    targets = list(target) if is_batch else [target]
    histories = list(history) if is_batch else [list(history)]
    if is_batch and any(map(_is_one, histories)):
        raise ValueError(
            f"history: expected one list of items per user, because target has {len(targets)} items"
        )
    names: list[ItemId] = list(range(len(targets))) if users is None else list(users)
    for name, count in {"history": len(histories), "users": len(names)}.items():
        if count != len(targets):
            raise ValueError(f"{name} has {count} users, but target has {len(targets)}")
    numbers = []
    for one in targets:
        number = catalogue.number_of(one)
        if number is None:
            raise ValueError(
                f"target={one!r} is not in the catalogue of {catalogue.num_items} items: use an "
                "item that the filters of the data keep"
            )
        numbers.append(number)
    return PlanningRequests(
        names,
        _known(catalogue, histories, "history"),
        numbers,
        None if candidates is None else _allowed(catalogue, candidates, len(targets)),
    )


def _is_one(value: object) -> bool:
    """Whether a value is an identifier, not a sequence of identifiers."""
    return isinstance(value, str) or not hasattr(value, "__iter__")


def _allowed(catalogue: Catalogue, candidates: Sequence[Any], count: int) -> list[list[int]]:
    candidates = list(candidates)
    is_per_user = bool(candidates) and not any(map(_is_one, candidates))
    of_users = candidates if is_per_user else [candidates] * count
    if len(of_users) != count:
        raise ValueError(f"candidates has {len(of_users)} users, but target has {count}")
    known = _known(catalogue, of_users if is_per_user else [candidates], "candidates")
    if not all(known):
        raise ValueError("candidates: none of a user's candidates is in the catalogue")
    return known if is_per_user else known * count


def _known(catalogue: Catalogue, lists: Sequence[Sequence[ItemId]], name: str) -> list[list[int]]:
    """Return the numbers of the items of the catalogue, and warn about the others."""
    found = [[(item, catalogue.number_of(item)) for item in items] for items in lists]
    missing = [item for pairs in found for item, number in pairs if number is None]
    if missing:
        rank_zero_warn(
            f"{name}: {len(missing)} items are not in the catalogue and are ignored, for example "
            f"{missing[0]!r}"
        )
    return [[number for _, number in pairs if number is not None] for pairs in found]
