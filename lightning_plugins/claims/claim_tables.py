"""Reads a paper's claims from the YAML file beside the module with its experiments."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lightning_plugins.claims.claim import Claim, Column, Experiment, Overview, Paper
from lightning_plugins.claims.rules import (
    Equivalence,
    PooledSuperiority,
    Recovers,
    Rule,
    Superiority,
)

_RULES: dict[str, type[Rule]] = {
    "superiority": Superiority,
    "pooled_superiority": PooledSuperiority,
    "recovers": Recovers,
    "equivalence": Equivalence,
}


def read_paper(module: str, *experiments: Experiment) -> Paper:
    """Return the paper whose texts and claims are in the YAML file of a module.

    The file holds the arguments of :class:`~lightning_plugins.claims.claim.Paper`. ``columns`` maps
    a metric to its label and format. ``claims`` is a list of groups; a group has an ``experiment``,
    values that its claims share, and ``claims`` by name. A claim has the fields of
    :class:`~lightning_plugins.claims.claim.Claim`, and one of ``superiority``,
    ``pooled_superiority``, ``recovers`` and ``equivalence`` with the arguments of its rule, which
    take precedence over those of the group.

    Args:
        module: ``__file__`` of the module.
        experiments: The paper's experiments.

    Raises:
        ValueError: If a claim or a rule has an unknown, missing or wrong value.
    """
    path = Path(module).with_suffix(".yaml")
    table: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    overview = table.pop("overview", None)
    columns = table.pop("columns").items()
    return Paper(
        experiments=experiments,
        claims=tuple(_claims(path, table.pop("claims"))),
        columns=tuple(Column(metric, *shown) for metric, shown in columns),
        next_steps=tuple(table.pop("next_steps", ())),
        overview=overview and Overview(**_with_tuples(overview)),
        **table,
    )


def _claims(path: Path, groups: list[dict[str, Any]]) -> Iterator[Claim]:
    for group in groups:
        shared = {key: value for key, value in group.items() if key not in ("claims", *_RULES)}
        for name, own in group["claims"].items():
            kinds = [kind for kind in _RULES if kind in own]
            try:
                (kind,) = kinds
                fields = {**group.get(kind, {}), **own.pop(kind)}
                yield Claim(name, rule=_RULES[kind](**_with_tuples(fields)), **{**shared, **own})
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path.name}, claim {name!r}: {error}") from error


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _as_tuple(value) for key, value in values.items()}


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
