"""Parses the bodies of OpenAI's chat completions API: replies, streams and errors."""

import json
from collections.abc import Iterator
from typing import Any

from lightning_plugins.litmodels.recommendation.language.chat_model import Reply, Usage

_MAX_MESSAGE_CHARACTERS = 300
_MOST_TOKENS = 10**12
_REASONING = ("reasoning_content", "reasoning")  # the names of DeepSeek and vLLM


def parsed_reply(body: bytes) -> Reply:
    """Parse a reply: one JSON object, or a stream of server-sent events.

    The content may be a string or a list of parts. A message without content has its reasoning as
    text. A message that is blocked by a content filter, that only calls a tool, or that has a
    ``refusal`` gives a reply with ``failure``.

    Raises:
        ValueError: The body is neither.
    """
    is_stream = body.lstrip()[:5] in (b"data:", b"event", b": pin", b":")
    try:
        answer = _joined(body) if is_stream else json.loads(body)
        choice = answer["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text = _text(message.get("content"))
        reasoning = next((message[name] for name in _REASONING if message.get(name)), "")
        refusal = message.get("refusal")
        calls_tool = bool(message.get("tool_calls"))
        counts = answer.get("usage") or {}
        usage = Usage(1, *(_count(counts, kind) for kind in ("prompt", "completion")))
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("the body has no choices[0].message") from error
    failure = ""
    if finish == "content_filter":
        failure = "the reply was blocked by a content filter"
    elif refusal and not text:
        failure = f"the model refused: {one_line(str(refusal))}"
    elif calls_tool and not text:
        failure = "the model called a tool instead of replying"
    if failure:
        return Reply("", failure=failure, usage=usage)
    return Reply(text or _text(reasoning), finish == "length", usage=usage)


def error_message(body: bytes) -> tuple[str, str]:
    """Return the code and the message of an error's body, as one line each, or ``""``."""
    text = body.decode("utf-8", "replace")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return "", one_line(text)
    # {"error": {"message", "code"}} (OpenAI), {"error": "…"} (Ollama), {"detail": …} (FastAPI)
    error = answer
    for name in ("error", "detail", "message"):
        if isinstance(answer, dict) and answer.get(name):
            error = answer[name]
            break
    if isinstance(error, dict):
        code = error.get("code") or error.get("type") or ""
        return one_line(str(code)), one_line(str(error.get("message") or error))
    return "", one_line(error if isinstance(error, str) else json.dumps(error))


def one_line(text: str) -> str:
    """Return at most 300 printable characters of a text of others, on one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:4000]).split())
    is_long = len(line) > _MAX_MESSAGE_CHARACTERS
    return line[: _MAX_MESSAGE_CHARACTERS - 1] + "…" if is_long else line


def _text(content: object) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part if isinstance(part, str) else part.get("text", "") for part in content]
        if all(isinstance(part, str) for part in parts):
            return "".join(parts)
    raise ValueError("the message is not text")


def _count(counts: dict[str, Any], kind: str) -> int:
    number = counts.get(f"{kind}_tokens")
    # A larger number would overflow in the cost.
    return number if isinstance(number, int) and 0 <= number < _MOST_TOKENS else 0


def _joined(body: bytes) -> dict[str, Any]:
    """Join the deltas of a stream to the answer that the server would have sent at once."""
    message: dict[str, Any] = {}
    finish, usage = None, None
    for event in _events(body):
        if not isinstance(event, dict):
            raise ValueError("an event of the stream is not an object")
        if event.get("error"):
            raise ValueError(f"the stream ended with an error: {error_message(_dumped(event))[1]}")
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            finish = choice.get("finish_reason") or finish
            for name, part in (choice.get("delta") or {}).items():
                if isinstance(part, str) and name != "role":
                    message[name] = message.get(name, "") + part
                elif name == "tool_calls" and part:
                    message[name] = part
    if not message and finish is None:
        raise ValueError("the stream has no event with choices")
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}


def _dumped(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode()


def _events(body: bytes) -> Iterator[Any]:
    for line in body.decode("utf-8", "replace").splitlines():
        name, _, data = line.partition(":")
        if name == "data" and data.strip() != "[DONE]":
            yield json.loads(data)
