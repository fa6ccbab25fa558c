"""Callers that leave, run out of patience and come again, and what they find: real connections."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import httpx
import pytest
from tests.conftest import MakeWav
from tests.e2e.conftest import Server, StartServer
from tests.e2e.openai_calls import ask, connect
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.slow
WINDOWS = 10
TEXT = " ".join(f"marker-{n:04d}" for n in range(WINDOWS))
FORM = {"language": "en", "chunk_length_s": "10"}
RETRY = {"x-stainless-retry-count": "1"}


@pytest.fixture(scope="module")
def long(make_wav: MakeWav) -> bytes:
    """Ten windows of ten seconds, a marker in each."""
    return make_wav({1.0 + 10 * n: n for n in range(WINDOWS)}, 10 * WINDOWS - 5)


@pytest.fixture(scope="module")
def slow(start_server: StartServer) -> Server:
    """A third of a second a window, one at a time."""
    return start_server(model_path="fake:delay=0.35", batch_size=1, replicas=1)


def url(server: Server) -> str:
    return f"{server.base_url}/audio/transcriptions"


def post(server: Server, audio: bytes, **more: Any) -> httpx.Response:
    data = {**FORM, **more.pop("data", {})}
    return httpx.post(url(server), files={"file": ("a.wav", audio)}, data=data, **more)


def counted(server: Server, name: str) -> float:
    """A counter of the server's."""
    lines = server.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def windows(server: Server) -> float:
    """Windows decoded so far."""
    return counted(server, "whisper_batch_size_sum")


def begin(server: Server, audio: bytes) -> socket.socket:
    """A request that was sent, and whose answer nobody reads."""
    request = httpx.Request("POST", url(server), files={"file": ("a.wav", audio)}, data=FORM)
    head = f"POST {request.url.path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
    head += f"Content-Type: {request.headers['content-type']}\r\n"
    head += f"Content-Length: {request.headers['content-length']}\r\n\r\n"
    link = socket.create_connection(("127.0.0.1", server.port), 20)
    link.sendall(head.encode() + request.read())
    return link


@pytest.mark.row(41)
def test_a_retry_goes_on_where_its_caller_left(slow: Server, long: bytes) -> None:
    before = windows(slow)
    with begin(slow, long):
        while windows(slow) - before < 3:
            time.sleep(0.05)
    slow.wait_until_idle(PATIENCE_S)
    assert windows(slow) - before < WINDOWS
    answer = post(slow, long, headers=RETRY, timeout=PATIENCE_S)
    assert answer.headers["x-cache"] == "resumed"
    assert answer.json()["text"] == TEXT
    # The window that ran when the caller left is decoded again at most.
    assert windows(slow) - before <= WINDOWS + 1


def test_the_clients_own_retries_reach_the_end(slow: Server, long: bytes) -> None:
    seen: list[tuple[int, str]] = []

    def note(answer: httpx.Response) -> None:
        seen.append((answer.status_code, answer.headers.get("x-cache", "")))

    http = httpx.Client(event_hooks={"response": [note]})
    client = connect(slow, max_retries=8, timeout=2, http_client=http)
    anew = {"prompt": "work of its own", "extra_body": {"chunk_length_s": 10}}
    found = ask(client, long, language="en", **anew)
    assert found.text == TEXT
    assert [status for status, _ in seen][:-1] == [408] * (len(seen) - 1)
    assert len(seen) > 1
    assert seen[-1] == (200, "resumed")


@pytest.mark.row(41)
def test_a_stream_that_was_left_begins_again_with_all_its_deltas(slow: Server, long: bytes) -> None:
    before, data = windows(slow), {"stream": "true", "prompt": "a stream"}
    files = {"file": ("a.wav", long)}
    with httpx.stream(
        "POST", url(slow), files=files, data={**FORM, **data}, timeout=PATIENCE_S
    ) as answer:
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(3)][2].startswith("data: ")
    slow.wait_until_idle(PATIENCE_S)
    answer = post(slow, long, data=data, headers=RETRY, timeout=PATIENCE_S)
    assert answer.headers["x-cache"] == "resumed"
    frames = [line[6:] for line in answer.text.split("\r\n") if line.startswith("data: {")]
    *deltas, done = map(json.loads, frames)
    assert "".join(event["delta"] for event in deltas) == done["text"] == TEXT
    assert windows(slow) - before <= WINDOWS + 1


def test_a_stream_joins_a_plain_request_and_hears_it_from_the_start(
    slow: Server, long: bytes
) -> None:
    form = {**FORM, "prompt": "two at once", "stream": "true"}
    with httpx.stream(
        "POST", url(slow), files={"file": ("a.wav", long)}, data=form, timeout=30
    ) as first:
        lines = first.iter_lines()
        assert next(lines).startswith("data: ")
        second = post(slow, long, data={"prompt": "two at once"}, timeout=PATIENCE_S)
        assert second.headers["x-cache"] == "joined"
        assert second.json()["text"] == TEXT
        assert json.loads(list(lines)[-4][6:])["text"] == TEXT


def test_an_idempotency_key_by_the_client(slow: Server, long: bytes) -> None:
    client, short = connect(slow), long[: 44 + 64_000]

    def call(name: str, model: str) -> Any:
        return client.audio.transcriptions.with_raw_response.create(
            file=(name, short),
            model=model,
            language="en",
            extra_headers={"Idempotency-Key": "order-66"},
        )

    first, again = call("a.wav", "whisper-1"), call("b.wav", "gpt-4o-transcribe")
    assert [answer.headers["x-cache"] for answer in (first, again)] == ["miss", "hit"]
    assert first.parse().text == again.parse().text == "marker-0000"


def test_white_space_arrives_before_the_answer_and_leaving_then_stops_the_work(
    start_server: StartServer, long: bytes
) -> None:
    server = start_server(
        model_path="fake:delay=0.35", batch_size=1, replicas=1, json_keep_alive_s=0.3
    )
    with begin(server, long) as link:
        got = b""
        while b"\r\n\r\n1\r\n\n\r\n" not in got:
            got += link.recv(65_536)
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"content-type: application/json" in got
        assert server.get("/v1/queue").json()["requests"] == 1
    server.wait_until_idle(PATIENCE_S)
    assert windows(server) < WINDOWS
    answer = post(server, long, headers=RETRY, timeout=PATIENCE_S)
    assert answer.headers["x-cache"] == "resumed"
    assert answer.json()["text"] == TEXT


def test_limits_are_told_in_openais_headers(start_server: StartServer, wav: bytes) -> None:
    server = start_server(requests_per_minute=2)
    client = connect(server)

    def call() -> Any:
        return client.audio.transcriptions.with_raw_response.create(
            file=("a.wav", wav), model="whisper-1"
        )

    left = [call().headers["x-ratelimit-remaining-requests"] for _ in range(2)]
    assert left == ["1", "0"]
    began = time.monotonic()
    with pytest.raises(Exception, match="429") as caught:
        call()
    refused = caught.value
    assert type(refused).__name__ == "RateLimitError"
    headers = refused.response.headers  # type: ignore[attr-defined]
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-reset-requests"]
    assert 1 <= int(headers["retry-after"]) <= 120
    assert time.monotonic() - began < 30  # it did not wait for the minute to end
