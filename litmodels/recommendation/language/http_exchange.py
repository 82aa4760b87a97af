"""One HTTP request with one deadline, a bounded reply, and a key that stays secret."""

import http.client
import io
import os
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from functools import partial
from typing import Any

from lightning_plugins.inputs import LimitError, limit, quoted

KEY_VARIABLES = (
    "OPENAI_API_KEY",
    "AZURE_OPENAI_API_KEY",
    "DEEPSEEK_API_KEY",
    "FIREWORKS_API_KEY",
    "GROQ_API_KEY",
    "LLAMA_API_KEY",
    "MISTRAL_API_KEY",
    "OPENROUTER_API_KEY",
    "TOGETHER_API_KEY",
    "VLLM_API_KEY",
)
"""Environment variables from which a key may be sent to a server.

``LIGHTNING_PLUGINS_KEY_VARIABLES`` adds others, separated by commas.
"""
_MORE_VARIABLES = "LIGHTNING_PLUGINS_KEY_VARIABLES"
_CHUNK_BYTES = 2**16
_PRINTABLE = re.compile(r"[!-~]+")


def check_address(url: str) -> str:
    """Return ``url`` without a slash at its end.

    Raises:
        ValueError: It is not an ``http`` or ``https`` address, or contains a user or password.
    """
    parts = urllib.parse.urlsplit(url) if _PRINTABLE.fullmatch(url) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url={quoted(url)}: expected http://… or https://…")
    if "@" in parts.netloc:
        raise ValueError(
            f"base_url: the address of {parts.hostname} contains a user or password; set the key "
            "in an environment variable, api_key_variable"
        )
    return url.rstrip("/")


def check_key_variable(name: str) -> str:
    """Return the name of an environment variable if a key may be read from it.

    Raises:
        ValueError: It is not in the list.
    """
    allowed = [*KEY_VARIABLES, *filter(None, os.environ.get(_MORE_VARIABLES, "").split(","))]
    if name not in allowed:
        raise ValueError(
            f"api_key_variable={quoted(name)}: its value would be sent to the server; allowed are "
            f"{', '.join(allowed)}; to add it, set {_MORE_VARIABLES}"
        )
    return name


def key_of(variable: str) -> str:
    """Return the key in an environment variable without white space around it, or ``""``.

    Raises:
        ValueError: The key contains a character that a header cannot; the message omits the key.
    """
    key = os.environ.get(variable, "").strip()
    if key and not _PRINTABLE.fullmatch(key):
        raise ValueError(f"{variable}: the key contains a character that is not plain ASCII")
    return key


def post_json(url: str, body: bytes, key: str, timeout_seconds: float) -> bytes:
    """Send a JSON body and return the body of the answer; redirects are not followed.

    Args:
        url: An address that :func:`check_address` accepts.
        body: The request.
        key: Sent as a bearer token; replaced by ``[key]`` wherever the answer repeats it. May be
            empty.
        timeout_seconds: For everything, from the look-up of the address to the last byte.

    Raises:
        urllib.error.HTTPError: The server refused the request; up to 64 KiB of its body are kept.
        TimeoutError: The answer is not complete in time.
        LimitError: The answer is too long, before or after decompression.
        OSError: The connection failed.
        http.client.HTTPException: The answer is not HTTP.
    """
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, body, headers)
    exchange = _Exchange(request, timeout_seconds)
    thread = threading.Thread(target=exchange.run, daemon=True)
    thread.start()
    # The time-out of a socket restarts with every byte, and does not cover the look-up of a name.
    thread.join(timeout_seconds)
    if thread.is_alive():
        exchange.close()
        raise TimeoutError(f"no complete reply within {timeout_seconds:g} s")
    if exchange.failure is not None:
        raise _without_key(exchange.failure, key)
    return _hidden(exchange.content, key)


class _Exchange:
    """A request in a thread of its own, which :meth:`close` ends from another."""

    def __init__(self, request: urllib.request.Request, timeout_seconds: float) -> None:
        self.content = b""
        self.failure: Exception | None = None
        self._request = request
        self._deadline = time.monotonic() + timeout_seconds
        self._timeout_seconds = timeout_seconds
        self._connections: list[http.client.HTTPConnection] = []

    def run(self) -> None:
        opener = urllib.request.build_opener(
            _NoRedirects, _http_handler(self._connections), _https_handler(self._connections)
        )
        try:
            with opener.open(self._request, timeout=self._timeout_seconds) as response:
                self.content = self._body(response, limit("reply_bytes"))
        except urllib.error.HTTPError as error:
            content = error.read(_CHUNK_BYTES)
            error.close()
            # With a body in memory, so that nothing is read after the deadline.
            self.failure = urllib.error.HTTPError(
                error.url, error.code, error.msg, error.headers, io.BytesIO(content)
            )
        except Exception as error:  # raised again by the caller's thread
            self.failure = error

    def _body(self, response: Any, allowed: int) -> bytes:
        chunks, size = [], 0
        while chunk := response.read1(_CHUNK_BYTES):
            chunks.append(chunk)
            size += len(chunk)
            if size > allowed:
                raise LimitError("reply_bytes", size, "the reply")
            if time.monotonic() > self._deadline:
                raise TimeoutError(f"no complete reply within {self._timeout_seconds:g} s")
        content = b"".join(chunks)
        if response.headers.get("Content-Encoding", "identity").lower() in ("gzip", "deflate"):
            content = zlib.decompressobj(47).decompress(content, allowed + 1)
            if len(content) > allowed:
                raise LimitError("reply_bytes", len(content), "the reply")
        return content

    def close(self) -> None:
        """End the connection, so that the thread does not wait for the server."""
        for connection in self._connections:
            try:
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _http_handler(connections: list[http.client.HTTPConnection]) -> urllib.request.HTTPHandler:
    class Handler(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(partial(_kept, connections, http.client.HTTPConnection), request)

    return Handler()


def _https_handler(connections: list[http.client.HTTPConnection]) -> urllib.request.HTTPSHandler:
    class Handler(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(partial(_kept, connections, http.client.HTTPSConnection), request)

    return Handler()


def _kept(connections: list[Any], kind: Any, *args: Any, **kwargs: Any) -> Any:
    connections.append(kind(*args, **kwargs))
    return connections[-1]


def _without_key(error: Exception, key: str) -> Exception:
    if not key or isinstance(error, urllib.error.HTTPError) or key not in str(error):
        return error
    return OSError(str(error).replace(key, "[key]"))


def _hidden(content: bytes, key: str) -> bytes:
    return content.replace(key.encode(), b"[key]") if key else content
