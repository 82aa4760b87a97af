"""Planners in which a language model can only select items of the catalogue."""

from typing import Literal

import torch
from torch import Tensor

from lightning_plugins.litmodels.recommendation.language.chat_model import ChatModel
from lightning_plugins.litmodels.recommendation.language.local_model import LocalModel
from lightning_plugins.litmodels.recommendation.language.prompts import (
    choice_request,
    one_line,
    path_request,
)
from lightning_plugins.litmodels.recommendation.language.replies import PlanReport, chosen_number
from lightning_plugins.litmodels.recommendation.language.title_trie import TitleTrie
from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
    best_allowed,
)
from lightning_plugins.nn.recommendation import Catalogue


class LanguageModelChoice(Planner):
    """At each step, the model selects from a numbered list of the backbone's best items.

    The most likely item has number 1. A model that always replies 1, or whose replies cannot be
    parsed, is therefore equivalent to ``NextItem``. ``report`` counts the invalid replies.

    This planner is our own, a practical form of LLM-IPP: the model's choice is always a catalogue
    item.

    Args:
        model: A language model such as ``ChatServer`` or ``LocalModel``.
        shortlist: Number of the backbone's best items to select from.
        on_invalid: How to handle a reply without a valid number: ``fallback`` takes number 1,
            ``raise`` raises an error.

    Raises:
        ValueError: An argument is out of range; with ``raise``, a reply has no valid number.
    """

    report: PlanReport

    def __init__(
        self,
        model: ChatModel,
        shortlist: int = 20,
        on_invalid: Literal["fallback", "raise"] = "fallback",
    ) -> None:
        if shortlist < 1:
            raise ValueError(f"shortlist={shortlist}: expected at least 1")
        if on_invalid not in ("fallback", "raise"):
            raise ValueError(f"on_invalid={on_invalid!r}: expected 'fallback' or 'raise'")
        self.model = model
        self.shortlist = shortlist
        self.on_invalid = on_invalid
        self.report = PlanReport()

    def begin(self, seed: int) -> None:
        """Reset, with randomness from ``seed``."""
        self._seed = seed

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return the backbone's logits, with infinity for the chosen item."""
        network = knowledge.backbone
        logits = network.logits(sessions.states(network)).cpu()
        ranked = logits.masked_fill(~sessions.allowed, -torch.inf)
        best = ranked.topk(min(self.shortlist, ranked.shape[1]), dim=1)
        lists = [
            items[values > -torch.inf].tolist()
            for items, values in zip(best.indices, best.values, strict=True)
        ]
        asked = [user for user, listed in enumerate(lists) if listed]
        targets = sessions.targets.tolist()
        conversations = [
            choice_request(knowledge.catalogue, sessions.taken[user], targets[user], lists[user])
            for user in asked
        ]
        replies = self.model.complete(conversations, seed=self._seed + sessions.step)
        for user, reply in zip(asked, replies, strict=True):
            listed = lists[user]
            number = chosen_number(reply.text, len(listed))
            self.report.note("choices")
            sessions.usage[user] = sessions.usage[user].plus(reply.usage)
            if number is None:
                if self.on_invalid == "raise":
                    raise ValueError(
                        f"the reply for user {user} of this batch has no valid list number: "
                        f"{reply.failure or repr(reply.text[:80])}; on_invalid='fallback' takes "
                        "number 1 instead"
                    )
                self.report.note("request failed" if reply.failure else "no choice")
                sessions.problems[user] = reply.failure or sessions.problems[user]
            logits[user, listed[(number or 1) - 1]] = torch.inf
        return logits


class LanguageModelScore(Planner):
    """Selects the title that the model most likely writes next, among the backbone's best items.

    The score of a title is the mean log-probability of its tokens after the history, the target,
    and the path so far. The mean avoids a penalty on long titles.

    This planner is our own; the prompt has the structure of Wang et al., arXiv 2409.04827.

    Args:
        model: A language model in this process.
        shortlist: Number of the backbone's best items to select from.

    Raises:
        ValueError: ``shortlist`` is below 1.
    """

    def __init__(self, model: LocalModel, shortlist: int = 20) -> None:
        if shortlist < 1:
            raise ValueError(f"shortlist={shortlist}: expected at least 1")
        self.model = model
        self.shortlist = shortlist

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return the scores of the shortlist, minus infinity for all other items."""
        catalogue, network = knowledge.catalogue, knowledge.backbone
        logits = network.logits(sessions.states(network)).cpu()
        listed = best_allowed(logits, sessions.allowed, self.shortlist)
        prompts, titles, numbers = [], [], []
        users = listed.any(dim=1).nonzero()[:, 0].tolist()
        for user in users:
            target = int(sessions.targets[user])
            history, path = sessions.history(user), sessions.paths[user]
            messages = path_request(catalogue, history, target, sessions.length)
            written = "".join(self.model.line(one_line(catalogue[item])) for item in path)
            prompts.append(self.model.prompt(messages) + written)
            numbers.append(listed[user].nonzero()[:, 0])
            titles.append([one_line(catalogue[int(item)]) for item in numbers[-1]])
        preferences = torch.full(sessions.allowed.shape, -torch.inf)
        scores = self.model.title_log_probs(prompts, titles)
        for user, items, of_items in zip(users, numbers, scores, strict=True):
            preferences[user, items] = of_items
        return preferences


class LanguageModelTrie(Planner):
    """The model writes the whole path, one title per line, constrained to the catalogue's titles.

    Every token is part of an item that may be recommended, so no reply has to be parsed, repaired
    or counted, however poor the model is. The whole path is planned at the first step.

    This planner is our own; the prompt has the structure of Wang et al., arXiv 2409.04827.

    Args:
        model: A language model in this process. Servers do not support this constrained decoding.
    """

    def __init__(self, model: LocalModel) -> None:
        self.model = model
        self._trie: tuple[Catalogue, TitleTrie] | None = None

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return 0 for the next item of each plan, minus infinity for all other items."""
        if sessions.step == 0:
            self._plans = self._planned(sessions, knowledge.catalogue)
        preferences = torch.full(sessions.allowed.shape, -torch.inf)
        for row, plan in zip(preferences, self._plans, strict=True):
            row[plan[sessions.step : sessions.step + 1]] = 0
        return preferences

    def _planned(self, sessions: Sessions, catalogue: Catalogue) -> list[list[int]]:
        if self._trie is None or self._trie[0] is not catalogue:
            titles = [one_line(item) for item in list(catalogue)[1:]]
            self._trie = catalogue, self.model.trie(titles)
        prompts = [
            self.model.prompt(path_request(catalogue, history, target, sessions.length))
            for history, target in zip(sessions.taken, sessions.targets.tolist(), strict=True)
        ]
        return self.model.paths(prompts, self._trie[1], sessions.allowed, sessions.length)
