"""ChatServer against a local server that fails as scripted."""

import json
import re
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from lightning_plugins.litmodels.recommendation.language.chat_server import ChatServer, ServerError
from lightning_plugins.litmodels.recommendation.planners import Knowledge, LanguageModel, Sessions
from lightning_plugins.nn.recommendation import Catalogue, GRU4Rec, Item
from lightning_plugins.nn.recommendation.catalogue import text_vectors

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
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    server = serve(good("a path", "length"))
    asked = client(server, api_key_variable="VLLM_API_KEY", temperature=0.5, max_tokens=7)
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
    (reply,) = client(broken, timeout_seconds=1).complete([QUESTION])
    assert reply.failure.startswith("no valid reply in 3 tries: ")
    assert len(broken.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_refusal_is_not_retried_and_its_reason_contains_no_key(serve, status, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server = serve((status, {}, b"the key secret\nis odd"))
    if status in (401, 403, 404):  # these concern every request
        with pytest.raises(ServerError, match=f"refused the request: status {status}") as caught:
            client(server).complete([QUESTION])
        reason = caught.value.reason
    else:
        (reply,) = client(server).complete([QUESTION])
        reason = reply.failure
    assert len(server.requests) == 1
    assert reason == f"status {status}: the key [key] is odd"


def test_a_server_that_cannot_be_reached_is_an_error(serve):
    server = serve(good())
    server.shutdown()
    server.server_close()
    with pytest.raises(ServerError, match="no valid reply in 2 tries: URLError"):
        client(server, max_tries=2).complete([QUESTION])


def mixed(handler):
    """Answers by the content of the question, so that concurrency cannot change the outcome."""
    question = handler.body["messages"][0]["content"]
    if question == "timeout":
        time.sleep(0.9)
    message = {"content": None}
    finish = "stop"
    if question == "parts":
        message["content"] = [{"type": "text", "text": "two "}, {"type": "text", "text": "parts"}]
    elif question == "reasoning":
        message["reasoning_content"] = "only thoughts"
    elif question == "tool":
        message["tool_calls"] = [{"type": "function", "function": {"name": "f"}}]
    elif question == "refusal":
        message["refusal"] = "not this"
    elif question == "filter":
        finish = "content_filter"
    elif question == "good":
        message["content"] = "fine"
    elif question == "junk":
        return handler.send(200, {}, b"<html>")
    elif question.isdecimal():
        error = {"error": {"message": f"message of {question}", "code": f"code_{question}"}}
        return handler.send(int(question), {}, json.dumps(error).encode())
    choice = {"message": message, "finish_reason": finish}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    handler.send(200, {}, json.dumps({"choices": [choice], "usage": usage}).encode())


OUTCOMES = {
    "good": "fine",
    "400": "status 400: message of 400 (code_400)",
    "413": "status 413: message of 413 (code_413)",
    "422": "status 422: message of 422 (code_422)",
    "429": "no valid reply in 2 tries: status 429: message of 429 (code_429)",
    "500": "no valid reply in 2 tries: status 500: message of 500 (code_500)",
    "parts": "two parts",
    "timeout": "no valid reply in 2 tries: TimeoutError",
    "junk": "no valid reply in 2 tries: JSONDecodeError",
    "tool": "the model called a tool instead of replying",
    "filter": "the reply was blocked by a content filter",
    "refusal": "the model refused: not this",
    "reasoning": "only thoughts",
}


def test_each_request_stands_for_itself_and_offline_replays_the_failures(serve, tmp_path):
    server = serve(mixed)
    settings = {"max_tries": 2, "timeout_seconds": 0.3, "cache_folder": str(tmp_path)}
    questions = [[{"role": "user", "content": kind}] for kind in OUTCOMES]
    asked = client(server, **settings, prompt_price=2.0, completion_price=4.0, max_concurrency=8)
    replies = asked.complete(questions)
    for reply, expected in zip(replies, OUTCOMES.values(), strict=True):
        assert (reply.text + reply.failure).startswith(expected)
    texts = [reply.text for reply in replies if not reply.failure]
    assert texts == ["fine", "two parts", "only thoughts"]
    assert replies[0].usage == (1, 10, 5, pytest.approx(40e-6))
    assert asked.usage[:3] == (6, 60, 30)
    sent = len(server.requests)
    assert client(server, **settings, offline=True).complete(questions) == replies
    assert len(server.requests) == sent
    again = client(server, **settings).complete(questions[:2])
    assert [reply.failure != "" for reply in again] == [False, True]
    assert len(server.requests) == sent + 1  # only the refused request


def test_a_server_that_fails_in_every_way_loses_no_user(serve):
    """The outcome of a user is chosen by the title of the film that the user has seen."""
    kinds = [kind for kind in OUTCOMES if kind not in ("good", "parts", "reasoning")]
    films = [Item(name) for name in (*kinds, "good", "A", "B", "C", "T")]
    number = {film.title: place for place, film in enumerate(films, 1)}

    def answer(handler):
        messages = handler.body["messages"]
        seen = messages[1]["content"].splitlines()[1].removeprefix("- ")
        handler.body["messages"] = [{"content": seen}]
        if seen == "good":
            return handler.send(*good('["A", "B"]'))
        return mixed(handler)

    catalogue = Catalogue(films)
    network = GRU4Rec(len(films), dim=4, max_length=5).eval().requires_grad_(False)
    known = Knowledge(network, catalogue, torch.ones(len(films) + 1), text_vectors(catalogue))
    histories = [[number[kind]] for kind in (*kinds, "good")]
    sessions = Sessions(histories, [number["T"]] * len(histories), len(films), 2)
    asked = client(serve(answer), max_tries=2, timeout_seconds=0.3, max_concurrency=8)
    planner = LanguageModel(asked, on_invalid="fallback")
    planner.begin(0)
    message = f"{len(kinds)} of {len(kinds) + 1} plans of a batch have no reply"
    with pytest.warns(UserWarning, match=message):
        sessions.recommend(planner.next_items(sessions, known))
    sessions.take(torch.ones(len(histories), dtype=torch.bool))
    sessions.recommend(planner.next_items(sessions, known))
    assert [len(path) for path in sessions.paths] == [2] * len(histories)
    assert sessions.paths[-1] == [number["A"], number["B"]]
    for kind, problem in zip(kinds, sessions.problems, strict=False):
        assert problem.startswith(OUTCOMES[kind]), kind
    assert sessions.problems[-1] == ""


@pytest.mark.parametrize("is_always_refused", [True, False])
def test_a_refused_conversation_does_not_change_the_format_of_the_others(serve, is_always_refused):
    def answer(handler):
        is_long = handler.body["messages"][0]["content"] == "long"
        is_refused = is_long and (is_always_refused or "response_format" in handler.body)
        handler.send(*((400, {}, b'{"error": "too many tokens"}') if is_refused else good("{}")))

    server = serve(answer)
    asked = client(server, max_concurrency=1)
    long = [{"role": "user", "content": "long"}]
    replies = asked.complete([long, QUESTION], schema={"type": "object"})
    failure = "status 400: too many tokens" if is_always_refused else ""
    assert [reply.failure for reply in replies] == [failure, ""]
    assert server.requests[-1][-1]["response_format"]["type"] == "json_schema"


def test_max_completion_tokens_are_sent_where_the_server_requires_them(serve):
    message = b'{"error": {"message": "use \'max_completion_tokens\' instead"}}'
    server = serve((400, {}, message), good())
    asked = client(server, max_tokens=7, temperature=None, extra_body={"top_p": 0.5})
    for _ in range(2):
        assert asked.complete([QUESTION])[0].text == "fine"
    *_, last = (body for *_, body in server.requests)
    assert len(server.requests) == 3
    assert (last["max_completion_tokens"], last["top_p"]) == (7, 0.5)
    assert not {"max_tokens", "temperature"} & set(last)


def test_a_stream_is_joined_to_one_reply(serve):
    deltas = [
        {"role": "assistant", "content": "a "},
        {"reasoning_content": "x"},
        {"content": "path"},
    ]
    events = [{"choices": [{"delta": delta}]} for delta in deltas]
    events += [{"choices": [{"delta": {}, "finish_reason": "length"}]}]
    events += [{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}]
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    server = serve((200, {}, "".join([": ping\n\n", *lines, "data: [DONE]\n\n"]).encode()))
    (reply,) = client(server, stream=True).complete([QUESTION])
    assert (reply.text, reply.is_truncated, reply.usage) == ("a path", True, (1, 3, 2, 0.0))
    assert server.requests[0][-1]["stream"] is True


def test_no_request_is_sent_once_the_budget_is_used_up(serve):
    server = serve(mixed)
    asked = client(server, max_total_tokens=20, max_concurrency=1)
    replies = asked.complete([[{"role": "user", "content": "good"}]] * 4)
    assert [reply.text for reply in replies] == ["fine", "fine", "", ""]
    assert replies[2].failure == "the budget max_total_tokens=20 is used up"
    assert len(server.requests) == 2


def test_a_redirect_is_not_followed(serve):
    other = serve(good())
    server = serve((307, {"Location": other.url + "/chat/completions"}, b""))
    with pytest.raises(ServerError, match="status 307"):
        client(server).complete([QUESTION])
    assert not other.requests


@pytest.mark.parametrize("slow", [drip, silence])
def test_a_slow_server_fails_after_the_timeout(serve, slow):
    server = serve(slow)
    start = time.monotonic()
    (reply,) = client(server, timeout_seconds=0.3, max_tries=1).complete([QUESTION])
    assert re.match(r"no valid reply in 1 tries: (TimeoutError|URLError)", reply.failure)
    assert time.monotonic() - start < 3


def test_a_reply_beyond_the_size_limit_fails(serve):
    (reply,) = client(serve(flood), max_tries=1).complete([QUESTION])
    assert "bytes of a server's reply" in reply.failure


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
