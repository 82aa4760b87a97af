"""Reference implementation of Sharpness-Aware Minimization, without Lightning."""

import torch
from torch.nn.functional import cross_entropy


def train_with_reference_sam(
    network,
    optimizer,
    batches,
    active,
    *,
    rho=0.1,
    mode="sam",
    accumulate=1,
    micro_batches=False,
    chosen=None,
    clip=None,
    schedule=None,
    epochs=2,
    seed=11,
    resets=(),
    scale=1.0,
):
    """Train ``network`` in place.

    Args:
        batches: Callable that returns an epoch's batches of (features, labels).
        active: ``active(step)`` returns whether an optimizer step is a SAM step.
        rho: A number, or a callable ``rho(step)``.
        chosen: ``chosen(name)`` returns whether a parameter is perturbed.
        resets: Steps before which the optimizer's state is cleared.
        scale: Loss scale, removed before clipping.
    """
    parameters = [p for name, p in network.named_parameters() if chosen is None or chosen(name)]
    torch.manual_seed(seed)
    step = 0
    for _ in range(epochs):
        window = []
        epoch_batches = list(batches())
        for index, batch in enumerate(epoch_batches):
            ends_window = (index + 1) % accumulate == 0 or index + 1 == len(epoch_batches)
            radius = rho(step) if callable(rho) else rho
            alone = micro_batches and active(step)
            so_far = gradients_of(network) if alone else None
            if alone:
                network.zero_grad()
            before = torch.get_rng_state()
            loss_of(network, batch, scale / accumulate).backward()
            window.append((batch, before))
            if active(step) and (alone or ends_window):
                repeated = window[-1:] if alone else window
                with perturbed_weights(network, parameters, radius, mode, scale):
                    set_gradients(network, so_far)
                    for again, random_state in repeated:
                        torch.set_rng_state(random_state)
                        loss_of(network, again, scale / accumulate).backward()
            if not ends_window:
                continue
            for parameter in network.parameters():
                if parameter.grad is not None:
                    parameter.grad /= scale
            if clip == "norm":
                torch.nn.utils.clip_grad_norm_(network.parameters(), 0.1)
            elif clip == "value":
                torch.nn.utils.clip_grad_value_(network.parameters(), 0.1)
            if step in resets:
                optimizer.state.clear()
            optimizer.step()
            optimizer.zero_grad()
            if schedule:
                schedule.step()
            step += 1
            window = []
    return network


class perturbed_weights:
    """Perturbs the weights; restores weights, buffers and the random state on exit."""

    def __init__(self, network, parameters, rho, mode, scale):
        self.network, self.rho, self.mode, self.scale = network, rho, mode, scale
        self.parameters = [p for p in parameters if p.grad is not None]

    def __enter__(self):
        self.random_state = torch.get_rng_state()
        self.buffers = [buffer.clone() for buffer in self.network.buffers()]
        self.originals = [p.detach().clone() for p in self.parameters]
        gradients = [p.grad.clone() for p in self.parameters]
        sizes = [w.abs() for w in self.originals]
        if self.mode == "asam":
            gradients = [g * size for g, size in zip(gradients, sizes, strict=True)]
        norm = torch.stack([g.norm() for g in gradients]).norm()
        factor = self.rho / self.scale if self.mode == "usam" else self.rho / (norm + 1e-12)
        with torch.no_grad():
            for p, gradient, size in zip(self.parameters, gradients, sizes, strict=True):
                direction = gradient * size if self.mode == "asam" else gradient
                p += direction * factor

    def __exit__(self, *_):
        with torch.no_grad():
            for p, original in zip(self.parameters, self.originals, strict=True):
                p.copy_(original)
            for buffer, value in zip(self.network.buffers(), self.buffers, strict=True):
                buffer.copy_(value)
        torch.set_rng_state(self.random_state)


def loss_of(network, batch, factor):
    features, labels = batch
    return cross_entropy(network(features), labels) * factor


def gradients_of(network):
    return [None if p.grad is None else p.grad.clone() for p in network.parameters()]


def set_gradients(network, gradients):
    gradients = gradients or [None] * len(list(network.parameters()))
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient
