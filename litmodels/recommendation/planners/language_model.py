"""A planner in which a language model writes the whole path as free text."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_plugins.litmodels.recommendation.language.chat_model import (
    ChatModel,
    Messages,
    Reply,
)
from lightning_plugins.litmodels.recommendation.language.prompts import (
    LIST_SCHEMA,
    PathForm,
    PromptStyle,
    list_request,
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

OnInvalid = Literal["repair", "retry", "fallback", "omit", "raise"]
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

    A user whose request is refused or fails at the server is handled like a user with an empty
    plan, and the other users keep their plans. ``InfluencePath.problem`` gives the reason.

    Source: Wang et al., Leveraging LLMs for Influence Path Planning in Proactive Recommendation,
    arXiv 2409.04827, with the structure of the authors' prompts.

    Args:
        model: A language model such as ``ChatServer``.
        style: ``plain``, ``chain_of_thought`` or ``tree_of_thought``.
        on_invalid: How to handle a plan with too few valid items. ``repair`` keeps the valid items,
            and ``fallback`` chooses the others. ``retry`` first requests a correction, with the
            reason, up to ``max_corrections`` times. ``fallback`` discards the plan, and the
            fallback planner chooses all items. ``omit`` leaves the path empty. ``raise`` raises an
            error.
        max_corrections: Maximum number of corrections per plan, for ``retry``.
        fallback: Planner that chooses the missing items; None means ``TextBridge``.
        form: ``exact`` requests exactly as many items as the path has, without the target.
            ``published`` requests at least as many items and the target at the end, and shows the
            user's profile if the data has one, as the authors' prompts do. Its paths have up to
            twice as many items, and ``reached`` is the share of plans that end with the target.

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
        form: PathForm = "exact",
    ) -> None:
        for name, value, allowed in (
            ("style", style, get_args(PromptStyle)),
            ("on_invalid", on_invalid, get_args(OnInvalid)),
            ("form", form, get_args(PathForm)),
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
        self.form = form
        self.report = PlanReport()
        self._titles: TitleIndex | None = None

    def begin(self, seed: int) -> None:
        """Reset, with randomness from ``seed``."""
        self._seed = seed
        self.fallback.begin(seed)

    def longest(self, length: int) -> int:
        """Return the maximum length of a path: twice ``length`` for ``form="published"``."""
        return length if self.form == "exact" else 2 * length

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return 0 for the next item of each plan; after its end, the fallback planner's scores."""
        if sessions.step == 0:
            self._plans = self._planned(sessions, knowledge)
        scores = torch.zeros(sessions.allowed.shape)
        if sessions.step < sessions.length:
            scores = self.fallback.preferences(sessions, knowledge).cpu().clone()
        for user, plan in enumerate(self._plans):
            if sessions.step < len(plan):
                scores[user] = -torch.inf
                scores[user, plan[sessions.step]] = 0
            elif sessions.step >= sessions.length:
                sessions.end(user)
            elif sessions.allowed[user].any():
                self.report.note("refilled")
        return scores

    def _planned(self, sessions: Sessions, knowledge: Knowledge) -> list[list[int]]:
        if self._titles is None or self._titles.catalogue is not knowledge.catalogue:
            self._titles = TitleIndex(knowledge.catalogue)
        targets, profiles = sessions.targets.tolist(), sessions.profiles
        conversations = [
            plan_request(
                knowledge.catalogue, history, target, sessions.length, self.style,
                form=self.form, profile=profile,
            )
            for history, target, profile in zip(sessions.taken, targets, profiles, strict=True)
        ]  # fmt: skip
        plans: list[list[int]] = [[] for _ in conversations]
        problems: dict[int, str] = {}
        asked = [user for user in range(len(plans)) if sessions.allowed[user].any()]
        self.report.note("plans", len(asked))
        replies = self._continue(conversations, asked, sessions)
        failed = {user: reply.failure for user, reply in replies.items() if reply.failure}
        asked = [user for user in asked if user not in failed]
        for user in asked:
            request = list_request(sessions.length, self.form)
            conversations[user].append({"role": "user", "content": request})
        events = [PlanReport() for _ in conversations]
        for correction in range(self.max_corrections + 1):
            problems = {}
            for user, reply in self._continue(conversations, asked, sessions, LIST_SCHEMA).items():
                if reply.failure:
                    failed[user] = reply.failure
                    continue
                events[user] = PlanReport()  # only the titles of the last reply are counted
                plans[user], problem = self._grounded(user, reply, sessions, events[user])
                if problem:
                    problems[user] = problem
            asked = list(problems)
            if self.on_invalid == "raise" and (problems or failed):
                user, problem = next(iter((failed | problems).items()))
                raise ValueError(
                    f"the plan for user {user} of this batch is invalid: {problem}; "
                    "on_invalid='repair' lets the fallback planner complete it"
                )
            if correction == self.max_corrections or not asked:
                break
            for user, problem in problems.items():
                text = list_request(sessions.length, self.form, problem)
                conversations[user].append({"role": "user", "content": text})
            self.report.note("corrections", len(asked))
        for counted in events:
            self.report.update(counted)
        self._resolve(sessions, plans, problems, failed)
        return plans

    def _resolve(
        self,
        sessions: Sessions,
        plans: list[list[int]],
        problems: dict[int, str],
        failed: dict[int, str],
    ) -> None:
        """Record the problems of the plans, and discard the plans if ``on_invalid`` requires it."""
        if failed:
            self.report.note("request failed", len(failed))
            user, reason = next(iter(failed.items()))
            rank_zero_warn(
                f"{len(failed)} of {len(plans)} plans of a batch have no reply; "
                f"user {user} of the batch: {reason}"
            )
        for user, problem in (problems | failed).items():
            sessions.problems[user] = problem
            if self.on_invalid in ("fallback", "omit"):
                plans[user] = []
            if self.on_invalid == "omit":
                sessions.end(user)
                self.report.note("left empty")

    def _continue(
        self,
        conversations: list[Messages],
        users: Sequence[int],
        sessions: Sessions,
        schema: dict[str, Any] | None = None,
    ) -> dict[int, Reply]:
        """Request replies to the conversations of ``users``, and append them."""
        asked = [conversations[user] for user in users]
        replies = self.model.complete(asked, seed=self._seed, schema=schema) if asked else []
        for user, reply in zip(users, replies, strict=True):
            quoted = reply.text[:_MAX_QUOTED_CHARACTERS]
            conversations[user].append({"role": "assistant", "content": quoted})
            sessions.usage[user] = sessions.usage[user].plus(reply.usage)
        return dict(zip(users, replies, strict=True))

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
        longest, is_ended = self.longest(sessions.length), False
        for title in listed.titles:
            item = self._titles.find(title)
            if is_ended:
                events.note("beyond length")
            elif item is None:
                events.note("unknown")
            elif item == int(sessions.targets[user]):
                events.note("target named")
                is_ended = self.form == "published"
            elif item in items:
                events.note("repeated")
            elif not sessions.allowed[user, item]:
                events.note("in history")
            elif len(items) == longest:
                events.note("beyond length")
            else:
                events.note("grounded")
                items.append(item)
        if is_ended and not events["beyond length"]:
            events.note("target last")
            sessions.is_reached[user] = True
        if len(items) >= sessions.length:
            return items, ""
        if listed.problem:
            return items, _PROBLEM_TEXTS[listed.problem]
        return items, f"{len(items)} of {sessions.length} titles are new items of the catalogue"
