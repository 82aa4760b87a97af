"""Adam-mini: Adam with one second moment per block of parameters."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_plugins.nn.shards import (
    first_indices,
    is_sharded,
    like_parameter,
    local,
    sum_over_parts_,
)
from lightning_plugins.optimizers.blocks import BlockParameter, blocks_of


class AdamMini(Optimizer):
    """Adam with second moments shared within blocks, chosen by the Hessian of a transformer.

    There is one second moment per head in the projections to queries and keys, per output row in
    all other matrices (embedding, values, attention output, feed-forward, head), and per tensor of
    a normalization's weight; biases are as in Adam. First moments are stored in full, so the state
    takes little more than 4 bytes per parameter in single precision, where Adam takes 8. Weight
    decay is decoupled as in AdamW, and AdamW's hyper-parameters can be reused. Parameters may be
    sharded (FSDP2, tensor parallel), also within a block: each sharded matrix takes one all-reduce
    of a number per row.

    Source: Zhang et al., "Adam-mini: Use Fewer Learning Rates To Gain More", arXiv 2406.16793,
    Algorithm 1 and the rules of version 1.1 of their code (``released``).

    Args:
        params: The parameters of one module, preferably ``model.named_parameters()``.
        head_dim: Rows per head in the projections to queries and keys: hidden size / heads.
        lr: Learning rate, >= 0.
        betas: Decay rates of the first and second moment, each in [0, 1).
        eps: Term added to the root of the second moment, >= 0.
        weight_decay: Decoupled weight decay, >= 0.
        patterns: Block per regular expression for names that no preset matches (``blocks_of``).
        preset: Names of ``gpt2``, ``llama``, ``qwen2_moe`` or ``vit``; ``auto`` tries all.
        released: Follow the authors' code: norms and biases are not decayed, and the position
            embeddings of GPT-2 (``wpe``) share one second moment. With False, every parameter is
            decayed, positions have one second moment per row like tokens, and a normalization's
            bias has one in total like its weight.

    Raises:
        ValueError: An argument is out of range, a number of rows is not a multiple of ``head_dim``,
            or the block of a parameter is unknown.
    """

    def __init__(
        self,
        params: Iterable[Any],
        head_dim: int,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        patterns: Mapping[str, str] | None = None,
        preset: str = "auto",
        released: bool = True,
    ) -> None:
        if head_dim < 1:
            raise ValueError(f"head_dim={head_dim}: expected at least 1, hidden size / heads")
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"{name}={value}: expected >= 0")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas={betas}: expected two numbers in [0, 1)")
        groups = list(params) if isinstance(params, list) else params
        if not (isinstance(groups, list) and groups and isinstance(groups[0], dict)):
            parameters = blocks_of(groups, type(self).__name__, patterns, preset)
            members = [(one.name, one.parameter) for one in parameters]
            partitions = [partition_of(one, released) for one in parameters]
            groups = [{"params": members, "partitions": partitions}]
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "head_dim": head_dim,
            "released": released,
        }
        super().__init__(groups, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; ``partitions`` describes how each parameter shares its second moment."""
        if "partitions" not in param_group:
            parameters = blocks_of(param_group["params"], type(self).__name__)
            param_group["params"] = [(one.name, one.parameter) for one in parameters]
            released = param_group.get("released", self.defaults["released"])
            param_group["partitions"] = [partition_of(one, released) for one in parameters]
        super().add_param_group(param_group)
        names = param_group.get("param_names", [])
        for name, parameter, partition in zip(
            names, param_group["params"], param_group["partitions"], strict=True
        ):
            _check(name, parameter, partition, param_group["head_dim"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            members = zip(group["params"], group["partitions"], group["param_names"], strict=True)
            for parameter, partition, name in members:
                if parameter.grad is not None:
                    decays = not group.get("released") or _is_decayed(name, partition)
                    weight_decay = group["weight_decay"] if decays else 0.0
                    self._step_parameter(parameter, partition, weight_decay, group)
        return loss

    def _step_parameter(
        self, parameter: Tensor, partition: str, weight_decay: float, group: dict[str, Any]
    ) -> None:
        lr, (beta1, beta2), eps = group["lr"], group["betas"], group["eps"]
        assert parameter.grad is not None
        gradient = local(like_parameter(parameter.grad, parameter))
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = _zeros_per_block(parameter, partition)
        state["step"] += 1
        step = state["step"].double()  # 1 - beta2 has few correct digits in single precision
        own, average = local(parameter), local(state["exp_avg"])
        own.mul_(1 - lr * weight_decay)
        average.lerp_(gradient, 1 - beta1)
        square = _mean_square(gradient, parameter, partition, group["head_dim"])
        mean_square = local(state["exp_avg_sq"]).lerp_(square.to(parameter.dtype), 1 - beta2)
        root = mean_square.sqrt().div_((1 - beta2**step).sqrt()).add_(eps)
        rate = root.reciprocal_().mul_(lr / (1 - beta1**step))
        own.addcmul_(average, _own_blocks(rate, parameter, partition), value=-1)


def partition_of(one: BlockParameter, released: bool) -> str:
    """Return how a parameter shares its second moment.

    Returns:
        ``tensor`` of a norm, ``positions`` of GPT-2 (one per tensor, too), ``element``, or the rule
        of each slice of the outputs and the output dimension, such as ``head@0`` or, for a fused
        projection with outputs as columns, ``head+head+row@1``.
    """
    if one.blocks == ("norm",):
        return "element" if released and _is_bias(one.name) else "tensor"
    if one.parameter.dim() < 2:
        return "element"
    if released and one.name.split(".")[-2:-1] == ["wpe"]:
        return "positions"
    rules = ("head" if block == "qk" else "row" for block in one.blocks)
    return f"{'+'.join(rules)}@{one.output_dim}"


def _is_decayed(name: str, partition: str) -> bool:
    return partition != "tensor" and not _is_bias(name)


def _is_bias(name: str) -> bool:
    return name.endswith("bias")


def _zeros_per_block(parameter: Tensor, partition: str) -> Tensor:
    """Return one zero per block; of a sharded parameter, every rank has all blocks.

    A bias has one per element, which are sharded like it.
    """
    if partition == "element":
        return torch.zeros_like(parameter)
    shape = _shape_of_rows(parameter, partition) if "@" in partition else []
    return torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)


def _shape_of_rows(parameter: Tensor, partition: str) -> list[int]:
    """Return the whole parameter's shape, with 1 for the dimensions that a row extends over."""
    inputs = _input_dims(parameter, partition)
    return [1 if dim in inputs else size for dim, size in enumerate(parameter.shape)]


def _input_dims(parameter: Tensor, partition: str) -> list[int]:
    if parameter.dim() == 2:
        return [1 - int(partition.partition("@")[2])]
    return list(range(2, parameter.dim()))


def _mean_square(gradient: Tensor, parameter: Tensor, partition: str, head_dim: int) -> Tensor:
    """Return the mean square per block of the whole parameter, equal on all ranks.

    A matrix has one value per row, equal within a head. In a stack of matrices, such as the experts
    of a layer, each matrix has its own rows. A head may be on several ranks: their sums per row are
    added before the mean.

    Args:
        gradient: This rank's part of the gradient.
        parameter: The parameter, which may be sharded.
        partition: See ``partition_of``.
        head_dim: Rows per head.
    """
    if partition == "element":
        return gradient.square()
    if partition in ("tensor", "positions"):
        if not is_sharded(parameter):
            return gradient.square().mean()
        return sum_over_parts_(gradient.square().sum(), parameter).div_(parameter.numel())
    inputs = _input_dims(parameter, partition)
    sums = torch.linalg.vector_norm(gradient, dim=inputs, keepdim=True).square_()
    if is_sharded(parameter):
        whole = sums.new_zeros(_shape_of_rows(parameter, partition))
        _own_rows(whole, parameter, inputs).copy_(sums)
        sums = sum_over_parts_(whole, parameter)
    rows = sums.div_(parameter.numel() // max(1, sums.numel()))
    rules = partition.partition("@")[0]
    if "head" not in rules:
        return rows
    parts = rows.flatten().chunk(rules.count("+") + 1)
    shared = (
        part.view(-1, head_dim).mean(1).repeat_interleave(head_dim) if rule == "head" else part
        for rule, part in zip(rules.split("+"), parts, strict=True)
    )
    return torch.cat(list(shared)).view_as(rows)


def _own_blocks(values: Tensor, parameter: Tensor, partition: str) -> Tensor:
    """Return what broadcasts against this rank's part, from one value per block."""
    if "@" not in partition or not is_sharded(parameter):
        return values
    return _own_rows(values, parameter, _input_dims(parameter, partition))


def _own_rows(whole: Tensor, parameter: Tensor, inputs: list[int]) -> Tensor:
    """Return a view of the rows of this rank's part."""
    sizes, firsts = local(parameter).shape, first_indices(parameter)
    for dim, (first, size) in enumerate(zip(firsts, sizes, strict=True)):
        if dim not in inputs:
            whole = whole.narrow(dim, first, size)
    return whole


def _check(name: str, parameter: Tensor, partition: str, head_dim: int) -> None:
    if not partition.startswith("head"):
        return
    rules, _, output_dim = partition.partition("@")
    rows = parameter.shape[int(output_dim)] // (rules.count("+") + 1)
    if rows % head_dim:
        raise ValueError(
            f"head_dim={head_dim}: {name!r} has {rows} rows for its heads, not a multiple of it"
        )
