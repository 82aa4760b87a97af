"""Which experts a token goes to, and with what weight."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

GateWeighting = Literal["softmax_all", "softmax_topk"]
GATE_WEIGHTINGS = ("softmax_all", "softmax_topk")


@dataclass(frozen=True)
class Routing:
    """Where a gate sends tokens.

    Attributes:
        logits: the gate's scores ``(tokens, num_experts)``.
        experts: the selected experts, best first, int64 ``(tokens, top_k)``.
        weights: of their outputs in the sum, ``(tokens, top_k)``.
    """

    logits: Tensor
    experts: Tensor
    weights: Tensor

    @property
    def scores(self) -> Tensor:
        """The logits, in single precision at least."""
        return at_least_single(self.logits)

    @property
    def num_experts(self) -> int:
        """Experts that the gate chooses from."""
        return self.logits.shape[-1]


def route(logits: Tensor, top_k: int, gate_weighting: GateWeighting) -> Routing:
    """Select the ``top_k`` experts with the largest scores, and weigh them.

    ``softmax_all`` weighs by the softmax over all experts, so that the weights sum to less than 1
    and one selected expert still gives the gate a gradient (Fedus et al., Switch Transformers,
    arXiv 2101.03961, section 2.1). ``softmax_topk`` weighs by the softmax over the selected ones
    (Shazeer et al., arXiv 1701.06538, equations 3 to 5; Wang and E, arXiv 2505.24205, section 3);
    with ``top_k=1`` that weight is the constant 1.

    Args:
        logits: ``(tokens, num_experts)``.
        top_k: experts a token.
        gate_weighting: as above.
    """
    # A softmax in half precision moves the choice between experts.
    scores = at_least_single(logits)
    best, experts = scores.topk(top_k, dim=-1)
    if gate_weighting == "softmax_topk":
        weights = best.softmax(dim=-1)
    else:
        weights = scores.softmax(dim=-1).gather(-1, experts)
    return Routing(logits, experts, weights)


def at_least_single(tensor: Tensor) -> Tensor:
    """``tensor``, or what is in half precision in single."""
    return tensor if tensor.dtype.itemsize >= 4 else tensor.float()
