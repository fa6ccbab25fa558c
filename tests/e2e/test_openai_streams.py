"""Rows 35 to 43 of the contract: streams, callers who leave, full queues, retries."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.audio import TranscriptionTextDoneEvent
from tests.conftest import MakeWav
from tests.e2e.conftest import Server, StartServer
from tests.e2e.openai_calls import ask, connect, refused
from tests.e2e.test_openai_fields import SPEAKERS
from tests.waiting import PATIENCE_S, wait_until


@pytest.fixture(scope="module")
def two_minutes(make_wav: MakeWav) -> bytes:
    return make_wav({1.0 + 2 * i: i for i in range(59)}, 120)


@pytest.fixture(scope="module")
def slow(start_server: StartServer) -> Server:
    """A third of a second a window, one at a time, and room for a single request."""
    return start_server(
        model_path="fake:delay=0.33", batch_size=1, replicas=1, max_concurrent_requests=1
    )


@pytest.mark.row(35)
def test_raw_stream(server: Server, wav: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s.wav"
    path.write_bytes(wav)
    url = f"{server.base_url}/audio/transcriptions"
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["curl", "-sN", "-D", "-", url, "-F", f"file=@{path}", "-F", "stream=true"]
    raw = subprocess.run(command, check=True, capture_output=True, timeout=30).stdout
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"content-type: text/event-stream" in head
    assert b"cache-control: no-store" in head
    lines = body.decode().split("\r\n")
    assert all(line == "" or line.startswith(("data: ", ":")) for line in lines)
    assert body.endswith(b"data: [DONE]\r\n\r\n")
    data = [line[6:] for line in lines if line.startswith("data: ")]
    *deltas, done = [json.loads(text) for text in data[:-1]]
    assert len(deltas) >= 1
    assert done["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in deltas) == done["text"]


@pytest.mark.row(36)
def test_stream_by_client(server: Server, wav: bytes) -> None:
    events = list(ask(connect(server), wav, stream=True))
    assert len(events) >= 2
    assert isinstance(events[-1], TranscriptionTextDoneEvent)
    assert events[-1].usage is None
    assert events[-1].text == "marker-0042 marker-0043"


@pytest.mark.row(37)
def test_first_delta_comes_early(slow: Server, two_minutes: bytes) -> None:
    async def times() -> list[float]:
        async with AsyncOpenAI(
            base_url=slow.base_url, api_key="x", _strict_response_validation=True
        ) as client:
            began = time.monotonic()
            stream = await client.audio.transcriptions.create(
                file=("s.wav", two_minutes),
                model="whisper-1",
                stream=True,
                language="en",
                # Long windows full of markers would look like loops and be decoded again.
                extra_body={"chunk_length_s": 8},
            )
            return [time.monotonic() - began async for _ in stream]

    found = asyncio.run(times())
    assert len(found) == 60
    assert found[0] < found[-1] / 2


@pytest.mark.parametrize("shape", ["verbose_json", "srt", "vtt", "text"])
@pytest.mark.row(38)
def test_streams_of_other_formats(server: Server, wav: bytes, shape: str) -> None:
    *deltas, done = list(ask(connect(server), wav, stream=True, response_format=shape))
    assert "".join(event.delta for event in deltas) == done.text
    assert done.type == "transcript.text.done"


@pytest.mark.row(39, refused=SPEAKERS)
def test_diarized_stream(server: Server, wav: bytes) -> None:
    error = refused(connect(server), wav, stream=True, response_format="diarized_json")
    assert (error.param, error.code) == ("response_format", "unsupported_value")


@pytest.mark.row(40)
def test_broken_file_and_broken_engine(
    start_server: StartServer, wav: bytes, two_minutes: bytes
) -> None:
    server = start_server(model_path="fake:fail_on=5", batch_size=1, replicas=1, chunk_length_s=8)
    refused(connect(server), wav, stream=True, file=("s.wav", b"broken"))
    with pytest.raises(openai.APIError) as caught:
        list(ask(connect(server), two_minutes, stream=True, language="en"))
    assert not isinstance(caught.value, openai.APIStatusError)
    assert caught.value.type == "server_error"
    assert caught.value.code == "engine_error"


def upload_head(server: Server, length: int) -> bytes:
    return (
        f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {length}\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="file"; filename="s.wav"\r\n\r\n'
    ).encode()


def served(server: Server) -> str:
    """The audio that was transcribed to its end, as the server's metrics have it."""
    lines = server.get("/metrics").text.splitlines()
    return next(line for line in lines if line.startswith("whisper_audio_seconds_total "))


@pytest.mark.row(41)
def test_leaving_in_the_stream(slow: Server, two_minutes: bytes) -> None:
    before = served(slow)
    url = f"{slow.base_url}/audio/transcriptions"
    files = {"file": ("s.wav", two_minutes)}
    data = {"stream": "true", "language": "en", "chunk_length_s": "8"}
    with httpx.stream("POST", url, files=files, data=data, timeout=30) as answer:
        next(answer.iter_bytes())
    slow.wait_until_idle(PATIENCE_S)
    assert served(slow) == before
    assert slow.get("/health").status_code == 200


@pytest.mark.row(41)
def test_leaving_before_the_answer(slow: Server, two_minutes: bytes) -> None:
    before = served(slow)
    url = f"{slow.base_url}/audio/transcriptions"
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, files={"file": ("s.wav", two_minutes)}, timeout=0.8)
    slow.wait_until_idle(PATIENCE_S)
    assert served(slow) == before


@pytest.mark.row(41)
def test_leaving_in_the_upload(slow: Server) -> None:
    with socket.create_connection(("127.0.0.1", slow.port), 10) as link:
        link.sendall(upload_head(slow, 10 << 20) + b"\0" * (2 << 20))
        wait_until(slow.leftovers)
    slow.wait_until_idle(PATIENCE_S)
    assert slow.get("/health").status_code == 200


@pytest.mark.row(42)
def test_full_queue(slow: Server, wav: bytes, make_wav: MakeWav) -> None:
    blocker = threading.Thread(
        target=ask, args=(connect(slow), make_wav({1.0: 1}, 180)), kwargs={"language": "en"}
    )
    blocker.start()
    while not slow.get("/v1/queue").json()["requests"]:
        time.sleep(0.01)
    seen: list[tuple[float, int, Any]] = []

    def note(answer: httpx.Response) -> None:
        seen.append((time.monotonic(), answer.status_code, answer.headers.get("retry-after")))

    http = httpx.Client(event_hooks={"response": [note]}, timeout=30)
    client = connect(slow, max_retries=6, http_client=http)
    assert ask(client, wav, language="en").text == "marker-0042 marker-0043"
    blocker.join()
    assert (seen[0][1], seen[-1][1]) == (429, 200)
    wait = int(seen[0][2])
    assert 1 <= wait <= 120
    assert seen[1][0] - seen[0][0] >= wait


@pytest.mark.row(43)
def test_permanent_failures_are_not_retried(start_server: StartServer, wav: bytes) -> None:
    server = start_server(model_path="fake:nonsense=1")
    sent: list[httpx.Request] = []
    http = httpx.Client(event_hooks={"request": [sent.append]}, timeout=30)
    client = connect(server, max_retries=2, http_client=http)
    with pytest.raises(openai.InternalServerError):
        ask(client, wav)
    assert len(sent) == 1
