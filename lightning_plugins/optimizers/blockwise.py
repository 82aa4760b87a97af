"""Blockwise LR: one learning rate for each type of block in a transformer."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.optim import AdamW, Optimizer

from lightning_plugins.optimizers.adam_mini import AdamMini, partition_of
from lightning_plugins.optimizers.blocks import BLOCKS, BlockParameter, blocks_of
from lightning_plugins.optimizers.blockwise_checkpoint import as_groups_of, as_one_group
from lightning_plugins.optimizers.lion import Lion
from lightning_plugins.optimizers.step_without_hooks import step_without_hooks

DEFAULT_MULTIPLIERS: dict[str, float] = {
    "embedding": 10.0,
    "qk": 8.0,
    "ffn": 6.0,
    "vo": 4.0,
    "norm": 1.0,
    "head": 10.0,
    "router": 1.0,
    "other": 1.0,
}


class Blockwise(Optimizer):
    """Mixin that gives each type of block its own parameter group and learning rate.

    Put it before the optimizer in the bases. The learning rate of a block is ``lr`` times its
    multiplier and is the group's ``lr``, so PyTorch's schedules and ``LearningRateMonitor`` work
    unchanged. The query, key and value slices of a fused projection each get their own rate. This
    requires an update that is linear in the learning rate, as in AdamW, Adam-mini and Lion.

    ``state_dict`` has the layout of the plain optimizer: one group in the order of
    ``named_parameters()``, plus the rates of the blocks. A checkpoint therefore resumes under the
    plain optimizer, without this package, and a checkpoint of the plain optimizer loads here.

    Args:
        params: The parameters of one module, preferably ``model.named_parameters()``;
            ``model.parameters()`` also works.
        lr: Learning rate of a block with multiplier 1, such as the norms.
        multipliers: Factor > 0 per block; the other blocks keep the default. Blocks: embedding, qk,
            vo, ffn, norm, head (untied output), router, other.
        patterns: Block per regular expression, for names that no preset matches. The first pattern
            found in a parameter's name decides and takes precedence over everything else.
        preset: Names of ``gpt2``, ``llama``, ``qwen2_moe``, ``torch``, ``decoder`` or ``vit``;
            ``auto`` tries all.
        no_decay_blocks: Blocks with weight decay 0; the authors' code decays all blocks.
        **kwargs: Further arguments of the optimizer.

    Raises:
        ValueError: A multiplier is not positive and finite or its block is unknown, a block has no
            parameters, the block of a parameter is unknown, a pattern matches nothing, or the names
            of the parameters cannot be found. In ``step``: all blocks were given one rate, as by
            ``OneCycleLR(max_lr=0.1)``, ``SWALR`` or the learning-rate finder. In
            ``add_param_group``: always.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        multipliers: Mapping[str, float] | None = None,
        patterns: Mapping[str, str] | None = None,
        preset: str = "auto",
        no_decay_blocks: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        needed_by = type(self).__name__
        parameters = blocks_of(params, needed_by, patterns, preset)
        _check_blocks(multipliers or {}, no_decay_blocks, parameters, needed_by)
        factors = {**DEFAULT_MULTIPLIERS, **(multipliers or {})}
        self._order = [one.name for one in parameters]
        self._fused = [one for one in parameters if one.is_fused]
        groups = _groups(parameters, factors, lr)
        for group in groups:
            if group["name"] in no_decay_blocks:
                group["weight_decay"] = 0.0
            if isinstance(self, AdamMini):
                members = (one for one in parameters if one.blocks[0] == group["name"])
                released = _follows_released_code(kwargs)
                group["partitions"] = [partition_of(one, released) for one in members]
        super().__init__(groups, lr=lr, **kwargs)  # type: ignore[call-arg]
        rank_zero_info(f"{needed_by}:\n{self.table()}")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Run the closure and take one step, each slice at the rate of its block."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._refuse_one_rate_for_all()
        lr = {group["name"]: group["lr"] for group in self.param_groups}
        deferred = _slices_at_another_rate(self._fused, lr)
        step_without_hooks(self, Blockwise)(self)
        with torch.no_grad():
            for now, before, own, whole in deferred:
                moved = before + own / whole * (now - before)
                # Tensor rates are compared on their device; an intermediate 0 / 0 is discarded.
                is_same = own == whole
                now.copy_(torch.where(is_same, now, moved) if torch.is_tensor(is_same) else moved)
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of the constructor; refuse others, which have no block and no place.

        Raises:
            ValueError: The group was added after construction.
        """
        if "multiplier" not in param_group:
            raise ValueError(
                f"{type(self).__name__} does not take parameters after its construction, as "
                "BackboneFinetuning and add_param_group do: pass model.named_parameters() with the "
                "frozen ones, which train from when requires_grad is set, or use AdamW"
            )
        super().add_param_group(param_group)

    def _refuse_one_rate_for_all(self) -> None:
        """Raise if a schedule or the caller has overwritten the blocks' rates by a single one.

        Rates may become equal later, as at a common floor; the peaks, the final rate of ``SWALR``
        and, without a schedule, the rates of the first step may not.
        """
        key = next((k for k in ("swa_lr", "initial_lr") if k in self.param_groups[0]), "lr")
        rates: list[Any] = [group.get(key) for group in self.param_groups]
        if any(rate is None or torch.is_tensor(rate) for rate in rates):
            return
        multipliers = {group["multiplier"] for group in self.param_groups}
        if len(set(rates)) == 1 and len(multipliers) > 1 and rates[0] > 0:
            if key == "lr" and self.state:
                self._warn_of_one_rate(rates[0])
                return
            raise ValueError(
                f"{type(self).__name__}: {key}={rates[0]:.3g} for all blocks, so the multipliers "
                "would have no effect; give each group its own, for example [x * "
                "group['multiplier'] for group in optimizer.param_groups] as the max_lr of "
                "OneCycleLR or the swa_lr of SWALR, and run the learning-rate finder with AdamW"
            )

    def _warn_of_one_rate(self, rate: float) -> None:
        """Warn once: a hand-written schedule may also have reached a common floor."""
        if not self.__dict__.get("_has_warned"):
            self._has_warned = True
            rank_zero_warn(
                f"{type(self).__name__}: lr={rate:.3g} was assigned to all blocks, so the "
                "multipliers have no effect; assign rate * group['multiplier'] to each group"
            )

    def table(self) -> str:
        """Return a table with block, tensors, elements, learning rate and an example name."""
        counts: Counter[str] = Counter()
        for one in self._fused:
            for block in one.blocks:
                counts[block] += one.parameter.numel() // len(one.blocks)
        fused = {id(one.parameter) for one in self._fused}
        lines = [f"{'block':<10} {'tensors':>7} {'elements':>12} {'lr':>10}  example"]
        for group in self.param_groups:
            whole = [p for p in group["params"] if id(p) not in fused]
            elements = sum(p.numel() for p in whole) + counts[group["name"]]
            example = group["param_names"][0] if group["param_names"] else "slices of fused tensors"
            lines.append(
                f"{group['name']:<10} {len(group['params']):>7} {elements:>12,} "
                f"{float(group['lr']):>10.3g}  {example}"
            )
        return "\n".join(lines)

    def state_dict(self) -> dict[str, Any]:
        """Return the state in the layout of the plain optimizer, plus the blocks' settings."""
        return as_one_group(super().state_dict(), self._order, self.defaults)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this or of the plain optimizer.

        Raises:
            ValueError: The parameters of the checkpoint are not those of this optimizer.
        """
        super().load_state_dict(as_groups_of(self.param_groups, self._order, state_dict))

    def __getstate__(self) -> dict[str, Any]:
        own = {"_order": self._order, "_fused": self._fused}
        return {**super().__getstate__(), **own}


class BlockwiseAdamW(Blockwise, AdamW):
    """AdamW with one learning rate for each type of block.

    The default multipliers are the paper's: norms 1, values and attention output 4, feed-forward 6,
    queries and keys 8, embeddings 10, with ``lr`` the tuned rate of AdamW. The authors tuned them
    by hand on one model (LLaMA 0.25B), and they are relative: at another scale, tune ``lr`` again,
    down to a fifth of AdamW's. For an untied output head, the default of the authors' code is 1 and
    the value used in the paper is not known; the default here is that of the embeddings, because at
    0.2M parameters the method lost to AdamW with 1. Compare only runs whose learning rate has
    decayed: in the first half of a run the method is behind.

    Source: Wang et al., "The Sharpness Disparity Principle in Transformers for Accelerating
    Language Model Pre-Training", arXiv 2502.19002, ICML 2025. See ``Blockwise`` for the arguments,
    ``torch.optim.AdamW`` for the others and ``BlockwiseSchedule`` for the schedule.
    """


class BlockwiseAdamMini(Blockwise, AdamMini):
    """Adam-mini with one learning rate for each type of block; see ``BlockwiseAdamW``."""


class BlockwiseLion(Blockwise, Lion):
    """Lion with one learning rate for each type of block; see ``BlockwiseAdamW``.

    The paper's Lion has betas (0.95, 0.98) and weight decay 1.
    """


def _follows_released_code(arguments: Mapping[str, Any]) -> bool:
    # Apart from the constructor, in which jsonargparse takes kwargs.get for an argument of all.
    return bool(arguments.get("released", True))


def _groups(
    parameters: list[BlockParameter], factors: Mapping[str, float], lr: float
) -> list[dict[str, Any]]:
    """Return one group per block that occurs; a fused tensor is in the group of its first slice."""
    occurring = {block for one in parameters for block in one.blocks}
    groups = []
    for block in (block for block in BLOCKS if block in occurring):
        members = [(one.name, one.parameter) for one in parameters if one.blocks[0] == block]
        factor = factors[block]
        group = {"params": members, "name": block, "multiplier": factor, "lr": lr * factor}
        if not members:
            group["param_names"] = []
        groups.append(group)
    return groups


def _slices_at_another_rate(
    fused: list[BlockParameter], lr: Mapping[str, Any]
) -> list[tuple[Tensor, Tensor, Any, Any]]:
    """Return (slice, its copy before the step, its rate, the rate of the tensor's group)."""
    slices = []
    for one in fused:
        whole = lr[one.blocks[0]]
        for block, part in one.slices(one.parameter.detach()):
            own = lr[block]
            if block != one.blocks[0] and (torch.is_tensor(own) or own != whole):
                slices.append((part, part.clone(), own, whole))
    return slices


def _check_blocks(
    multipliers: Mapping[str, float],
    no_decay_blocks: Sequence[str],
    parameters: list[BlockParameter],
    needed_by: str,
) -> None:
    occurring = {block for one in parameters for block in one.blocks}
    for name in ("multipliers", "no_decay_blocks"):
        for block in multipliers if name == "multipliers" else no_decay_blocks:
            if block not in BLOCKS:
                raise ValueError(
                    f"{name} has {block!r}, which is not a block: expected {', '.join(BLOCKS)}"
                )
            if block not in occurring:
                raise ValueError(
                    f"{name} has {block!r}, but {needed_by} received no such parameter; it has "
                    f"{', '.join(b for b in BLOCKS if b in occurring)}"
                )
    for block, factor in multipliers.items():
        if not (math.isfinite(factor) and factor > 0):
            raise ValueError(
                f"multipliers[{block!r}]={factor}: expected a finite number > 0; to freeze a "
                "block, set requires_grad to False"
            )
