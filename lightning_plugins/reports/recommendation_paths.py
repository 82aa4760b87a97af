"""Recommendation paths as an HTML page and as pictures."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from lightning_plugins.reports.drawing import (
    ACCENT,
    FAINT,
    INK,
    Picture,
    literal,
    new_figure,
    rendered,
)
from lightning_plugins.reports.html import Element, page

_MAX_LABEL_CHARACTERS = 34
_MAX_USER_CURVES = 200
_MARKS = ("o", "s", "^", "D")
_CSS = f"""
.bar {{ background: {ACCENT["light"]}; height: .6rem; border-radius: 3px; }}
td.chance {{ width: 12rem; }}
td:first-child {{ white-space: nowrap; }} /* identifiers do not break at hyphens */
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
    """Draw each path as a panel: one row per item, with the probability of the target after it.

    Paths may have different lengths.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: ``paths`` is empty.
    """
    if not paths:
        raise ValueError("paths=[]: expected at least one path")
    rows = [len(path.probabilities) for path in paths]
    figure = new_figure(10.5, 0.3 * sum(rows) + 1.0 * len(paths))
    panels = figure.subplots(
        len(paths), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": rows}
    )[:, 0]
    for axes, path in zip(panels, paths, strict=True):
        chances = path.probabilities
        axes.plot(chances, range(len(chances)), "-", color=ACCENT["light"], linewidth=1.5)
        is_taken = [True, *(step.is_taken for step in path.steps)]
        for mark, value in (("o", True), ("x", False)):  # crosses: rejected items
            places = [place for place, taken in enumerate(is_taken) if taken == value]
            heights = [chances[place] for place in places]
            axes.plot(heights, places, mark, color=ACCENT["light"], markersize=5)
        axes.set_xscale("log")
        axes.tick_params(axis="x", labelbottom=True, labelsize=7)
        labels = [
            _label(f"before: {path.history[-1]}" if path.history else "before the path", ()),
            *(
                _label(f"{place}. {step.title}", step.genres)
                for place, step in enumerate(path.steps, 1)
            ),
        ]
        axes.set_yticks(range(len(labels)), labels, fontsize=8)
        axes.set_ylim(len(labels) - 0.5, -0.5)  # the first item is on top
        axes.grid(axis="y", color=FAINT["light"], linewidth=0.4)
        axes.set_title(literal(_shortened(path.heading, 110)), fontsize=9, color=INK["light"])
    panels[-1].set_xlabel("P(target)", fontsize=8, color=INK["light"])
    return rendered(figure)


def frontier_picture(
    rows: Mapping[str, Mapping[str, Sequence[float]]], gained: str, paid: Sequence[str]
) -> Picture:
    """Draw one panel per measure in ``paid``, with one point per row and ``gained`` on the y axis.

    Points are means, and bars are 95 % intervals (1.96 standard errors). A row without values of a
    measure is omitted from its panel.

    Args:
        rows: Row -> measure -> values.
        gained: Measure of the vertical axes.
        paid: Measures of the horizontal axes, at least one.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(4.8 * len(paid) + 2.0, 4.4)
    panels = figure.subplots(1, len(paid), squeeze=False, sharey=True)[0]
    handles = {}
    for axes, measure in zip(panels, paid, strict=True):
        for place, (label, row) in enumerate(rows.items()):
            across, up = row.get(measure, ()), row.get(gained, ())
            if not (across and up):
                continue
            handles[label] = axes.errorbar(
                fmean(across),
                fmean(up),
                xerr=_interval(across),
                yerr=_interval(up),
                fmt=_MARKS[place // 10 % len(_MARKS)],
                color=f"C{place % 10}",
                markersize=6,
                linewidth=1,
            )
        axes.set_xlabel(literal(measure), fontsize=9, color=INK["light"])
        axes.margins(0.15)
    panels[0].set_ylabel(literal(gained), fontsize=9, color=INK["light"])
    # Beside the panels, because points of different planners lie close to each other.
    figure.legend(
        list(handles.values()),
        [literal(_shortened(label, _MAX_LABEL_CHARACTERS)) for label in handles],
        loc="outside right upper",
        fontsize=8,
        title="95 % intervals",
        title_fontsize=8,
    )
    return rendered(figure)


def interest_curves_picture(curves: Mapping[str, Sequence[Sequence[float]]], unit: str) -> Picture:
    """Draw one panel per planner: each user's increase of interest after each step, and the mean.

    Faint lines are users, the line is the mean with a band of the 95 % interval. Paths may have
    different lengths; the mean is over the paths that reach a step.

    Args:
        curves: Planner -> one curve per user; each begins with the value before the path.
        unit: Label of the vertical axes.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: ``curves`` is empty.
    """
    if not curves:
        raise ValueError("curves={}: expected at least one planner")
    columns = min(3, len(curves))
    lines = math.ceil(len(curves) / columns)
    figure = new_figure(3.4 * columns, 2.6 * lines + 0.3)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(curves) :]:
        axes.set_visible(False)
    for axes, (label, of_users) in zip(panels.flat, curves.items(), strict=False):
        gains = [[value - curve[0] for value in curve] for curve in of_users if curve]
        for gain in gains[:_MAX_USER_CURVES]:
            axes.plot(range(len(gain)), gain, color=FAINT["light"], linewidth=0.5)
        longest = max(map(len, gains), default=0)
        at_step = [[gain[step] for gain in gains if step < len(gain)] for step in range(longest)]
        means, bars = [fmean(v) for v in at_step], [_interval(v) for v in at_step]
        low = [mean - bar for mean, bar in zip(means, bars, strict=True)]
        high = [mean + bar for mean, bar in zip(means, bars, strict=True)]
        axes.fill_between(range(longest), low, high, color=ACCENT["light"], alpha=0.3, linewidth=0)
        axes.plot(range(longest), means, color=ACCENT["light"], linewidth=1.8)
        axes.axhline(0, color=INK["light"], linewidth=0.6)
        axes.set_title(
            literal(f"{_shortened(label, 24)} ({len(gains)} users)"), fontsize=9, color=INK["light"]
        )
    figure.supylabel(literal(unit), fontsize=9)
    figure.supxlabel("recommended items; band: 95 % interval of the mean", fontsize=9)
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
    text = _shortened(title, _MAX_LABEL_CHARACTERS)
    of_genres = _shortened(", ".join(genres[:3]), _MAX_LABEL_CHARACTERS)
    return literal(f"{text} [{of_genres}]" if genres else text)


def _shortened(text: str, characters: int) -> str:
    """Shorten a text to a width; letters of East Asian scripts are twice as wide."""
    width = 0
    for place, letter in enumerate(text):
        width += 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if width > characters:
            return text[: max(place - 1, 1)] + "…"
    return text


def _interval(numbers: Sequence[float]) -> float:
    """Return half the width of the 95 % interval of the mean, by the normal distribution."""
    return 1.96 * stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else 0.0
