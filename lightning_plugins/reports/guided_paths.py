"""Paths of recommendations towards a target, as one HTML page and as one picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_plugins.reports.curves import Picture, matplotlib_classes, rendered
from lightning_plugins.reports.figures import ACCENT, INK, literal
from lightning_plugins.reports.html import Element, document
from lightning_plugins.reports.style import CSS

_LONGEST_LABEL = 34
_CSS = f"""{CSS}
.bar {{ background: {ACCENT["light"]}; height: .6rem; border-radius: 3px; }}
td.chance {{ width: 12rem; }}
"""


@dataclass(frozen=True)
class GuidedStep:
    """One recommendation.

    Args:
        title: of the item.
        genres: of the item.
        is_taken: whether the user took it.
        target_probability: of the target after it.
    """

    title: str
    genres: tuple[str, ...]
    is_taken: bool
    target_probability: float


@dataclass(frozen=True)
class GuidedPath:
    """A planner's path for one user.

    Args:
        planner: label of the planner.
        user: name of the user.
        target: title of the target.
        target_genres: genres of the target.
        history: titles of the latest items before the path.
        probability_before: of the target before the path.
        steps: the recommendations in their order.
    """

    planner: str
    user: str
    target: str
    target_genres: tuple[str, ...]
    history: tuple[str, ...]
    probability_before: float
    steps: tuple[GuidedStep, ...]


def guided_paths_page(title: str, paths: Sequence[GuidedPath]) -> str:
    """The paths as one self-contained HTML page, all text escaped."""
    head = Element(
        "head",
        Element("meta", charset="utf-8"),
        Element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        Element("title", title),
        Element("style", _CSS),
    )
    highest = max((p for path in paths for p in _probabilities(path)), default=1.0)
    body = Element("body", Element("h1", title), *(_section(path, highest) for path in paths))
    return document(Element("html", head, body, lang="en"))


def guided_paths_picture(paths: Sequence[GuidedPath]) -> Picture:
    """The probability of the target along each path, with the items below it.

    Raises:
        ImportError: if matplotlib is missing.
        ValueError: no path.
    """
    if not paths:
        raise ValueError("paths=[]: expected at least one to draw")
    Figure, FigureCanvasAgg = matplotlib_classes()
    figure = Figure(figsize=(10.5, 3.4 * len(paths)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(paths), 1, squeeze=False, sharey=True)[:, 0]
    for axes, path in zip(panels, paths, strict=True):
        chances = _probabilities(path)
        axes.plot(range(len(chances)), chances, "-", color=ACCENT["light"], linewidth=1.5)
        is_taken = [True, *(step.is_taken for step in path.steps)]
        for mark, wanted in (("o", True), ("x", False)):  # crosses: refused
            places = [place for place, taken in enumerate(is_taken) if taken == wanted]
            heights = [chances[place] for place in places]
            axes.plot(places, heights, mark, color=ACCENT["light"], markersize=5)
        axes.set_yscale("log")
        axes.set_ylabel("P(target)", fontsize=8, color=INK["light"])
        labels = [
            _label(path.history[-1], ()) if path.history else "",
            *map(_step_label, path.steps),
        ]
        axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right", fontsize=7)
        heading = f"{path.planner}: {path.user} to {path.target}{_in_brackets(path.target_genres)}"
        axes.set_title(literal(heading), fontsize=9, color=INK["light"])
    return rendered(figure, canvas)


def _section(path: GuidedPath, highest: float) -> Element:
    rows = [_row("before the path", "", "", path.probability_before, highest)]
    rows += [
        _row(
            step.title,
            ", ".join(step.genres),
            "taken" if step.is_taken else "refused",
            step.target_probability,
            highest,
        )
        for step in path.steps
    ]
    names = ("recommended", "genres", "", "P(target) after it", "")
    header = Element("tr", *(Element("th", name) for name in names))
    heading = f"{path.planner}: {path.user} to {path.target}{_in_brackets(path.target_genres)}"
    return Element(
        "section",
        Element("h3", heading),
        Element("p", f"Last taken: {'; '.join(path.history)}", class_="soft"),
        Element("table", Element("thead", header), Element("tbody", *rows)),
        class_="claim",
    )


def _row(title: str, genres: str, taken: str, chance: float, highest: float) -> Element:
    width = 100 * chance / highest if highest > 0 else 0
    bar = Element("div", class_="bar", style=f"width: {width:.1f}%")
    return Element(
        "tr",
        *(Element("td", text) for text in (title, genres, taken)),
        Element("td", f"{chance:.2g}" if math.isfinite(chance) else "?"),
        Element("td", bar, class_="chance"),
    )


def _probabilities(path: GuidedPath) -> list[float]:
    return [path.probability_before, *(step.target_probability for step in path.steps)]


def _in_brackets(genres: tuple[str, ...]) -> str:
    return f" [{', '.join(genres)}]" if genres else ""


def _step_label(step: GuidedStep) -> str:
    return _label(step.title, step.genres)


def _label(title: str, genres: tuple[str, ...]) -> str:
    text = title if len(title) <= _LONGEST_LABEL else title[: _LONGEST_LABEL - 1] + "…"
    return literal(f"{text}\n{', '.join(genres[:3])}" if genres else text)
