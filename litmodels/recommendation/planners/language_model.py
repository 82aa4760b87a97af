"""A planner in which a language model writes the whole path as free text."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lightning_plugins.litmodels.recommendation.language.chat_model import (
    ChatModel,
    Messages,
    Reply,
)
from lightning_plugins.litmodels.recommendation.language.prompts import (
    CORRECTION,
    LIST_REQUEST,
    LIST_SCHEMA,
    PromptStyle,
    plan_request,
)
from lightning_plugins.litmodels.recommendation.language.replies import PlanReport, listed_titles
from lightning_plugins.litmodels.recommendation.language.title_index import TitleIndex
from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
)
from lightning_plugins.litmodels.recommendation.planners.target_directed import TextBridge

OnInvalid = Literal["repair", "retry", "fallback", "raise"]
_MAX_QUOTED_CHARACTERS = 20_000
_PROBLEM_TEXTS = {
    "empty": "the reply is empty",
    "refused": "the reply refuses",
    "truncated": "the reply was cut off",
    "no list": "the reply has no list of titles",
}


class LanguageModel(Planner):
    """LLM-IPP: the model reasons about a path in a first turn and lists it in a second turn.

    The model writes one sample per user, and no user is left out. The paper's scores are the best
    of several samples and exclude some users. A title is accepted if it is a catalogue item that
    may be recommended. The measures append the target to the path, whether the model named it or
    not. The whole path is planned at the first step; rejections in a closed loop do not change it.
    ``report`` counts the outcome for each title.

    Source: Wang et al., Leveraging LLMs for Influence Path Planning in Proactive Recommendation,
    arXiv 2409.04827, with the structure of the authors' prompts.

    Args:
        model: A language model such as ``ChatServer``.
        style: ``plain``, ``chain_of_thought`` or ``tree_of_thought``.
        on_invalid: How to handle a plan with too few valid items. ``repair`` keeps the valid items,
            and ``fallback`` chooses the others. ``retry`` first requests a correction, with the
            reason, up to ``max_corrections`` times. ``fallback`` discards the plan. ``raise``
            raises an error.
        max_corrections: Maximum number of corrections per plan, for ``retry``.
        fallback: Planner that chooses the missing items; None means ``TextBridge``.

    Raises:
        ValueError: An argument is out of range; with ``raise``, a plan is invalid.
    """

    report: PlanReport

    def __init__(
        self,
        model: ChatModel,
        style: PromptStyle = "plain",
        on_invalid: OnInvalid = "repair",
        max_corrections: int = 2,
        fallback: Planner | None = None,
    ) -> None:
        for name, value, allowed in (
            ("style", style, get_args(PromptStyle)),
            ("on_invalid", on_invalid, get_args(OnInvalid)),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r}: expected one of {', '.join(allowed)}")
        if max_corrections < 0:
            raise ValueError(f"max_corrections={max_corrections}: expected at least 0")
        self.model = model
        self.style = style
        self.on_invalid = on_invalid
        self.max_corrections = max_corrections if on_invalid == "retry" else 0
        self.fallback = TextBridge() if fallback is None else fallback
        self.report = PlanReport()
        self._titles: TitleIndex | None = None

    def begin(self, seed: int) -> None:
        """Reset, with randomness from ``seed``."""
        self._seed = seed
        self.fallback.begin(seed)

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return 0 for the next item of each plan; after its end, the fallback planner's scores."""
        if sessions.step == 0:
            self._plans = self._planned(sessions, knowledge)
        scores = self.fallback.preferences(sessions, knowledge).cpu().clone()
        for user, plan in enumerate(self._plans):
            if sessions.step < len(plan):
                scores[user] = -torch.inf
                scores[user, plan[sessions.step]] = 0
            else:
                self.report.note("refilled")
        return scores

    def _planned(self, sessions: Sessions, knowledge: Knowledge) -> list[list[int]]:
        if self._titles is None or self._titles.catalogue is not knowledge.catalogue:
            self._titles = TitleIndex(knowledge.catalogue)
        targets = sessions.targets.tolist()
        conversations = [
            plan_request(knowledge.catalogue, history, target, sessions.length, self.style)
            for history, target in zip(sessions.taken, targets, strict=True)
        ]
        self.report.note("plans", len(conversations))
        self._continue(conversations, range(len(conversations)))
        request = LIST_REQUEST.format(length=sessions.length)
        for conversation in conversations:
            conversation.append({"role": "user", "content": request})
        plans: list[list[int]] = [[] for _ in conversations]
        events = [PlanReport() for _ in conversations]
        asked = list(range(len(conversations)))
        for correction in range(self.max_corrections + 1):
            replies = self._continue(conversations, asked, LIST_SCHEMA)
            problems = {}
            for user, reply in zip(asked, replies, strict=True):
                events[user] = PlanReport()  # only the titles of the last reply are counted
                plans[user], problem = self._grounded(user, reply, sessions, events[user])
                if problem:
                    problems[user] = problem
            if self.on_invalid == "raise" and problems:
                user, problem = next(iter(problems.items()))
                raise ValueError(
                    f"the plan for user {user} of this batch is invalid: {problem}; "
                    "on_invalid='repair' lets the fallback planner complete it"
                )
            asked = list(problems)
            if correction == self.max_corrections or not asked:
                break
            for user, problem in problems.items():
                text = CORRECTION.format(problem=problem, length=sessions.length)
                conversations[user].append({"role": "user", "content": text})
            self.report.note("corrections", len(asked))
        for counted in events:
            self.report.update(counted)
        if self.on_invalid == "fallback":
            for user in asked:
                plans[user] = []
        return plans

    def _continue(
        self,
        conversations: list[Messages],
        users: Sequence[int],
        schema: dict[str, Any] | None = None,
    ) -> list[Reply]:
        """Request replies to the conversations of ``users``, and append them."""
        asked = [conversations[user] for user in users]
        replies = self.model.complete(asked, seed=self._seed, schema=schema)
        for user, reply in zip(users, replies, strict=True):
            quoted = reply.text[:_MAX_QUOTED_CHARACTERS]
            conversations[user].append({"role": "assistant", "content": quoted})
        return replies

    def _grounded(
        self, user: int, reply: Reply, sessions: Sessions, events: PlanReport
    ) -> tuple[list[int], str]:
        """Return the items of a reply that may be recommended, and its problem or ``""``."""
        assert self._titles is not None
        listed = listed_titles(reply.text, reply.is_truncated)
        if listed.problem:
            events.note(listed.problem)
        events.note("titles", len(listed.titles))
        items: list[int] = []
        for title in listed.titles:
            item = self._titles.find(title)
            if item is None:
                events.note("unknown")
            elif item == int(sessions.targets[user]):
                events.note("target named")
            elif item in items:
                events.note("repeated")
            elif not sessions.allowed[user, item]:
                events.note("in history")
            elif len(items) == sessions.length:
                events.note("beyond length")
            else:
                events.note("grounded")
                items.append(item)
        if len(items) == sessions.length:
            return items, ""
        if listed.problem:
            return items, _PROBLEM_TEXTS[listed.problem]
        return items, f"{len(items)} of {sessions.length} titles are new items of the catalogue"
