"""How far a path of recommendations moved a user towards its target."""

from torch import Tensor


def increase_of_interest(log_prob_before: Tensor, log_prob_after: Tensor) -> Tensor:
    r"""IoI in nats: :math:`\log P(t \mid h \oplus p) - \log P(t \mid h)`; above 0 is nearer.

    The probabilities come from an evaluator other than the planner. Even random paths gain, since
    a random target is unlikely before: compare with them.

    Source: Zhu et al., Influential Recommender System, arXiv 2211.10002, section IV-B.

    Args:
        log_prob_before: log-probability of the target after the history h, ``(paths,)``.
        log_prob_after: the same after the history and the path p, ``(paths,)``.
    """
    return log_prob_after - log_prob_before


def increment_of_rank(rank_before: Tensor, rank_after: Tensor) -> Tensor:
    r"""IoR in places: :math:`R(t \mid h) - R(t \mid h \oplus p)`; above 0 is nearer to the top.

    Source: Zhu et al., arXiv 2211.10002, section IV-B, with the sign under which more is better.

    Args:
        rank_before: place of the target after the history, 1 is best, ``(paths,)``.
        rank_after: the same after history and path.
    """
    return (rank_before - rank_after).float()
