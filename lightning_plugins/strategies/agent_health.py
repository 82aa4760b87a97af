"""Agents that cannot take part: weights that are not finite, or a model of another shape."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_plugins.strategies.communicated_tensors import are_finite
from lightning_plugins.strategies.peers import Peers

_REASONS = {1: "weights that are not finite", 2: "a model of another shape"}


def drop_failed_agents(peers: Peers, flats: Sequence[Tensor], fingerprint: int) -> None:
    """Drop agents whose weights are not finite or not of the common shape, on all agents.

    Args:
        peers: The agents.
        flats: This agent's weights.
        fingerprint: A hash of their names, shapes and dtypes.
    """
    own = torch.tensor([int(are_finite(flats)), fingerprint], device=flats[0].device)
    gathered = peers.gather(own)  # may drop agents, so it comes before reading peers.agents
    reports = [(bool(part[0]), int(part[1])) for part in gathered]
    _drop(peers, reports, flats[0].device)


def drop_agents_of_other_shapes(peers: Peers, fingerprint: int, device: torch.device) -> None:
    """Drop agents whose ``fingerprint`` is not the common one."""
    gathered = peers.gather(torch.tensor([fingerprint], device=device), "start")
    _drop(peers, [(True, int(part)) for part in gathered], device)


def _drop(peers: Peers, reports: Sequence[tuple[bool, int]], device: torch.device) -> None:
    shapes = [shape for _, shape in reports]
    common = max(shapes, key=shapes.count)
    codes = [0 if finite and shape == common else 2 if finite else 1 for finite, shape in reports]
    # A process of an agent may see what its others do not.
    of_agent = peers.any_in_agent(torch.tensor(codes, device=device)).tolist()
    failed = {
        agent: _REASONS[code] for agent, code in zip(peers.agents, of_agent, strict=True) if code
    }
    if failed:
        peers.drop(failed)
