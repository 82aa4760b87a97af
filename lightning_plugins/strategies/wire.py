"""Formats of exchanged tensors: the weights' own dtype, bfloat16, or int8 in blocks."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

WireName = Literal["weights", "bfloat16", "int8"]
_BLOCK = 256


class Wire:
    """Converts flat tensors to the format in which agents exchange them, and back.

    - ``weights``: the dtype of the weights.
    - ``bfloat16``: 2 bytes per value.
    - ``int8``: 1 byte per value and a float32 scale per block of 256 values. What rounding removes
      is added to the next transfer (error feedback: Seide et al., 1-Bit Stochastic Gradient
      Descent, Interspeech 2014; Karimireddy et al., arXiv 1901.09847).

    Args:
        name: One of the formats.
    """

    def __init__(self, name: WireName = "weights") -> None:
        self.name = name

    @property
    def rounds(self) -> bool:
        """Whether the format may be narrower than the weights."""
        return self.name != "weights"

    @property
    def has_feedback(self) -> bool:
        """Whether the rest of rounding is kept for the next transfer."""
        return self.name == "int8"

    def encode(self, values: Tensor) -> Tensor:
        """Return what is sent for ``values`` ``(numel,)``."""
        if self.name == "bfloat16":
            return values.to(torch.bfloat16)
        if self.name == "int8":
            return _to_int8(values)
        return values

    def decode(self, encoded: Tensor, like: Tensor) -> Tensor:
        """Return the received values ``(numel,)``, in at least float32; ``like`` has the size."""
        wide = torch.promote_types(like.dtype, torch.float32)
        if self.name == "int8":
            return _from_int8(encoded, len(like)).to(wide)
        return encoded.to(wide)

    def nbytes(self, flat: Tensor) -> int:
        """Size in bytes of :meth:`encode` of ``flat``."""
        if self.name == "int8":
            return len(flat) + 4 * -(-len(flat) // _BLOCK)
        return len(flat) * (2 if self.name == "bfloat16" else flat.element_size())


def _to_int8(values: Tensor) -> Tensor:
    blocks = pad(values.float(), (0, -len(values) % _BLOCK)).view(-1, _BLOCK)
    scales = blocks.abs().amax(1) / 127
    divisors = torch.where(scales > 0, scales, torch.ones_like(scales))
    # NaN and infinity are not integers; the scale carries them.
    whole = torch.nan_to_num(blocks / divisors[:, None], 0, 0, 0).round().clamp(-127, 127)
    packed = whole.to(torch.int8).reshape(-1)[: len(values)]
    return torch.cat([scales.view(torch.int8), packed])


def _from_int8(encoded: Tensor, numel: int) -> Tensor:
    count = -(-numel // _BLOCK)
    scales = encoded[: 4 * count].clone().view(torch.float32)
    whole = pad(encoded[4 * count :].float(), (0, -numel % _BLOCK)).view(-1, _BLOCK)
    return (whole * scales[:, None]).reshape(-1)[:numel]


class ErrorFeedback:
    """The rest of each rounding, which the next transfer includes.

    The rests are forgotten when the layout of the transferred tensors changes.
    """

    def __init__(self) -> None:
        self.rests: dict[str, Tensor] = {}

    def add_to(self, key: str, values: Tensor) -> Tensor:
        """Return ``values`` with the rest of the last transfer of ``key``."""
        rest = self.rests.get(key)
        if rest is None or rest.shape != values.shape or rest.dtype != values.dtype:
            return values
        return values + rest

    def keep(self, key: str, values: Tensor, sent: Tensor) -> None:
        """Keep what rounding removed from ``values`` when ``sent`` was sent."""
        self.rests[key] = values - sent.to(values.dtype)


def encoded_mean(
    rows: Tensor, wire: Wire, feedback: ErrorFeedback, key: str
) -> tuple[Tensor, Tensor]:
    """Compute ``Peers.average_encoded`` for all agents in one process.

    Args:
        rows: The agents' values ``(agents, numel)``.
        wire: The format of the transfer.
        feedback: Holds the rests of rounding the means.
        key: Name of ``rows`` in ``feedback``.

    Returns:
        The mean of what the agents sent ``(numel,)``, and what they sent ``(agents, numel)``.
    """
    means, all_sent = [], []
    for place, parts in enumerate(torch.tensor_split(rows, len(rows), dim=1)):
        sent = torch.stack([wire.decode(wire.encode(part), part) for part in parts])
        mean = sent[0]
        for one in sent[1:]:
            mean = mean + one
        mean = mean / len(rows)
        if wire.has_feedback:
            mean = feedback.add_to(f"{key} of {place}", mean)
        mean_as_sent = wire.decode(wire.encode(mean), mean)
        if wire.has_feedback:
            feedback.keep(f"{key} of {place}", mean, mean_as_sent)
        means.append(mean_as_sent)
        all_sent.append(sent)
    return torch.cat(means), torch.cat(all_sent, 1)


def shares(flat: Tensor, count: int) -> Sequence[Tensor]:
    """Split ``flat`` into one contiguous part per agent, which that agent averages."""
    return torch.tensor_split(flat, count)
