"""A language model that can write nothing but titles of the catalogue."""

import torch
from torch import Tensor

from lightning_plugins.litmodels.recommendation.language.local_model import LocalModel
from lightning_plugins.litmodels.recommendation.language.prompts import one_line, path_request
from lightning_plugins.litmodels.recommendation.language.title_trie import TitleTrie
from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
)
from lightning_plugins.nn.recommendation import Catalogue


class LanguageModelTrie(Planner):
    """The model writes the whole path, a title a line, decoded over the catalogue's titles.

    Every token leads to an item that may be recommended, so that nothing has to be grounded,
    repaired or counted, whatever the model is worth. The path is fixed when it is planned.

    Ours; the prompt has the structure of Wang et al., arXiv 2409.04827.

    Args:
        model: a model in this process: a server does not let its decoding be constrained so.
    """

    def __init__(self, model: LocalModel) -> None:
        self.model = model
        self._trie: tuple[Catalogue, TitleTrie] | None = None

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """The next item of each plan before all others."""
        if sessions.step == 0:
            self._plans = self._planned(sessions, knowledge.catalogue)
        wanted = torch.full(sessions.allowed.shape, -torch.inf)
        for row, plan in zip(wanted, self._plans, strict=True):
            row[plan[sessions.step : sessions.step + 1]] = 0
        return wanted

    def _planned(self, sessions: Sessions, catalogue: Catalogue) -> list[list[int]]:
        if self._trie is None or self._trie[0] is not catalogue:
            titles = [one_line(item) for item in list(catalogue)[1:]]
            self._trie = catalogue, self.model.trie(titles)
        prompts = [
            self.model.prompt(path_request(catalogue, history, target, sessions.length))
            for history, target in zip(sessions.taken, sessions.targets.tolist(), strict=True)
        ]
        return self.model.paths(prompts, self._trie[1], sessions.allowed, sessions.length)
