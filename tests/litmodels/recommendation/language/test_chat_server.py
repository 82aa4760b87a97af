"""ChatServer against a local server that fails as scripted."""

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lightning_plugins.litmodels.recommendation.language.chat_server import ChatServer, ServerError

QUESTION = [{"role": "user", "content": "A path, please"}]


def good(text="fine", finish="stop"):
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return 200, {}, json.dumps({"choices": [choice]}).encode()


class ScriptedServer(ThreadingHTTPServer):
    """Replies to the n-th request with the n-th entry of a script, then repeats the last entry."""

    daemon_threads = True

    def __init__(self, *script):
        self.script = script
        self.requests = []
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            answer = server.script[min(len(server.requests), len(server.script) - 1)]
            server.requests.append((time.monotonic(), self.path, dict(self.headers), self.body))
        with suppress(OSError):  # the client hung up
            answer(self) if callable(answer) else self.send(*answer)

    def send(self, status, headers, body):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(*script):
        servers.append(ScriptedServer(*script))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def client(server, **changes):
    settings = {"pause_seconds": 0.01, "max_tries": 3, "timeout_seconds": 5}
    return ChatServer(server.url, "small", **(settings | changes))


def drip(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.02)


def flood(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" " * 2**17)


def hang_up(handler):
    handler.connection.close()


def silence(handler):
    time.sleep(0.6)


def test_the_request_contains_all_settings_and_the_reply_is_parsed(serve, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    server = serve(good("a path", "length"))
    asked = client(server, api_key_variable="MY_KEY", temperature=0.5, max_tokens=7)
    (reply,) = asked.complete([QUESTION], seed=3)
    assert (reply.text, reply.is_truncated) == ("a path", True)
    _, path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {
        "model": "small",
        "messages": QUESTION,
        "temperature": 0.5,
        "max_tokens": 7,
        "seed": 3,
    }


def test_no_authorization_header_is_sent_without_a_key(serve, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = serve(good())
    client(server).complete([QUESTION])
    assert "Authorization" not in server.requests[0][2]


@pytest.mark.parametrize(
    "bad",
    [
        (429, {}, b"slow down"),
        (503, {}, b""),
        (500, {}, b"<html>"),
        (200, {}, b"no json"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": [{"message": {"content": 7}}]}'),
        (200, {}, b"[" * 100_000),
        (200, {"Content-Length": "999"}, b'{"choices"'),  # cut off
        hang_up,
    ],
    ids=lambda bad: getattr(bad, "__name__", None) or f"{bad[0]} {bad[2][:12]!r}",
)
def test_transient_failures_are_retried_a_limited_number_of_times(serve, bad):
    server = serve(bad, good())
    assert client(server, timeout_seconds=1).complete([QUESTION])[0].text == "fine"
    assert len(server.requests) == 2
    broken = serve(bad)
    with pytest.raises(ServerError, match=r"sent no valid reply in 3 tries"):
        client(broken, timeout_seconds=1).complete([QUESTION])
    assert len(broken.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_not_retried_and_its_error_contains_no_key(serve, status, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server = serve((status, {}, b"secret"))
    with pytest.raises(ServerError, match=f"refused the request: status {status}") as caught:
        client(server).complete([QUESTION])
    assert len(server.requests) == 1
    assert "secret" not in str(caught.value)


def test_a_redirect_is_not_followed(serve):
    other = serve(good())
    server = serve((307, {"Location": other.url + "/chat/completions"}, b""))
    with pytest.raises(ServerError, match="status 307"):
        client(server).complete([QUESTION])
    assert not other.requests


@pytest.mark.parametrize("slow", [drip, silence])
def test_a_slow_server_raises_an_error_after_the_timeout(serve, slow):
    server = serve(slow)
    start = time.monotonic()
    with pytest.raises(ServerError, match=r"in 1 tries: (?:TimeoutError|URLError)"):
        client(server, timeout_seconds=0.3, max_tries=1).complete([QUESTION])
    assert time.monotonic() - start < 3


def test_a_reply_beyond_the_size_limit_is_an_error(serve):
    with pytest.raises(ServerError, match="the reply exceeds 4194304 bytes"):
        client(serve(flood), max_tries=1).complete([QUESTION])


def test_retry_after_is_respected(serve):
    server = serve((429, {"Retry-After": "0.4"}, b""), good())
    client(server).complete([QUESTION])
    (first, *_), (second, *_) = server.requests
    assert second - first >= 0.4
    odd = serve((429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, b""), good())
    assert client(odd).complete([QUESTION])[0].text == "fine"


class Echo:
    """Replies with the question, to later requests sooner, and counts concurrent requests.

    A request is no longer counted once its reply is sent, because the client may then send the next
    request before the server continues.
    """

    def __init__(self, together):
        self.together = threading.Barrier(together)
        self.lock = threading.Lock()
        self.open = self.most_open = 0

    def __call__(self, handler):
        question = handler.body["messages"][0]["content"]
        with self.lock:
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        self.together.wait(timeout=10)
        time.sleep(0.02 * (3 - int(question) % 3))
        with self.lock:
            self.open -= 1
        handler.send(*good(question))


def test_replies_keep_the_order_of_conversations_and_concurrency_is_limited(serve):
    echo = Echo(together=3)
    server = serve(echo)
    conversations = [[{"role": "user", "content": str(n)}] for n in range(9)]
    replies = client(server, max_concurrency=3, timeout_seconds=20).complete(conversations)
    assert [reply.text for reply in replies] == [str(n) for n in range(9)]
    assert echo.most_open == 3


def test_the_cache_replies_offline_to_the_same_request_only(serve, tmp_path):
    server = serve(good("kept"))
    kept = {"cache_folder": str(tmp_path)}
    client(server, **kept).complete([QUESTION])
    offline = client(server, **kept, offline=True)
    assert offline.complete([QUESTION])[0].text == "kept"
    assert len(server.requests) == 1
    other = [{"role": "user", "content": "another"}]
    for asked, conversation, seed in (
        (offline, other, 0),
        (offline, QUESTION, 1),
        (client(server, **kept, offline=True, temperature=0.1), QUESTION, 0),
    ):
        with pytest.raises(ServerError, match="has no reply of small to this request"):
            asked.complete([conversation], seed=seed)


def test_a_damaged_cache_entry_is_requested_again_and_no_key_is_stored(
    serve, tmp_path, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server = serve(good("kept"))
    asked = client(server, cache_folder=str(tmp_path))
    asked.complete([QUESTION])
    (entry,) = tmp_path.rglob("*.json")
    assert "secret" not in entry.read_text()
    entry.write_text('{"reply": ')
    assert asked.complete([QUESTION])[0].text == "kept"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base_url": "file:///etc/passwd"}, "base_url='file:///etc/passwd': expected http"),
        ({"max_tries": 0}, "max_tries=0: expected at least 1"),
        ({"max_concurrency": 0}, "max_concurrency=0: expected at least 1"),
        ({"timeout_seconds": 0}, "timeout_seconds=0: expected more than 0"),
        ({"temperature": -1}, "temperature=-1: expected 0 or more"),
        ({"offline": True}, "offline=True: requires a cache_folder"),
        ({"reply_format": "xml"}, "reply_format=.xml.: expected one of json_schema, json_object"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ChatServer(**({"base_url": "http://localhost/v1", "model": "small"} | arguments))


SCHEMA = {"type": "object"}


@pytest.mark.parametrize(
    ("script", "formats"),
    [
        ([good("{}")], ["json_schema"]),
        ([(400, {}, b""), good("{}")], ["json_schema", "json_object"]),
        ([(422, {}, b""), (501, {}, b""), good("text")], ["json_schema", "json_object", None]),
    ],
)
def test_a_refused_format_is_not_requested_again(serve, script, formats):
    server = serve(*script)
    asked = client(server)
    asked.complete([QUESTION], schema=SCHEMA)
    found = [body.get("response_format") for *_, body in server.requests]
    assert [one and one["type"] for one in found] == formats
    assert found[0]["json_schema"]["schema"] == SCHEMA
    asked.complete([QUESTION], schema=SCHEMA)
    last = server.requests[-1][-1].get("response_format")
    assert (last and last["type"]) == formats[-1]
    assert len(server.requests) == len(formats) + 1
    asked.complete([QUESTION])
    assert "response_format" not in server.requests[-1][-1]


def test_a_refusal_unrelated_to_the_format_is_an_error(serve):
    with pytest.raises(ServerError, match="status 401"):
        client(serve((401, {}, b""))).complete([QUESTION], schema=SCHEMA)
    with pytest.raises(ServerError, match="status 404"):
        client(serve((404, {}, b""))).complete([QUESTION], schema=SCHEMA)


def test_offline_replies_do_not_depend_on_the_formats_of_the_server(serve, tmp_path):
    server = serve((400, {}, b""), good("kept"))
    client(server, cache_folder=str(tmp_path)).complete([QUESTION], schema=SCHEMA)
    offline = client(server, cache_folder=str(tmp_path), offline=True)
    assert offline.complete([QUESTION], schema=SCHEMA)[0].text == "kept"
    with pytest.raises(ServerError, match="has no reply"):
        offline.complete([QUESTION])
