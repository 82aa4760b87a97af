"""Reference implementation of adversarial training for the ``task`` fixture's classifier."""

import math

import torch
from torch.nn.functional import cross_entropy

from lightning_plugins.attacks.image import fgsm, pgd
from lightning_plugins.callbacks import LateAdversarialTraining

# The features of the task are not pixels, so they are not clamped.
EVERYWHERE = (-math.inf, math.inf)


def late(start=0.5, **arguments):
    return LateAdversarialTraining(**{"start": start, "eps": 0.2, "clamp": EVERYWHERE, **arguments})


def reference_attack(network, features, labels, attack="pgd", **options):
    modes = [module.training for module in network.modules()]
    network.eval()
    search = {"pgd": pgd, "fgsm": fgsm}[attack]
    found = search(
        lambda x: cross_entropy(network(x), labels), features, 0.2, clamp=EVERYWHERE, **options
    )
    for module, mode in zip(network.modules(), modes, strict=True):
        module.training = mode
    return found


def by_hand(task, active, epochs=2, accumulate=1, seed=11, **options):
    """Train on batches that are attacked first if ``active(step)``; return the state dict."""
    network = task.network()
    optimizer = task.sgd(network.parameters())
    torch.manual_seed(seed)
    step, window = 0, 0
    for _ in range(epochs):
        optimizer.zero_grad()
        for number, (features, labels) in enumerate(task.batches()):
            if active(step):
                features = reference_attack(network, features, labels, **options)
            (cross_entropy(network(features), labels) / accumulate).backward()
            window += 1
            if window == accumulate or number == task.steps_an_epoch - 1:
                optimizer.step()
                optimizer.zero_grad()
                step, window = step + 1, 0
    return network.state_dict()
