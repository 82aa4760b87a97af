"""The paper's own runs as command lines, for users with the machines and the data."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from lightning_plugins.claims.claim import Paper

PAPER_SCALE = "paper"


@dataclass(frozen=True)
class PublishedRun:
    """One arm at the paper's own scale.

    Args:
        name: Paper, experiment and arm.
        command: The subcommand: the arm's ``command``, by default ``fit``.
        options: The options after the subcommand, without the seed.
        seeds: The seeds; each has its own command line.
    """

    name: str
    command: str
    options: tuple[str, ...]
    seeds: tuple[int, ...]

    def lines(self) -> list[str]:
        """Return a comment with the name of the run, and one command line per seed."""
        words = ("lightning-plugins", self.command, *self.options, "--seed_everything")
        return [f"# {self.name}", *(shlex.join([*words, str(seed)]) for seed in self.seeds)]


def has_published_runs(paper: Paper) -> bool:
    """Return whether an experiment has this scale; otherwise ``cpu`` has the paper's settings."""
    return any(PAPER_SCALE in experiment.scales for experiment in paper.experiments)


def published_lines(paper: Paper) -> list[str]:
    """Return the command lines of every arm and seed, with a comment above each arm."""
    return [line for one in published_runs(paper) for line in one.lines()]


def published_runs(paper: Paper) -> Iterator[PublishedRun]:
    """Yield every arm at the paper's own scale.

    Raises:
        ValueError: For an arm without a ``recipe``.
    """
    for experiment in paper.at(PAPER_SCALE).experiments:
        for arm in experiment.arms:
            config = experiment.config(arm, PAPER_SCALE)
            if "recipe" not in config:
                raise ValueError(f"arm {arm!r} of {experiment.name!r} has no recipe to print")
            options = ["--config", config["recipe"]]
            for key, value in config["overrides"].items():
                options += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
            yield PublishedRun(
                name=f"{paper.name} {experiment.name} {arm}",
                command=config.get("command", "fit"),
                options=tuple(options),
                seeds=experiment.scale(PAPER_SCALE).seeds,
            )
