"""Conversion of a blockwise optimizer's state to and from the layout of the plain optimizer.

The plain layout has one group with the parameters in the order of ``named_parameters()``. Its extra
key ``blocks``, which other optimizers ignore, contains the settings that differ between blocks.
"""

from collections.abc import Sequence
from typing import Any

from lightning_plugins.optimizers.parameter_names import plain_name

_PER_GROUP_KEYS = ("params", "param_names", "name")


def as_one_group(
    state_dict: dict[str, Any], order: Sequence[str], defaults: dict[str, Any]
) -> dict[str, Any]:
    """Convert a ``state_dict`` with one group per block to one with a single group.

    The single group has the learning rate of the norms, whose multiplier is 1, and the weight decay
    of ``defaults``, so that a block without decay does not disable it for all. The parameters'
    state is unchanged.
    """
    groups = state_dict["param_groups"]
    index = {
        name: number
        for group in groups
        for name, number in zip(group["param_names"], group["params"], strict=True)
    }
    blocks = {
        group["name"]: {key: value for key, value in group.items() if key not in _PER_GROUP_KEYS}
        for group in groups
    }
    base = next((group for group in groups if group["name"] == "norm"), groups[-1])
    one = {key: value for key, value in base.items() if key not in _PER_GROUP_KEYS}
    one |= {"params": [index[n] for n in order], "param_names": list(order), "blocks": blocks}
    one |= {key: value for key, value in defaults.items() if key == "weight_decay"}
    if "partitions" in base:  # Adam-mini has one per parameter
        of_names = {
            name: partition
            for group in groups
            for name, partition in zip(group["param_names"], group["partitions"], strict=True)
        }
        one["partitions"] = [of_names[name] for name in order]
    return {**state_dict, "param_groups": [one]}


def as_groups_of(
    groups: Sequence[dict[str, Any]], order: Sequence[str], state_dict: dict[str, Any]
) -> dict[str, Any]:
    """Convert a ``state_dict`` of the plain optimizer, or of ``as_one_group``, to block groups.

    Parameters are matched by name where the checkpoint has names, otherwise by position: in one
    group, or in the same groups, which is the layout of ``torch.distributed.checkpoint``. If the
    checkpoint has no blocks, the groups keep their own settings, including the learning rates.

    Raises:
        ValueError: The names or the numbers of parameters differ.
    """
    saved = state_dict["param_groups"]
    numbers = _numbers_by_name(saved, groups, order)
    # torch.distributed.checkpoint stores the keys of the single group in its last group.
    blocks: dict[str, Any] = next((group["blocks"] for group in saved if "blocks" in group), {})
    loaded = []
    for group in groups:
        own = {key: value for key, value in group.items() if key != "params"}
        kept = blocks.get(group["name"], {})
        params = [numbers[name] for name in group["param_names"]]
        loaded.append({**own, **kept, "params": params})
    return {**state_dict, "param_groups": loaded}


def _numbers_by_name(
    saved: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]], order: Sequence[str]
) -> dict[str, int]:
    numbers = [number for group in saved for number in group["params"]]
    if len(numbers) != len(order):
        raise ValueError(
            f"the checkpoint has the state of {len(numbers)} parameters and the optimizer has "
            f"{len(order)}: they belong to different models"
        )
    if all("param_names" in group for group in saved):
        names = [plain_name(name) for group in saved for name in group["param_names"]]
        unknown = sorted(set(order) - set(names))
        if unknown:
            raise ValueError(
                f"the checkpoint has no state for {len(unknown)} parameters, such as "
                f"{unknown[0]!r}: it belongs to another model, or its parameters were renamed"
            )
        return dict(zip(names, numbers, strict=True))
    if [len(group["params"]) for group in saved] == [len(group["params"]) for group in groups]:
        own = [name for group in groups for name in group["param_names"]]
        return dict(zip(own, numbers, strict=True))
    if len(saved) > 1:
        raise ValueError(
            f"the checkpoint has {len(saved)} groups without parameter names, so the order of the "
            "parameters is unknown: save it from an optimizer built with named_parameters()"
        )
    return dict(zip(order, numbers, strict=True))
