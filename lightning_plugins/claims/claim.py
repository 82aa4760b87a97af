"""What a paper claims, and the experiment that re-measures it, as plain data."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NotRequired, TypedDict

from lightning_plugins.claims.canonical import canonical_json
from lightning_plugins.claims.near_names import suggestion
from lightning_plugins.claims.rules import Rule


class Cell(TypedDict):
    """Result of one (arm, seed).

    ``metrics`` holds one number a name (NaN where a run diverged), ``series`` a list of numbers
    a name (a curve over steps or epochs). The metric ``on_grid_edge`` is reserved: 1.0 says that
    the arm's tuned value was the best at the edge of its grid, and makes every claim about that
    arm inconclusive.
    """

    metrics: dict[str, float]
    series: NotRequired[dict[str, list[float]]]


@dataclass(frozen=True)
class Scale:
    """How much of an experiment is run.

    Args:
        seeds: the seeds; arms are compared seed by seed.
        overrides: merged into the ``overrides`` of every arm.
        arms: per arm, changes of its whole configuration at this scale (a different ``recipe``,
            or ``overrides`` that win over the two others).
        only: the arms that this scale runs; empty means all of them.
    """

    seeds: tuple[int, ...]
    overrides: dict[str, Any] = field(default_factory=dict)
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must be distinct and at least one, got {self.seeds!r}")


@dataclass(frozen=True)
class Experiment:
    """Arms that differ in one thing, run over the same seeds.

    Args:
        name: name within the paper.
        arms: name -> plain-data configuration; ``recipe`` and ``overrides`` for a Lightning run.
        scales: name (``smoke``, ``cpu``, ``paper``) -> :class:`Scale`.
        run: ``run(config, seed) -> Cell``; must import torch inside, and be a module-level
            function so that worker processes can import it.
    """

    name: str
    arms: dict[str, dict[str, Any]]
    scales: dict[str, Scale]
    run: Callable[[dict[str, Any], int], Cell]

    def __post_init__(self) -> None:
        if not self.arms:
            raise ValueError(f"arms of experiment {self.name!r} must name at least one arm")
        for scale_name, scale in self.scales.items():
            for arm in (*scale.arms, *scale.only):
                if arm not in self.arms:
                    raise ValueError(
                        f"scale {scale_name!r} of experiment {self.name!r} names arm {arm!r}, "
                        f"which does not exist{suggestion(arm, self.arms)}"
                    )
            for arm in self.arms:
                canonical_json(self.config(arm, scale_name))

    def scale(self, name: str) -> Scale:
        """The scale of that name.

        Raises:
            ValueError: naming the scales that exist.
        """
        if name not in self.scales:
            raise ValueError(
                f"experiment {self.name!r} has no scale {name!r}; it has "
                f"{', '.join(self.scales) or 'none'}{suggestion(name, self.scales)}"
            )
        return self.scales[name]

    def at(self, scale: str) -> "Experiment":
        """This experiment with only the arms that a scale of its own runs."""
        chosen = self.scale(scale)
        arms = {
            arm: config for arm, config in self.arms.items() if arm in (chosen.only or self.arms)
        }
        return replace(
            self,
            arms=arms,
            scales={
                scale: replace(
                    chosen, arms={arm: change for arm, change in chosen.arms.items() if arm in arms}
                )
            },
        )

    def config(self, arm: str, scale: str) -> dict[str, Any]:
        """The resolved configuration of an arm at a scale.

        Raises:
            ValueError: if arm and scale set the same override to different values and
                ``Scale.arms`` does not say which holds: neither order would be obvious, and a
                rival that is quietly shortened is worse than an error.
        """
        chosen = self.scale(scale)
        config = dict(self.arms[arm])
        special = dict(chosen.arms.get(arm, {}))
        own: dict[str, Any] = config.get("overrides", {})
        final: dict[str, Any] = special.pop("overrides", {})
        for key in own.keys() & chosen.overrides.keys() - final.keys():
            if own[key] != chosen.overrides[key]:
                raise ValueError(
                    f"arm {arm!r} sets {key!r} to {own[key]!r} and scale {scale!r} to "
                    f"{chosen.overrides[key]!r}; say which in Scale.arms[{arm!r}]['overrides']"
                )
        return {**config, **special, "overrides": {**own, **chosen.overrides, **final}}


@dataclass(frozen=True)
class Claim:
    """One headline claim of a paper and the rule that judges it, written before the run.

    Args:
        name: short name, unique in the paper.
        statement: the claim in a sentence.
        paper_figure: what the paper reports, as text with its unit.
        source: table, figure or section of the paper.
        experiment: name of the experiment that measures it.
        rule: how it is judged (:mod:`lightning_plugins.claims.rules`).
        in_paper_regime: whether the experiment has the paper's data, model and length.
        regime: the regime in words ("26k parameters, digits, 5 seeds").
    """

    name: str
    statement: str
    paper_figure: str
    source: str
    experiment: str
    rule: Rule
    in_paper_regime: bool
    regime: str

    @property
    def rule_sha256(self) -> str:
        """Hash of the rule under this claim's name."""
        return self.rule.sha256(self.name)


@dataclass(frozen=True)
class Column:
    """A metric shown in the table of arms: its label and a format such as ``.2f``."""

    metric: str
    label: str
    format: str = ".3g"

    def __post_init__(self) -> None:
        try:
            format(1.0, self.format)
        except ValueError as error:
            raise ValueError(
                f"format of column {self.metric!r} must be a float format such as '.2f', "
                f"got {self.format!r}"
            ) from error

    def show(self, value: float) -> str:
        """The value in this column's format."""
        return format(value, self.format)


@dataclass(frozen=True)
class Overview:
    """The figure at the head of a paper's report, and what follows from it.

    Args:
        experiment: of which all arms are shown.
        metric: that is shown, with its interval over seeds.
        title: of the figure.
        caption: what is to be known to read it.
        conclusions: names of the claims whose verdicts say what follows.
    """

    experiment: str
    metric: str
    title: str
    caption: str
    conclusions: tuple[str, ...]


@dataclass(frozen=True)
class Paper:
    """A paper: its experiments, its claims, the columns of its table.

    ``next_steps`` are said after a run: what to try with what was just seen. ``overview`` stands at
    the head of the report.
    """

    name: str
    title: str
    citation: str
    experiments: tuple[Experiment, ...]
    claims: tuple[Claim, ...]
    columns: tuple[Column, ...]
    next_steps: tuple[str, ...] = ()
    overview: Overview | None = None

    def __post_init__(self) -> None:
        names = [experiment.name for experiment in self.experiments]
        for label, found in (
            ("experiments", names),
            ("claims", [claim.name for claim in self.claims]),
        ):
            if len(set(found)) != len(found):
                raise ValueError(f"{label} of paper {self.name!r} must have distinct names")
        if self.overview is not None and self.overview.experiment not in names:
            raise ValueError(
                f"overview of paper {self.name!r} names experiment {self.overview.experiment!r}, "
                f"which does not exist{suggestion(self.overview.experiment, names)}"
            )
        for claim in self.claims:
            if claim.experiment not in names:
                raise ValueError(
                    f"claim {claim.name!r} names experiment {claim.experiment!r}, "
                    f"which does not exist{suggestion(claim.experiment, names)}"
                )
            arms = self.experiment(claim.experiment).arms
            for arm in claim.rule.arms:
                if arm not in arms:
                    raise ValueError(
                        f"rule of claim {claim.name!r} names arm {arm!r}, "
                        f"which experiment {claim.experiment!r} lacks{suggestion(arm, arms)}"
                    )

    def at(self, scale: str) -> "Paper":
        """This paper with only the experiments and arms that a scale runs, and their claims.

        Raises:
            ValueError: no experiment has the scale; names those that exist.
        """
        experiments = tuple(one.at(scale) for one in self.experiments if scale in one.scales)
        if not experiments:
            names = list(dict.fromkeys(name for one in self.experiments for name in one.scales))
            raise ValueError(
                f"paper {self.name!r} has no scale {scale!r}; it has "
                f"{', '.join(names) or 'none'}{suggestion(scale, names)}"
            )
        arms = {one.name: set(one.arms) for one in experiments}
        claims = tuple(
            claim
            for claim in self.claims
            if arms.get(claim.experiment, set()).issuperset(claim.rule.arms)
        )
        shown = self.overview
        if shown is not None and shown.experiment not in arms:
            shown = None
        return replace(self, experiments=experiments, claims=claims, overview=shown)

    def experiment(self, name: str) -> Experiment:
        """The experiment of that name."""
        return next(one for one in self.experiments if one.name == name)

    def column(self, metric: str) -> Column:
        """The column of that metric, or a plain one where the table does not show it."""
        found = (column for column in self.columns if column.metric == metric)
        return next(found, Column(metric, metric))
