"""Memory of a training step of the change captioner by part, and its check by a measured step.

The table is computed on the meta device. With ``--measure`` a step of the tiny network with 152,000
tokens is also run and profiled on the CPU, in float32 and with the same batch.

usage: python benchmarks/captioning_memory.py [--measure]
"""

import sys

import torch
from torch.profiler import ProfilerActivity, profile

from lightning_plugins.litmodels.change_captioning.network import build_network
from lightning_plugins.litmodels.change_captioning.training_memory import (
    TrainingMemory,
    training_memory,
)

_GIB = 2**30
_VOCAB, _PAIRS, _TEXT, _ANSWER, _TARGETS = 152_000, 4, 57, 15, 26


def total(memory: dict[str, TrainingMemory]) -> TrainingMemory:
    """Return the sum over all parts."""
    return sum(memory.values(), TrainingMemory())


def table() -> None:
    """Print the table of the card."""
    print("| size | training | part | weights | gradients | AdamW | activations | sum |")
    print("|---|---|---|---|---|---|---|---|")
    for size in ("0.5b", "7b"):
        for sharding in ("ddp", "fsdp2", "lora"):
            memory = training_memory(size, sharding)
            for name, one in (*memory.items(), ("**all**", total(memory))):
                cells = one.weights, one.gradients, one.optimizer, one.activations, one.total
                row = " | ".join(f"{value / _GIB:.2f}" for value in cells)
                print(f"| {size} | {sharding} | {name} | {row} |")


def measured_peak() -> int:
    """Return the peak bytes that torch allocates in the second step of the tiny network."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        network = build_network("tiny", vocab_size=_VOCAB).train()
        network.gradient_checkpointing_enable({"use_reentrant": False})
        optimizer = torch.optim.AdamW(network.parameters(), foreach=False)
        tokens = [5, *[3] * 16, 6, *[3] * 16, *[7] * (_TEXT - 2 + _ANSWER)]
        ids = torch.tensor([tokens] * _PAIRS)
        labels = ids.clone()
        labels[:, :-_TARGETS] = -100
        for _ in range(2):
            optimizer.zero_grad(set_to_none=False)
            pixels = torch.rand(_PAIRS, 2, 3, 64, 64)
            network(input_ids=ids, pixel_values=pixels, labels=labels).loss.backward()
            optimizer.step()
    held = peak = 0
    pending = list(found.profiler.kineto_results.experimental_event_tree())
    sizes = []
    while pending:
        event = pending.pop()
        pending += event.children
        if (fields := getattr(event, "extra_fields", None)) is not None and hasattr(
            fields, "alloc_size"
        ):
            sizes.append((event.start_time_ns, fields.alloc_size))
    for _, change in sorted(sizes, key=lambda one: one[0]):
        held += change
        peak = max(peak, held)
    return peak


if __name__ == "__main__":
    table()
    if "--measure" in sys.argv:
        memory = training_memory(
            "tiny", "ddp", batch_size=_PAIRS, answer_tokens=_ANSWER, targets=_TARGETS,
            vocab_size=_VOCAB, dtype=torch.float32,
        )  # fmt: skip
        whole = total(memory)
        computed = whole.total - whole.optimizer // 2  # one process has no buckets
        print(
            f"tiny, computed {computed / 2**20:.1f} MiB, measured {measured_peak() / 2**20:.1f} MiB"
        )
