"""One project with one plugin: what is added to its Trainer, and what must hold afterwards.

A project is a function ``train(trainer_options)`` that builds its model and data from fixed seeds
and trains a few steps. All that a plugin needs is added to ``trainer_options``, as a user adds it.
"""

import linecache
import math
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from probe import Probe, SamByHand, flat, seeded_fit
from torch import Tensor

from lightning_plugins.callbacks import (
    BlockSharpness,
    ExactResume,
    LateSAM,
    ParameterNames,
    SharpnessMonitor,
)
from lightning_plugins.optimizers import BlockwiseAdamW, gradpower
from lightning_plugins.optimizers.grad_power import SignPowerStep
from lightning_plugins.strategies import SimulatedDecentralizedStrategy

Train = Callable[[dict[str, Any]], None]
STEPS = 8
POWER = 1.2


@dataclass
class Outcome:
    """What a cell of the table shows.

    Attributes:
        kind: ``runs``, ``refused``, ``wrong``, ``warns`` of a resume that is not exact, or
            ``no resume`` of the project itself.
        note: What was compared, or the message.
        followed: The outcome of the same cell after the advice of a refusal was followed.
    """

    kind: str
    note: str = ""
    followed: str = ""


@dataclass
class Project:
    """A project in its environment.

    Args:
        train: Builds and trains it.
        root: ``lightning.pytorch`` or ``pytorch_lightning``.
        patterns: Blocks of parameters that no preset knows.
    """

    train: Train
    root: str = "lightning.pytorch"
    patterns: dict[str, str] = field(default_factory=dict)
    advised: dict[str, Any] = field(default_factory=dict)
    plain: Probe = field(init=False)

    def run(self, *callbacks: Any, **options: Any) -> Probe:
        """Train with callbacks, and return the probe, which is the last one."""
        callbacks = (*callbacks, *(make() for make in self.advised.get("callbacks", ())))
        probe = Probe(self.root)
        with tempfile.TemporaryDirectory() as folder, seeded_fit(self.root, options.pop("fit", {})):
            train = self.advised.get("train", self.train)
            train(
                {
                    "accelerator": "cpu",
                    "devices": 1,
                    "max_steps": STEPS,
                    "max_epochs": 100,
                    "logger": False,
                    "enable_checkpointing": False,
                    "enable_progress_bar": False,
                    "enable_model_summary": False,
                    "default_root_dir": folder,
                    "limit_val_batches": 0,
                    "num_sanity_val_steps": 0,
                    **options,
                    "callbacks": [*callbacks, probe.callback],
                }
            )
        return probe


def late_sam(project: Project) -> Outcome:
    """The gradient of the first step is that of two passes by hand; other state is untouched."""
    sam = LateSAM(start=0, unit="step", rho=0.05)
    found = project.run(sam)
    by_hand = SamByHand(project.root, rho=0.05)
    project.run(by_hand.callback, max_steps=1)
    steps = found.steps
    if sam.sam_steps != steps:
        return Outcome("wrong", f"{sam.sam_steps} SAM steps of {steps}")
    changed = [n for n, x in project.plain.other_state.items() if differs(x, found.other_state[n])]
    if changed:
        return Outcome("wrong", f"the second pass changed {', '.join(changed[:3])}")
    return compared(found, "manual SAM", by_hand.gradient, found.gradient, 1e-5)


def grad_power(project: Project) -> Outcome:
    """The weights are those of the plain optimizer with powered gradients."""
    cls = type(project.plain.trainer.optimizers[0])
    with replaced(cls, gradpower(cls, POWER)):
        found = project.run()
    if not isinstance(found.trainer.optimizers[0], SignPowerStep):
        raise RuntimeError(f"the project does not use the class that replaces {cls.__name__}")
    by_hand = project.run(fit={"gradient": lambda g: g.sign() * g.abs().pow(POWER)})
    return compared(found, "powered gradients", by_hand.weights, found.weights, 1e-4)


def blockwise_lr(project: Project) -> Outcome:
    """The rates of the parameters' groups are the multiples of the rate."""
    cls = type(project.plain.trainer.optimizers[0])

    def factory(params: Any, lr: float = 1e-3, **options: Any) -> BlockwiseAdamW:
        known = {n: options[n] for n in ("betas", "eps", "weight_decay") if n in options}
        patterns = project.advised.get("patterns", project.patterns)
        return BlockwiseAdamW(params, lr=float(lr), patterns=patterns, **known)

    with replaced(cls, factory):
        found = project.run()
    groups = found.trainer.optimizers[0].param_groups
    rates = {group["name"]: group["lr"] for group in groups if "multiplier" in group}
    if len(set(rates.values())) < 2:
        return Outcome("wrong", f"one rate for {', '.join(rates)}")
    return Outcome("runs", f"{found.steps} steps, blocks {', '.join(rates)}")


def exact_resume(project: Project) -> Outcome:
    """Resumed in an epoch, with other seeds, the weights are those of the uninterrupted run."""
    with tempfile.TemporaryDirectory() as folder:
        saves = {"fit": {"save_at": (3, Path(folder, "middle.ckpt"))}}
        whole = project.run(ExactResume(), **saves, enable_checkpointing=True)
        path = Path(folder, "middle.ckpt")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            resumed = project.run(ExactResume(), fit={"ckpt_path": str(path), "seed": 999})
        saved = torch.load(path, weights_only=False)["state_dict"]
        names = dict(resumed.module.named_parameters())
        replaces = differs(flat(saved[name] for name in names), resumed.first_weights)
        again = project.run(fit={"ckpt_path": str(path), "seed": 999}) if replaces else None
    if again is not None:
        if differs(flat(saved[name] for name in names), again.first_weights):  # without it too
            message = next((str(w.message) for w in caught if "resuming" in str(w.message)), "")
            return Outcome("no resume", message)
        return Outcome("wrong", "the resumed run does not begin with the weights that were saved")
    if differs(whole.weights, project.plain.weights):
        return Outcome("wrong", "the run with ExactResume differs from the plain run")
    for message in (str(warning.message) for warning in caught):
        if message.startswith("resuming "):
            return Outcome("warns", message)
    if resumed.steps != whole.steps:
        return Outcome("wrong", f"{resumed.steps} steps after the resume, {whole.steps} without")
    return compared(resumed, "the uninterrupted run", whole.weights, resumed.weights, 0.0)


def sharpness_monitor(project: Project) -> Outcome:
    """The measured values are finite and the weights those of the plain run."""
    loss = project.advised.get("loss")
    monitor = SharpnessMonitor(max_share=100.0, num_samples=8, batch_size=8, loss=loss)
    found = project.run(monitor)
    values = [x for curve in monitor.values.values() for x in curve]
    if not values or not all(map(math.isfinite, values)):
        return Outcome("wrong", f"measured {values[:3]}")
    return compared(found, "the plain run", project.plain.weights, found.weights, 0.0)


def block_sharpness(project: Project) -> Outcome:
    """The measured values are finite and the weights those of the plain run."""
    patterns = project.advised.get("patterns", project.patterns)
    monitor = BlockSharpness(every_n_steps=2, patterns=patterns)
    found = project.run(monitor)
    values = [x for curve in monitor.values.values() for x in curve]
    if not values or not all(map(math.isfinite, values)):
        return Outcome("wrong", f"measured {values[:3]}")
    return compared(found, "the plain run", project.plain.weights, found.weights, 0.0)


def two_agents(project: Project) -> Outcome:
    """Two agents train all steps on different data and end with one merged model."""
    found = project.run(strategy=SimulatedDecentralizedStrategy(2))
    if found.steps < STEPS // 2:
        return Outcome("wrong", f"{found.steps} steps")
    if not torch.isfinite(found.weights).all():
        return Outcome("wrong", "weights that are not finite")
    if not differs(found.weights, project.plain.weights):
        return Outcome("wrong", "the weights of one agent")
    return Outcome("runs", f"{found.steps} steps")


CELLS: dict[str, Callable[[Project], Outcome]] = {
    "LateSAM": late_sam,
    "GradPower": grad_power,
    "Blockwise LR": blockwise_lr,
    "ExactResume": exact_resume,
    "SharpnessMonitor": sharpness_monitor,
    "BlockSharpness": block_sharpness,
    "two agents": two_agents,
}


def outcome_of(plugin: str, project: Project, advice: dict[str, dict[str, Any]]) -> Outcome:
    """Return what a cell shows; if it refuses, also what it shows after the advice is followed.

    Args:
        plugin: The name of the cell.
        project: The project.
        advice: For each plugin, what its messages advise in this project.
    """
    cell = CELLS[plugin]
    outcome = _outcome(cell, project)
    advised = {**_ADVICE.get(plugin, {}), **advice.get(plugin, {})}
    if outcome.kind == "refused" and advised:
        project.advised = advised
        found = _outcome(cell, project)
        project.advised = {}
        outcome.followed = f"{found.kind}, {found.note}"
    return outcome


# Blocks for networks that are not transformers, whose names nobody but the user knows.
_BLOCKS = {"patterns": {r"bias$": "norm", r"": "ffn"}}
_ADVICE: dict[str, dict[str, Any]] = {
    "Blockwise LR": {**_BLOCKS, "callbacks": [ParameterNames]},
    "BlockSharpness": _BLOCKS,
}


def _outcome(cell: Callable[[Project], Outcome], project: Project) -> Outcome:
    try:
        return cell(project)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        text = " ".join(str(error).split())
        of_user = isinstance(error, (ValueError, TypeError)) or "Misconfig" in type(error).__name__
        if of_user and is_raised_by_us(error):
            return Outcome("refused", text)
        return Outcome("wrong", f"{type(error).__name__}: {text[:200]} ({Path(last).name})")


def is_raised_by_us(error: BaseException) -> bool:
    """Whether a ``raise`` of this package raised the error."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        text = linecache.getline(frame.f_code.co_filename, line).strip()
    return module.startswith("lightning_plugins.") and text.startswith("raise ")


def compared(found: Probe, what: str, expected: Tensor, seen: Tensor, tolerance: float) -> Outcome:
    """Compare two vectors; a tolerance is relative to the norm, and 0 is bit for bit."""
    if expected.shape != seen.shape:
        return Outcome(
            "wrong", f"{seen.numel()} values instead of the {expected.numel()} of {what}"
        )
    if tolerance == 0.0:
        if differs(expected, seen):
            return Outcome("wrong", f"{relative_difference(expected, seen):.1e} from {what}")
        return Outcome("runs", f"{found.steps} steps, equal to {what} bit for bit")
    distance = relative_difference(expected, seen)
    if not distance <= tolerance:
        return Outcome("wrong", f"{distance:.1e} from {what}")
    return Outcome("runs", f"{found.steps} steps, {distance:.0e} from {what}")


def relative_difference(expected: Tensor, seen: Tensor) -> float:
    """Return the norm of the difference divided by the norm of ``expected``."""
    return float((expected - seen).norm() / expected.norm().clamp_min(1e-30))


def differs(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors differ in any bit; NaN equals NaN."""
    return one.shape != other.shape or not torch.equal(one.nan_to_num(), other.nan_to_num())


@contextmanager
def replaced(cls: type, new: Any) -> Iterator[None]:
    """Replace an optimizer's class wherever a loaded module has it, as an edit of one line does."""
    of_modules = [
        vars(module)
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] != "lightning_plugins" and hasattr(module, "__dict__")
    ]
    tables = [value for names in of_modules for value in names.values() if type(value) is dict]
    places = [
        (names, name)
        for names in [*of_modules, *tables]
        for name, value in list(names.items())
        if value is cls
    ]
    for names, name in places:
        names[name] = new
    try:
        yield
    finally:
        for names, name in places:
            names[name] = cls
