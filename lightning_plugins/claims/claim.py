"""A paper's claims and the experiments that measure them again, as plain data."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from lightning_plugins.claims.cell import Cell as Cell
from lightning_plugins.claims.fingerprints import canonical_json
from lightning_plugins.claims.rules import Rule


@dataclass(frozen=True)
class Scale:
    """The size at which an experiment is run.

    Args:
        seeds: The seeds; arms are compared seed by seed.
        overrides: Values that are merged into the ``overrides`` of every arm.
        arms: Changes to the whole configuration of single arms at this scale: another ``recipe``,
            or ``overrides`` that take precedence over those of the arm and of the scale.
        only: The arms that run at this scale; empty means all arms.
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
    """Arms that differ in one thing and run with the same seeds.

    Args:
        name: Name within the paper.
        arms: Name -> configuration as plain data; ``recipe`` and ``overrides`` for a Lightning run.
        scales: Name (``smoke``, ``cpu``, ``paper``) -> :class:`Scale`.
        run: ``run(config, seed) -> Cell``, a module-level function, so that worker processes can
            import it; it imports torch inside.
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
                config = self.config(arm, scale_name)
                canonical_json(config)
                if config.get("tuning_seed") in scale.seeds:
                    raise ValueError(
                        f"seed {config['tuning_seed']} of experiment {self.name!r} tuned arm "
                        f"{arm!r} and cannot judge it: choose other seeds"
                    )

    def scale(self, name: str) -> Scale:
        """Return the scale with that name.

        Raises:
            ValueError: If there is none; lists the scales that exist.
        """
        if name not in self.scales:
            raise ValueError(
                f"experiment {self.name!r} has no scale {name!r}; it has "
                f"{', '.join(self.scales) or 'none'}{suggestion(name, self.scales)}"
            )
        return self.scales[name]

    def at(self, scale: str) -> "Experiment":
        """Return this experiment with only the arms that run at the scale."""
        chosen = self.scale(scale)
        arms = {
            arm: config for arm, config in self.arms.items() if arm in (chosen.only or self.arms)
        }
        changes = {arm: change for arm, change in chosen.arms.items() if arm in arms}
        return replace(self, arms=arms, scales={scale: replace(chosen, arms=changes)})

    def with_seeds(self, seeds: tuple[int, ...]) -> "Experiment":
        """Return this experiment with other seeds at every scale."""
        scales = {name: replace(scale, seeds=seeds) for name, scale in self.scales.items()}
        return replace(self, scales=scales)

    def config(self, arm: str, scale: str) -> dict[str, Any]:
        """Return the resolved configuration of an arm at a scale.

        Raises:
            ValueError: If arm and scale set the same override to different values and
                ``Scale.arms`` does not decide between them. Neither order would be obvious, and an
                error is better than a rival that trains for fewer steps than it should.
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
                    f"{chosen.overrides[key]!r}; decide in Scale.arms[{arm!r}]['overrides']"
                )
        return {**config, **special, "overrides": {**own, **chosen.overrides, **final}}


@dataclass(frozen=True)
class Claim:
    """One main claim of a paper and the rule that judges it, written before the run.

    Args:
        name: Short name, unique within the paper; part of the rule's hash.
        statement: The claim in one sentence.
        paper_figure: The value that the paper reports, as text with its unit.
        source: Table, figure or section of the paper.
        experiment: Name of the experiment that measures the claim.
        rule: How the claim is judged (:mod:`lightning_plugins.claims.rules`).
        is_ours: Whether the paper does not make the claim: our control, rival or extension. The
            claims of a paper and ours are two families of tests.
        regime: Data, model and training length in words ("26k parameters, digits, 5 seeds").
    """

    name: str
    statement: str
    paper_figure: str
    source: str
    experiment: str
    rule: Rule
    regime: str
    is_ours: bool = False

    @property
    def rule_sha256(self) -> str:
        """Hash of the rule and this claim's name."""
        return self.rule.sha256(self.name)


@dataclass(frozen=True)
class Column:
    """A metric in the table of arms, with its label and a format such as ``.2f``."""

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
        """Return the value in this column's format."""
        return format(value, self.format)


@dataclass(frozen=True)
class Overview:
    """The figure at the top of a paper's report, and the conclusions drawn from it.

    Args:
        experiment: The experiment; all of its arms are shown.
        metric: The metric, shown with its interval over seeds.
        title: Title of the figure.
        caption: What the reader must know to interpret the figure.
        conclusions: Names of the claims whose verdicts are listed as conclusions.
    """

    experiment: str
    metric: str
    title: str
    caption: str
    conclusions: tuple[str, ...]


@dataclass(frozen=True)
class Paper:
    """A paper: its experiments, its claims, and the columns of its table.

    ``next_steps`` are commands or code to try, printed after a run. ``overview`` is the figure at
    the top of the report.
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
        """Return this paper with only the experiments, arms and claims of a scale.

        Raises:
            ValueError: If no experiment has the scale; lists the scales that exist.
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

    def with_seeds(self, seeds: tuple[int, ...]) -> "Paper":
        """Return this paper with other seeds in every experiment."""
        return replace(self, experiments=tuple(one.with_seeds(seeds) for one in self.experiments))

    def experiment(self, name: str) -> Experiment:
        """Return the experiment with that name."""
        return next(one for one in self.experiments if one.name == name)

    def column(self, metric: str) -> Column:
        """Return the column of a metric, or a plain one if the table does not show the metric."""
        found = (column for column in self.columns if column.metric == metric)
        return next(found, Column(metric, metric))


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'late-sam'?"``, or an empty string without a similar name."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
