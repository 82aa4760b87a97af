"""A client for servers with OpenAI's chat completions API, with a cache of replies."""

import http.client
import json
import random
import re
import socket
import threading
import time
import urllib.error
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, get_args

from lightning_plugins.litmodels.recommendation.language.chat_model import Messages, Reply, Usage
from lightning_plugins.litmodels.recommendation.language.chat_protocol import (
    error_message,
    one_line,
    parsed_reply,
)
from lightning_plugins.litmodels.recommendation.language.http_exchange import (
    check_address,
    check_key_variable,
    key_of,
    post_json,
)
from lightning_plugins.litmodels.recommendation.language.reply_cache import ReplyCache

ReplyFormat = Literal["json_schema", "json_object", "text"]
_FORMATS = get_args(ReplyFormat)
_MAY_REFUSE_A_FORMAT = {400, 404, 415, 422, 501}
_TRANSIENT = {408, 409, 425, 429, 500, 502, 503, 504}
# These concern every request: the address, the key, the account or the model is wrong.
_FATAL = {401, 402, 403, 404, 405, 407}
_IS_FILTERED = re.compile(r"content.?(filter|policy)|moderation|flagged|safety", re.IGNORECASE)
_MAX_PAUSE_SECONDS = 60.0


class ServerError(RuntimeError):
    """A server sent no valid reply. The message contains its address and the reason.

    Args:
        message: The error message.
        status: The HTTP status if the server refused the request.
        reason: The reason without the address.
    """

    def __init__(self, message: str, status: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason or message


class _UnreachableError(ServerError):
    """No connection to the server was possible."""


class ChatServer:
    """A client for vLLM, Ollama, llama.cpp, LM Studio, ``transformers serve``, or OpenAI.

    A request is retried after a transient status (408, 409, 425, 429, 5xx), a timeout, a broken
    connection or an invalid body. The pauses grow exponentially with jitter, and ``Retry-After`` is
    respected.

    Each request stands for itself. A conversation that has no reply in the end (400, 413, 422, a
    content filter, a call of a tool, an overloaded server) gives a reply with ``failure``, and the
    others are answered. An error is raised only for what concerns every request: 401, 402,
    403 (unless it names a content filter), 404, 405, a redirect, or a server that cannot be reached
    for any conversation of the call. Redirects are not followed, so the key is not sent to another
    server.

    If JSON is requested, the server is first asked to enforce a schema. If it refuses, any JSON
    object is requested, and if it refuses that too, plain text. The format that the server accepts
    is kept for later requests. If the server requires ``max_completion_tokens``, it is sent instead
    of ``max_tokens``.

    Args:
        base_url: URL up to the version, for example ``http://localhost:8000/v1``.
        model: Name of the model on the server.
        api_key_variable: Environment variable that contains the key, one of ``KEY_VARIABLES``. If
            it is not set, no key is sent.
        temperature: Sampling temperature, at least 0; None sends none, as some reasoning models
            require.
        max_tokens: Maximum number of tokens of a reply.
        timeout_seconds: Timeout of one request, from the connection to the end of the body.
        max_tries: Maximum number of requests per reply.
        max_concurrency: Maximum number of concurrent requests.
        pause_seconds: Mean pause before the first retry; it doubles for each further retry.
        cache_folder: Folder in which replies are stored and looked up; None disables the cache.
            Failures are stored for ``offline``, but requested again otherwise.
        offline: Use only the cache, without a network.
        reply_format: The format that is tried first if JSON is requested: ``json_schema``,
            ``json_object`` or ``text``.
        extra_body: Further fields of every request, such as ``{"top_p": 0.9}`` or a server's own.
            They replace fields of the same name.
        stream: Request the reply as a stream, for servers that close slow connections.
        max_total_tokens: Budget of tokens of all replies, as counted by the server. Once it is used
            up, further requests are not sent and have a ``failure``. None means no budget.
        prompt_price: Price of a million tokens of the conversations, for the cost in ``usage``.
        completion_price: Price of a million tokens of the replies.

    Attributes:
        usage: Requests, tokens and cost of all replies from the server, without cached ones.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_variable: str = "OPENAI_API_KEY",
        temperature: float | None = 1.0,
        max_tokens: int = 1024,
        timeout_seconds: float = 120.0,
        max_tries: int = 5,
        max_concurrency: int = 4,
        pause_seconds: float = 1.0,
        cache_folder: str | None = None,
        offline: bool = False,
        reply_format: ReplyFormat = "json_schema",
        extra_body: dict[str, Any] | None = None,
        stream: bool = False,
        max_total_tokens: int | None = None,
        prompt_price: float = 0.0,
        completion_price: float = 0.0,
    ) -> None:
        if reply_format not in _FORMATS:
            raise ValueError(
                f"reply_format={reply_format!r}: expected one of {', '.join(_FORMATS)}"
            )
        counts = {
            "max_tokens": max_tokens,
            "max_tries": max_tries,
            "max_concurrency": max_concurrency,
            "max_total_tokens": 1 if max_total_tokens is None else max_total_tokens,
        }
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name}={count}: expected at least 1")
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds={timeout_seconds}: expected more than 0")
        for name, value in {
            "temperature": temperature or 0.0,
            "pause_seconds": pause_seconds,
            "prompt_price": prompt_price,
            "completion_price": completion_price,
        }.items():
            if not value >= 0:
                raise ValueError(f"{name}={value}: expected 0 or more")
        if offline and cache_folder is None:
            raise ValueError("offline=True: requires a cache_folder")
        self.base_url = check_address(base_url)
        self.model = model
        self.api_key_variable = check_key_variable(api_key_variable)
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.timeout_seconds = timeout_seconds
        self.max_tries = max_tries
        self.max_concurrency = max_concurrency
        self.pause_seconds = pause_seconds
        self.cache = None if cache_folder is None else ReplyCache(cache_folder)
        self.offline = offline
        self.reply_format = reply_format
        self.extra_body = extra_body or {}
        self.stream = stream
        self.max_total_tokens = max_total_tokens
        self.prompt_price = prompt_price
        self.completion_price = completion_price
        self.usage = Usage()
        self._token_limit = "max_tokens"
        self._lock = threading.Lock()

    def complete(
        self, conversations: Sequence[Messages], seed: int = 0, schema: dict[str, Any] | None = None
    ) -> list[Reply]:
        """Return one reply per conversation, in order.

        Args:
            conversations: Messages with ``role`` and ``content``.
            seed: Seed that is sent to the server, which may ignore it. It is part of the cache key.
            schema: Schema of the requested JSON, or None. The reply may still be plain text.

        Raises:
            ServerError: The server refuses every request, or cannot be reached; or ``offline`` and
                a conversation has no stored reply.
        """
        with ThreadPoolExecutor(self.max_concurrency) as pool:
            answers = list(
                pool.map(lambda messages: self._reply(messages, seed, schema), conversations)
            )
        unreachable = [answer for answer in answers if isinstance(answer, _UnreachableError)]
        if answers and len(unreachable) == len(answers):
            raise unreachable[0]
        return [
            Reply("", failure=answer.reason) if isinstance(answer, ServerError) else answer
            for answer in answers
        ]

    def _reply(
        self, messages: Messages, seed: int, schema: dict[str, Any] | None
    ) -> Reply | _UnreachableError:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "max_tokens": self.max_tokens,
            "seed": seed,
        }
        if self.temperature is not None:
            body["temperature"] = self.temperature
        body |= self.extra_body
        if "max_completion_tokens" in self.extra_body:
            del body["max_tokens"]
        # The key contains the requested schema, not the format that the server accepted, so that
        # an offline run finds the reply.
        request = {"base_url": self.base_url, **body} | ({"schema": schema} if schema else {})
        reply = self.cache.get(request) if self.cache else None
        if reply is not None and (self.offline or not reply.failure):
            return reply
        if self.offline:
            assert self.cache is not None
            raise ServerError(
                f"offline=True: {self.cache.folder} has no reply of {self.model} to this request; "
                "run it once with offline=False"
            )
        if self._is_used_up():
            return Reply(
                "", failure=f"the budget max_total_tokens={self.max_total_tokens} is used up"
            )
        try:
            reply = self._priced(self._in_best_format(body, schema))
        except _UnreachableError as error:
            return error
        except ServerError as error:
            if error.status in _FATAL and not _IS_FILTERED.search(error.reason):
                raise
            if error.status is not None and 300 <= error.status < 400:
                raise
            reply = Reply("", failure=error.reason)
        if self.cache:
            self.cache.put(request, reply)
        return reply

    def _is_used_up(self) -> bool:
        used = self.usage.prompt_tokens + self.usage.completion_tokens
        return self.max_total_tokens is not None and used >= self.max_total_tokens

    def _priced(self, reply: Reply) -> Reply:
        """Return the reply with its cost, and add its usage to the total."""
        usage = reply.usage
        cost = self.prompt_price * usage.prompt_tokens
        cost += self.completion_price * usage.completion_tokens
        usage = usage._replace(cost=cost / 1e6)
        with self._lock:
            self.usage = self.usage.plus(usage)
        return replace(reply, usage=usage)

    def _in_best_format(self, body: dict[str, Any], schema: dict[str, Any] | None) -> Reply:
        if schema is None:
            return self._sent(body)
        is_about_format = True
        for tried in _FORMATS[_FORMATS.index(self.reply_format) :]:
            wanted: dict[str, Any] = {"type": tried}
            if tried == "json_schema":
                wanted["json_schema"] = {"name": "reply", "strict": True, "schema": schema}
            try:
                reply = self._sent(body if tried == "text" else body | {"response_format": wanted})
            except ServerError as error:
                may_refuse = error.status in _MAY_REFUSE_A_FORMAT
                if tried == "text" or not may_refuse or _IS_FILTERED.search(error.reason):
                    raise
                is_about_format &= _is_about_format(error.reason)
                continue
            if is_about_format:
                # A concurrent request may already have changed it. It must not change back.
                with self._lock:
                    self.reply_format = max(self.reply_format, tried, key=_FORMATS.index)
            return reply
        raise AssertionError("the last format is text")

    def _sent(self, body: dict[str, Any]) -> Reply:
        """Send a request with the token limit that the server knows."""
        if self.stream:
            body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        limit = self._token_limit
        try:
            return self._with_retries(_limited(body, limit))
        except ServerError as error:
            if error.status != 400 or "max_completion_tokens" not in error.reason:
                raise
            if limit != "max_tokens":
                raise
            self._token_limit = "max_completion_tokens"
        return self._with_retries(_limited(body, self._token_limit))

    def _with_retries(self, body: bytes) -> Reply:
        reason, is_reached = "", False
        for attempt in range(self.max_tries):
            retry_after: float | None = None
            try:
                return parsed_reply(self._post(body))
            except urllib.error.HTTPError as error:
                is_reached = True
                reason = self._described(error)
                retry_after = _seconds(error.headers.get("Retry-After"))
                error.close()
                if error.code not in _TRANSIENT:
                    text = f"{self.base_url} refused the request: {reason}"
                    raise ServerError(text, error.code, reason) from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = f"{type(error).__name__}: {one_line(str(error))}"
                is_reached |= not _is_no_connection(error)
            if attempt + 1 < self.max_tries:
                jittered = self.pause_seconds * 2**attempt * random.uniform(0.5, 1.5)
                time.sleep(min(_MAX_PAUSE_SECONDS, max(jittered, retry_after or 0.0)))
        reason = f"no valid reply in {self.max_tries} tries: {reason}"
        kind = ServerError if is_reached else _UnreachableError
        raise kind(f"{self.base_url} sent {reason}", reason=reason)

    def _described(self, error: urllib.error.HTTPError) -> str:
        """Return status, code and message of a refused request, without the key."""
        try:
            code, message = error_message(error.read(2**16))
        except (OSError, http.client.HTTPException):
            code, message = "", ""
        text = ": ".join(filter(None, [f"status {error.code}", message]))
        text += f" ({code})" if code and code not in text else ""
        key = key_of(self.api_key_variable)
        return text.replace(key, "[key]") if key else text

    def _post(self, body: bytes) -> bytes:
        key = key_of(self.api_key_variable)
        return post_json(f"{self.base_url}/chat/completions", body, key, self.timeout_seconds)


def _limited(body: dict[str, Any], limit: str) -> bytes:
    body = dict(body)
    if limit != "max_tokens" and "max_tokens" in body:
        body[limit] = body.pop("max_tokens")
    return json.dumps(body).encode()


def _is_about_format(reason: str) -> bool:
    """Whether a refusal names the format, or gives no message at all."""
    words = ("response_format", "json", "schema", "grammar", "guided", "structured")
    return ": " not in reason or any(word in reason.lower() for word in words)


def _is_no_connection(error: Exception) -> bool:
    """Whether a connection was refused, or the address does not exist."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return isinstance(reason, ConnectionRefusedError | socket.gaierror)


def _seconds(header: str | None) -> float | None:
    """Parse ``Retry-After`` in seconds; None for dates, which are rare here."""
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None
