"""A language model chooses from a numbered list."""

import re
from typing import Literal

import torch
from torch import Tensor

from lightning_plugins.litmodels.recommendation.language.plan_report import PlanReport
from lightning_plugins.litmodels.recommendation.language.prompts import choice_request
from lightning_plugins.litmodels.recommendation.language.replies import without_thoughts
from lightning_plugins.litmodels.recommendation.planners.language_model import ChatModel
from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
)

_LEADING = re.compile(r"\W*(\d{1,4})\s*(?:[.):*]+(?!\d)|\Z)")
_NUMBER = re.compile(r"(?<![\d.,-])\d{1,4}(?![\d]|[.,]\d)")


class LanguageModelChoice(Planner):
    """At each step the model sees the backbone's best items with numbers, and names one.

    The likeliest item has number 1, so that a model that always says 1 is ``NextItem``, and so is
    one whose replies cannot be read. ``report`` counts those.

    Ours, the practical form of LLM-IPP: what the model names is always an item of the catalogue.

    Args:
        model: what answers, such as ``ChatServer`` or ``LocalModel``.
        shortlist: items of the backbone to choose among.
        on_invalid: what to do with a reply that names no number of the list: ``fallback`` takes
            number 1, ``raise`` ends with an error.

    Raises:
        ValueError: an argument outside its range; with ``raise``, in planning.
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
        """Start over, with randomness from ``seed``."""
        self._seed = seed

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """The chosen item before all others, which the backbone orders."""
        network = knowledge.backbone
        logits = network.logits(sessions.states(network)).cpu()
        ranked = logits.masked_fill(~sessions.allowed, -torch.inf)
        best = ranked.topk(min(self.shortlist, ranked.shape[1]), dim=1)
        lists = [
            items[values > -torch.inf].tolist()
            for items, values in zip(best.indices, best.values, strict=True)
        ]
        talks = [
            choice_request(knowledge.catalogue, history, target, listed)
            for history, target, listed in zip(
                sessions.taken, sessions.targets.tolist(), lists, strict=True
            )
        ]
        replies = self.model.complete(talks, seed=self._seed + sessions.step)
        for user, (reply, listed) in enumerate(zip(replies, lists, strict=True)):
            number = chosen_number(reply.text, len(listed))
            self.report.note("choices")
            if number is None:
                if self.on_invalid == "raise":
                    raise ValueError(
                        f"the reply for user {user} of this batch names no number of the list: "
                        f"{reply.text[:80]!r}"
                    )
                self.report.note("no choice")
            logits[user, listed[(number or 1) - 1]] = torch.inf
        return logits


def chosen_number(reply: str, highest: int) -> int | None:
    """The number from 1 to ``highest`` that a reply names, or None if it names none or several."""
    text = without_thoughts(reply)
    leading = _LEADING.match(text)  # what follows may be a title with numbers of its own
    found = [leading[1]] if leading and text[0] != "-" else _NUMBER.findall(text)
    inside = {int(number) for number in found if 1 <= int(number) <= highest}
    return inside.pop() if len(inside) == 1 else None
