"""Recommendation paths as an HTML page and as pictures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from lightning_plugins.reports.drawing import ACCENT, INK, Picture, literal, new_figure, rendered
from lightning_plugins.reports.html import Element, page

_MAX_LABEL_CHARACTERS = 34
_CSS = f"""
.bar {{ background: {ACCENT["light"]}; height: .6rem; border-radius: 3px; }}
td.chance {{ width: 12rem; }}
"""


@dataclass(frozen=True)
class GuidedStep:
    """One recommendation of a path.

    Args:
        title: Title of the item.
        genres: Genres of the item.
        is_taken: Whether the user took the item.
        target_probability: Probability of the target after this recommendation.
        identifier: Identifier of the item in the user's data.
    """

    title: str
    genres: tuple[str, ...]
    is_taken: bool
    target_probability: float
    identifier: str = ""


@dataclass(frozen=True)
class GuidedPath:
    """A planner's path for one user.

    Args:
        planner: Label of the planner.
        user: Name of the user.
        target: Title of the target.
        target_genres: Genres of the target.
        history: Titles of the latest items before the path.
        probability_before: Probability of the target before the path.
        steps: The recommendations in order.
        problem: Why the path is shorter or not the planner's own, or ``""``.
    """

    planner: str
    user: str
    target: str
    target_genres: tuple[str, ...]
    history: tuple[str, ...]
    probability_before: float
    steps: tuple[GuidedStep, ...]
    problem: str = ""

    @property
    def heading(self) -> str:
        """Planner, user and target on one line."""
        genres = f" [{', '.join(self.target_genres)}]" if self.target_genres else ""
        return f"{self.planner}: {self.user} to {self.target}{genres}"

    @property
    def probabilities(self) -> list[float]:
        """Probability of the target before the path and after each step."""
        return [self.probability_before, *(step.target_probability for step in self.steps)]


def guided_paths_page(title: str, paths: Sequence[GuidedPath]) -> str:
    """Format the paths as one self-contained HTML page. All text is escaped."""
    highest = max((p for path in paths for p in path.probabilities), default=1.0)
    return page(title, *(_section(path, highest) for path in paths), css=_CSS)


def guided_paths_picture(paths: Sequence[GuidedPath]) -> Picture:
    """Draw the probability of the target along each path, with the items below it.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: ``paths`` is empty.
    """
    if not paths:
        raise ValueError("paths=[]: expected at least one path")
    figure = new_figure(10.5, 3.4 * len(paths))
    panels = figure.subplots(len(paths), 1, squeeze=False, sharey=True)[:, 0]
    for axes, path in zip(panels, paths, strict=True):
        chances = path.probabilities
        axes.plot(range(len(chances)), chances, "-", color=ACCENT["light"], linewidth=1.5)
        is_taken = [True, *(step.is_taken for step in path.steps)]
        for mark, value in (("o", True), ("x", False)):  # crosses: rejected items
            places = [place for place, taken in enumerate(is_taken) if taken == value]
            heights = [chances[place] for place in places]
            axes.plot(places, heights, mark, color=ACCENT["light"], markersize=5)
        axes.set_yscale("log")
        axes.set_ylabel("P(target)", fontsize=8, color=INK["light"])
        labels = [
            _label(path.history[-1], ()) if path.history else "",
            *(_label(step.title, step.genres) for step in path.steps),
        ]
        axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right", fontsize=7)
        axes.set_title(literal(path.heading), fontsize=9, color=INK["light"])
    return rendered(figure)


def frontier_picture(
    rows: Mapping[str, Mapping[str, Sequence[float]]], gained: str, paid: Sequence[str]
) -> Picture:
    """Draw one panel per measure in ``paid``, with one point per row and ``gained`` on the y axis.

    Points are means, and bars are standard errors. A row without values of a measure is omitted
    from its panel.

    Args:
        rows: Row -> measure -> values.
        gained: Measure of the vertical axes.
        paid: Measures of the horizontal axes, at least one.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(5.2 * len(paid), 4.4)
    panels = figure.subplots(1, len(paid), squeeze=False, sharey=True)[0]
    for axes, measure in zip(panels, paid, strict=True):
        for label, row in rows.items():
            across, up = row.get(measure, ()), row.get(gained, ())
            if not (across and up):
                continue
            point = fmean(across), fmean(up)
            axes.errorbar(
                *point,
                xerr=_standard_error(across),
                yerr=_standard_error(up),
                fmt="o",
                color=ACCENT["light"],
                markersize=5,
                linewidth=1,
            )
            axes.annotate(
                literal(label),
                point,
                textcoords="offset points",
                xytext=(6, 5),
                fontsize=8,
                color=INK["light"],
            )
        axes.set_xlabel(literal(measure), fontsize=9, color=INK["light"])
        axes.margins(0.15)
    panels[0].set_ylabel(literal(gained), fontsize=9, color=INK["light"])
    return rendered(figure)


def _section(path: GuidedPath, highest: float) -> Element:
    rows = [_row("", "before the path", "", "", path.probability_before, highest)]
    rows += [
        _row(
            step.identifier,
            step.title,
            ", ".join(step.genres),
            "taken" if step.is_taken else "rejected",
            step.target_probability,
            highest,
        )
        for step in path.steps
    ]
    names = ("item", "recommended", "genres", "", "P(target) after it", "")
    header = Element("tr", *(Element("th", name) for name in names))
    return Element(
        "section",
        Element("h3", path.heading),
        Element("p", f"Last taken: {'; '.join(path.history)}", class_="soft"),
        *([Element("p", f"Problem: {path.problem}", class_="soft")] if path.problem else []),
        Element("table", Element("thead", header), Element("tbody", *rows)),
        class_="claim",
    )


def _row(
    identifier: str, title: str, genres: str, taken: str, chance: float, highest: float
) -> Element:
    width = 100 * chance / highest if highest > 0 else 0
    bar = Element("div", class_="bar", style=f"width: {width:.1f}%")
    return Element(
        "tr",
        *(Element("td", text) for text in (identifier, title, genres, taken)),
        Element("td", f"{chance:.2g}" if math.isfinite(chance) else "?"),
        Element("td", bar, class_="chance"),
    )


def _label(title: str, genres: tuple[str, ...]) -> str:
    is_long = len(title) > _MAX_LABEL_CHARACTERS
    text = title[: _MAX_LABEL_CHARACTERS - 1] + "…" if is_long else title
    return literal(f"{text}\n{', '.join(genres[:3])}" if genres else text)


def _standard_error(numbers: Sequence[float]) -> float:
    return stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else 0.0
