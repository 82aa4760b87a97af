"""A client for servers with OpenAI's chat completions API, with a cache of replies."""

import hashlib
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from lightning_plugins.litmodels.recommendation.language.chat_model import Messages, Reply
from lightning_plugins.reports.writer import write_text_atomically

ReplyFormat = Literal["json_schema", "json_object", "text"]
_FORMATS = get_args(ReplyFormat)
_REFUSES_A_FORMAT = {400, 404, 415, 422, 501}
_TRANSIENT = {408, 409, 425, 429, 500, 502, 503, 504}
_MAX_REPLY_BYTES = 4 * 2**20
_MAX_PAUSE_SECONDS = 60.0


class ServerError(RuntimeError):
    """A server sent no valid reply. The message contains its address and the reason.

    Args:
        message: The error message.
        status: The HTTP status if the server refused the request.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ChatServer:
    """A client for vLLM, Ollama, llama.cpp, LM Studio, ``transformers serve``, or OpenAI.

    A request is retried after a transient status (408, 409, 425, 429, 5xx), a timeout, a broken
    connection or an invalid body. The pauses grow exponentially with jitter, and ``Retry-After`` is
    respected. Other failures raise an error immediately. Redirects are not followed, so the key is
    not sent to another server.

    If JSON is requested, the server is first asked to enforce a schema. If it refuses, any JSON
    object is requested from then on, and if it refuses that too, plain text.

    Args:
        base_url: URL up to the version, for example ``http://localhost:8000/v1``.
        model: Name of the model on the server.
        api_key_variable: Environment variable that contains the key. If it is not set, no key is
            sent.
        temperature: Sampling temperature, at least 0.
        max_tokens: Maximum number of tokens of a reply.
        timeout_seconds: Timeout of one request, from the connection to the end of the body.
        max_tries: Maximum number of requests per reply.
        max_concurrency: Maximum number of concurrent requests.
        pause_seconds: Mean pause before the first retry; it doubles for each further retry.
        cache_folder: Folder in which replies are stored and looked up; None disables the cache.
        offline: Use only the cache, without a network.
        reply_format: The format that is tried first if JSON is requested: ``json_schema``,
            ``json_object`` or ``text``.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_variable: str = "OPENAI_API_KEY",
        temperature: float = 1.0,
        max_tokens: int = 1024,
        timeout_seconds: float = 120.0,
        max_tries: int = 5,
        max_concurrency: int = 4,
        pause_seconds: float = 1.0,
        cache_folder: str | None = None,
        offline: bool = False,
        reply_format: ReplyFormat = "json_schema",
    ) -> None:
        if reply_format not in _FORMATS:
            raise ValueError(
                f"reply_format={reply_format!r}: expected one of {', '.join(_FORMATS)}"
            )
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url={base_url!r}: expected http://… or https://…")
        counts = {
            "max_tokens": max_tokens,
            "max_tries": max_tries,
            "max_concurrency": max_concurrency,
        }
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name}={count}: expected at least 1")
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds={timeout_seconds}: expected more than 0")
        for name, value in {"temperature": temperature, "pause_seconds": pause_seconds}.items():
            if not value >= 0:
                raise ValueError(f"{name}={value}: expected 0 or more")
        if offline and cache_folder is None:
            raise ValueError("offline=True: requires a cache_folder")
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.api_key_variable = api_key_variable
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.timeout_seconds = timeout_seconds
        self.max_tries = max_tries
        self.max_concurrency = max_concurrency
        self.pause_seconds = pause_seconds
        self.cache = None if cache_folder is None else ReplyCache(cache_folder)
        self.offline = offline
        self.reply_format = reply_format

    def complete(
        self, conversations: Sequence[Messages], seed: int = 0, schema: dict[str, Any] | None = None
    ) -> list[Reply]:
        """Return one reply per conversation, in order.

        Args:
            conversations: Messages with ``role`` and ``content``.
            seed: Seed that is sent to the server, which may ignore it. It is part of the cache key.
            schema: Schema of the requested JSON, or None. The reply may still be plain text.

        Raises:
            ServerError: A conversation has no reply.
        """
        with ThreadPoolExecutor(self.max_concurrency) as pool:
            return list(
                pool.map(lambda messages: self._reply(messages, seed, schema), conversations)
            )

    def _reply(self, messages: Messages, seed: int, schema: dict[str, Any] | None) -> Reply:
        body = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": seed,
        }
        # The key contains the requested schema, not the format that the server accepted, so that
        # an offline run finds the reply.
        request = {"base_url": self.base_url, **body} | ({"schema": schema} if schema else {})
        reply = self.cache.get(request) if self.cache else None
        if reply is not None:
            return reply
        if self.offline:
            assert self.cache is not None
            raise ServerError(
                f"offline=True: {self.cache.folder} has no reply of {self.model} to this request; "
                "run it once with offline=False"
            )
        reply = self._in_best_format(body, schema)
        if self.cache:
            self.cache.put(request, reply)
        return reply

    def _in_best_format(self, body: dict[str, Any], schema: dict[str, Any] | None) -> Reply:
        while schema and self.reply_format != "text":
            tried = self.reply_format
            wanted: dict[str, Any] = {"type": tried}
            if tried == "json_schema":
                wanted["json_schema"] = {"name": "reply", "strict": True, "schema": schema}
            try:
                return self._with_retries(json.dumps(body | {"response_format": wanted}).encode())
            except ServerError as error:
                if error.status not in _REFUSES_A_FORMAT:
                    raise
            # A concurrent request may already have changed the format. It must not change back.
            self.reply_format = max(
                self.reply_format, _FORMATS[_FORMATS.index(tried) + 1], key=_FORMATS.index
            )
        return self._with_retries(json.dumps(body).encode())

    def _with_retries(self, body: bytes) -> Reply:
        reason = ""
        for attempt in range(self.max_tries):
            retry_after: float | None = None
            try:
                return _parsed(self._post(body))
            except urllib.error.HTTPError as error:
                reason = f"status {error.code}"
                retry_after = _seconds(error.headers.get("Retry-After"))
                error.close()
                if error.code not in _TRANSIENT:
                    raise ServerError(
                        f"{self.base_url} refused the request: {reason}", error.code
                    ) from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = f"{type(error).__name__}: {error}"
            if attempt + 1 < self.max_tries:
                jittered = self.pause_seconds * 2**attempt * random.uniform(0.5, 1.5)
                time.sleep(min(_MAX_PAUSE_SECONDS, max(jittered, retry_after or 0.0)))
        raise ServerError(
            f"{self.base_url} sent no valid reply in {self.max_tries} tries: {reason}"
        )

    def _post(self, body: bytes) -> bytes:
        deadline = time.monotonic() + self.timeout_seconds
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.api_key_variable):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.base_url}/chat/completions", body, headers)
        opener = urllib.request.build_opener(_NoRedirects)
        chunks, size = [], 0
        with opener.open(request, timeout=self.timeout_seconds) as response:
            # Read in chunks, because the socket's timeout restarts with every byte received.
            while chunk := response.read1(2**16):
                chunks.append(chunk)
                size += len(chunk)
                if size > _MAX_REPLY_BYTES:
                    raise ValueError(f"the reply exceeds {_MAX_REPLY_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no complete reply within {self.timeout_seconds} s")
        return b"".join(chunks)


class ReplyCache:
    """Stores replies as JSON files, one per request, named by the request's SHA-256.

    Files are written atomically. A file that cannot be read counts as absent.

    Args:
        folder: The folder of the files.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def get(self, request: dict[str, Any]) -> Reply | None:
        """Return the stored reply to ``request``, or None."""
        try:
            stored = json.loads(self._path(request).read_text("utf-8"))
            return Reply(str(stored["reply"]["text"]), bool(stored["reply"]["is_truncated"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, request: dict[str, Any], reply: Reply) -> None:
        """Store the reply, together with its request so that the file can be inspected."""
        content = json.dumps({"request": request, "reply": asdict(reply)}, ensure_ascii=False)
        write_text_atomically(self._path(request), content)

    def _path(self, request: dict[str, Any]) -> Path:
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _parsed(body: bytes) -> Reply:
    try:
        choice = json.loads(body)["choices"][0]
        text = choice["message"].get("content") or ""
        is_truncated = choice.get("finish_reason") == "length"
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("the body has no choices[0].message") from error
    if not isinstance(text, str):
        raise ValueError("the message is not text")
    return Reply(text, is_truncated)


def _seconds(header: str | None) -> float | None:
    """Parse ``Retry-After`` in seconds; None for dates, which are rare here."""
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None
