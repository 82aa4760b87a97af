"""The interface of language models that reply to conversations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Messages = list[dict[str, str]]
"""A conversation: messages with ``role`` and ``content``."""


@dataclass(frozen=True)
class Reply:
    """The reply of a language model.

    Args:
        text: The content of the message.
        is_truncated: Whether the model stopped at its length limit.
    """

    text: str
    is_truncated: bool = False


class ChatModel(Protocol):
    """A language model that replies to conversations, such as ``ChatServer`` or ``LocalModel``."""

    def complete(
        self, conversations: Sequence[Messages], seed: int = 0, schema: dict[str, Any] | None = None
    ) -> list[Reply]:
        """Return one reply per conversation, in order; as JSON of ``schema`` if supported."""
