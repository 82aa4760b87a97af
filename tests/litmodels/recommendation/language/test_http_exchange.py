"""Requests to a server that is slow, sends too much, or repeats the key."""

import gzip
import json
import os
import re
import socket
import stat
import threading
import time

import pytest

from lightning_plugins.litmodels.recommendation.language.chat_protocol import parsed_reply
from lightning_plugins.litmodels.recommendation.language.chat_server import ChatServer, ServerError
from lightning_plugins.litmodels.recommendation.language.http_exchange import check_address, key_of

QUESTION = [{"role": "user", "content": "A path, please"}]
KEY = "sk-0123456789abcdef"


def answer(body, *headers):
    head = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def reply(text):
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def whole_request(connection):
    """Read the head and the body; a server that leaves bytes unread resets the connection."""
    content = b""
    while b"\r\n\r\n" not in content:
        content += connection.recv(2**16)
    head, _, body = content.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
    while len(body) < length:
        body += connection.recv(2**16)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def serve():
    """Start a server that sends raw bytes: each part after a pause, until the client leaves."""
    stopped = threading.Event()
    listeners = []

    def start(*parts, pause=0.0):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        seen = []

        def handle(connection):
            with connection:
                seen.append(whole_request(connection))
                for part in parts:
                    if stopped.wait(pause):
                        return
                    try:
                        connection.sendall(part)
                    except OSError:
                        return

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1", seen

    yield start
    stopped.set()
    for listener in listeners:
        listener.close()


def ask(url, **settings):
    settings = {"max_tries": 1, "timeout_seconds": 5, **settings}
    (answered,) = ChatServer(url, "m", **settings).complete([QUESTION])
    return answered


@pytest.mark.parametrize(
    "parts",
    [
        [b"H", b"T", b"T", b"P"] * 100,
        [b"HTTP/1.1 200 OK\r\n", *[b"X-A: 1\r\n"] * 400],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", *[b" "] * 400],
        [b"HTTP/1.1 400 Bad\r\nContent-Length: 900\r\n\r\n", *[b" "] * 400],
    ],
    ids=["status", "headers", "body", "error"],
)
def test_one_deadline_holds_for_every_part_of_the_answer(serve, parts):
    url, _ = serve(*parts, pause=0.05)
    begin = time.monotonic()
    answered = ask(url, timeout_seconds=0.4)
    assert "no complete reply within 0.4 s" in answered.failure
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_the_size_is_bounded_before_and_after_decompression(serve, encoding):
    body = b" " * 5_000_000
    if encoding == "gzip":
        body = gzip.compress(body)
        assert len(body) < 10_000
    url, _ = serve(answer(body, f"Content-Encoding: {encoding}"))
    assert "bytes of a server's reply" in ask(url).failure


def test_a_compressed_reply_is_read(serve):
    url, _ = serve(answer(gzip.compress(reply("fine")), "Content-Encoding: gzip"))
    assert ask(url).text == "fine"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://user:password@host/v1",
            "https://key@host/v1",
            "ftp://host",
            "file:///etc/passwd",
        ),
        *("http://", "http://host/ v1", "http://host/\r\nX: 1", ""),
    ],
)
def test_an_address_with_a_password_or_of_another_kind_is_refused(url):
    with pytest.raises(ValueError, match="base_url") as error:
        check_address(url)
    assert "password@" not in str(error.value)
    assert "key@" not in str(error.value)


def test_a_key_is_sent_without_white_space(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\r\n")
    url, seen = serve(answer(reply("fine")))
    assert ask(url).text == "fine"
    assert f"Authorization: Bearer {KEY}\r\n".encode() in seen[0]


@pytest.mark.parametrize("key", [f"{KEY}\n{KEY}", f"{KEY}é", f"{KEY} {KEY}"])
def test_an_impossible_key_is_an_error_that_does_not_contain_it(key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ValueError, match="OPENAI_API_KEY") as error:
        key_of("OPENAI_API_KEY")
    assert KEY not in str(error.value)


def test_a_key_is_in_no_reply_error_or_cached_file(serve, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    url, _ = serve(answer(reply(f"your key is {KEY}")))
    assert ask(url, cache_folder=str(tmp_path)).text == "your key is [key]"
    broken, _ = serve(f"HTTP/1.1 {KEY}\r\n\r\n".encode())
    assert KEY not in ask(broken, cache_folder=str(tmp_path)).failure
    refusing, _ = serve(f"HTTP/1.1 400 {KEY}\r\nContent-Length: 19\r\n\r\n{KEY}".encode())
    assert KEY not in ask(refusing, cache_folder=str(tmp_path)).failure
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(KEY in path.read_text() for path in files)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_cached_replies_are_private_files(serve, tmp_path):
    before = os.umask(0)
    try:
        url, _ = serve(answer(reply("fine")))
        ask(url, cache_folder=str(tmp_path))
    finally:
        os.umask(before)
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "HOME", "", "openai_api_key", "x" * 999])
def test_a_key_is_read_from_a_listed_variable_only(name, monkeypatch):
    with pytest.raises(ValueError, match="api_key_variable") as error:
        ChatServer("http://host/v1", "m", api_key_variable=name)
    assert len(str(error.value)) < 600
    if name:
        monkeypatch.setenv("LIGHTNING_PLUGINS_KEY_VARIABLES", f"OTHER,{name}")
        assert ChatServer("http://host/v1", "m", api_key_variable=name).api_key_variable == name


def test_a_closed_port_is_an_error_of_the_run(serve):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ServerError, match="Connection refused"):
        ask(f"http://127.0.0.1:{port}/v1")


@pytest.mark.parametrize("count", [10**4000, -1, 10**400, True, 1.5, "7", None])
def test_an_impossible_number_of_tokens_does_not_change_the_usage(count):
    body = {"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": count}}
    usage = parsed_reply(json.dumps(body).encode()).usage
    assert 1e-6 * usage.prompt_tokens <= 1
