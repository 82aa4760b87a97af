"""Measures memory and CPU time of a training step of SASRec on a large synthetic catalogue.

usage: python benchmarks/large_catalogue.py [--items 100000] [--negatives 1000] [--batch 128]

One thread; random windows of 51 items; AdamW. ``--negatives 0`` uses the full softmax. Prints the
peak memory of the process, and the median CPU time of a step.
"""

import argparse
import os
import resource
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from lightning_plugins.nn.recommendation import SASRec

STEPS = 7


def main() -> None:
    """Measure and print one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--negatives", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = SASRec(arguments.items, dim=64, layers=2, heads=2, max_length=50)
    network.negatives = arguments.negatives or None
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    seconds = []
    for _ in range(STEPS):
        windows = torch.randint(1, arguments.items + 1, (arguments.batch, 51))
        start = time.process_time()
        optimizer.zero_grad()
        loss = network.loss(windows)
        loss.backward()
        optimizer.step()
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    kind = f"{arguments.negatives} negatives" if arguments.negatives else "full softmax"
    print(
        f"{arguments.items} items, {kind}, batch {arguments.batch}: "
        f"{statistics.median(seconds[1:]):.2f} s of CPU time a step, peak memory {peak:.2f} GiB, "
        f"loss {loss.item():.2f}"
    )


if __name__ == "__main__":
    main()
