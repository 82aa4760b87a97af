"""The interface of language models that reply to conversations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

Messages = list[dict[str, str]]
"""A conversation: messages with ``role`` and ``content``."""


class Usage(NamedTuple):  # Lightning refuses frozen dataclasses as predictions
    """The requests, tokens and cost of one or several replies.

    Args:
        requests: Number of replies.
        prompt_tokens: Tokens of the conversations, as counted by the server.
        completion_tokens: Tokens of the replies, including those of the reasoning.
        cost: Cost by the prices of ``ChatServer``, in their currency.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    def plus(self, other: "Usage") -> "Usage":
        """Return the sum of both."""
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost + other.cost,
        )


_ONE_REQUEST = Usage(1)


@dataclass(frozen=True)
class Reply:
    """The reply of a language model.

    Args:
        text: The content of the message. If a model sends only reasoning, its reasoning.
        is_truncated: Whether the model stopped at its length limit.
        failure: Why there is no reply to this conversation, or ``""``. The text is then empty.
        usage: Tokens and cost, if the server counts them.
    """

    text: str
    is_truncated: bool = False
    failure: str = ""
    usage: Usage = _ONE_REQUEST


class ChatModel(Protocol):
    """A language model that replies to conversations, such as ``ChatServer`` or ``LocalModel``."""

    def complete(
        self, conversations: Sequence[Messages], seed: int = 0, schema: dict[str, Any] | None = None
    ) -> list[Reply]:
        """Return one reply per conversation, in order; as JSON of ``schema`` if supported.

        A conversation that the model refuses has a reply with ``failure``; the others are answered.
        """
