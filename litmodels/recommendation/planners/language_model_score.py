"""A language model that says how well each title would go on with the path."""

import torch
from torch import Tensor

from lightning_plugins.litmodels.recommendation.language.local_model import LocalModel
from lightning_plugins.litmodels.recommendation.language.prompts import one_line, path_request
from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
    best_allowed,
)


class LanguageModelScore(Planner):
    """Of the backbone's best items the title that the model finds likeliest to be written next.

    A title's score is the mean log-probability of its tokens after the history, the target, and the
    path so far, so that long titles do not lose by their length.

    Ours; the prompt has the structure of Wang et al., arXiv 2409.04827.

    Args:
        model: a model in this process.
        shortlist: items of the backbone to choose among.

    Raises:
        ValueError: ``shortlist`` below 1.
    """

    def __init__(self, model: LocalModel, shortlist: int = 20) -> None:
        if shortlist < 1:
            raise ValueError(f"shortlist={shortlist}: expected at least 1")
        self.model = model
        self.shortlist = shortlist

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """The scores of the shortlist, minus infinity for all others."""
        catalogue, network = knowledge.catalogue, knowledge.backbone
        logits = network.logits(sessions.states(network)).cpu()
        listed = best_allowed(logits, sessions.allowed, self.shortlist)
        prompts, titles, numbers = [], [], []
        for user, target in enumerate(sessions.targets.tolist()):
            history, path = sessions.history(user), sessions.paths[user]
            messages = path_request(catalogue, history, target, sessions.length)
            written = "".join(self.model.line(one_line(catalogue[item])) for item in path)
            prompts.append(self.model.prompt(messages) + written)
            numbers.append(listed[user].nonzero()[:, 0])
            titles.append([one_line(catalogue[int(item)]) for item in numbers[-1]])
        wanted = torch.full(sessions.allowed.shape, -torch.inf)
        scores = self.model.title_log_probs(prompts, titles)
        for row, items, of_items in zip(wanted, numbers, scores, strict=True):
            row[items] = of_items
        return wanted
