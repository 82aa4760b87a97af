"""Gathers tensors and plain data from all processes, without unpickling objects of theirs."""

import io
from typing import Any

import torch
from torch import distributed


def all_gather_plain(value: Any) -> list[Any]:
    """Return the ``value`` of every process of the default group, by rank.

    Every process must call it. Unlike ``torch.distributed.all_gather_object``, it reads tensors,
    numbers, strings, lists and dictionaries only, so a process cannot make another run code.

    Raises:
        pickle.UnpicklingError: Another process sent something else.
    """
    content = io.BytesIO()
    torch.save(value, content)
    is_nccl = distributed.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if is_nccl else torch.device("cpu")
    own = torch.frombuffer(bytearray(content.getvalue()), dtype=torch.uint8).to(device)
    world_size = distributed.get_world_size()
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world_size)]
    distributed.all_gather(sizes, torch.tensor([len(own)], device=device))
    longest = max(int(size) for size in sizes)
    padded = torch.zeros(longest, dtype=torch.uint8, device=device)
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in range(world_size)]
    distributed.all_gather(parts, padded)
    return [
        torch.load(
            io.BytesIO(part[: int(size)].cpu().numpy().tobytes()),
            map_location="cpu",
            weights_only=True,
        )
        for part, size in zip(parts, sizes, strict=True)
    ]
