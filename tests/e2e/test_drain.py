"""A stop signal under load: what fits is finished, the rest is told, nothing hangs or is cut."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.conftest import marked

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM"),
]


class Process:
    """``whisper-api serve`` with an engine that needs a third of a second for each window."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        flags = "--port 0 --engine fake --model fake:delay=0.3 --no-vad --batch-size 1"
        flags += f" --drain-seconds 12 --decode-workers 2 --data-dir {self.data}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "whisper_api", "serve", *flags.split()],
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={k: v for k, v in os.environ.items() if not k.startswith("WHISPER_API_")},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.url = next(word for word in line.split() if word.startswith("http://"))

    def post(self, seconds: int, **fields: str) -> httpx.Response:
        """A recording of which each second is a window."""
        files = {"file": marked({0.5: 9}, seconds)}
        data = {"chunk_length_s": "1", **fields}
        url = f"{self.url}/v1/audio/transcriptions"
        return httpx.post(url, files=files, data=data, timeout=120)

    def stream(self, seconds: int, speaks: threading.Event) -> list[str]:
        """The events of a streamed recording; `speaks` is set at the first of them."""
        fields = {"chunk_length_s": "1", "stream": "true"}
        files = {"file": marked({0.5: 9}, seconds)}
        url = f"{self.url}/v1/audio/transcriptions"
        events = []
        with httpx.stream("POST", url, files=files, data=fields, timeout=120) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    events.append(line)
                    speaks.set()
        return events

    def wait_for(self, requests: int) -> None:
        """Until so many requests are in the queue."""
        for _ in range(3000):
            if httpx.get(f"{self.url}/v1/queue", timeout=60).json()["requests"] >= requests:
                return
            time.sleep(0.02)
        pytest.fail("the requests do not arrive")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    server = Process(tmp_path)
    yield server
    server.process.kill()
    server.process.wait()
    assert server.process.stdout is not None
    server.process.stdout.close()


def test_what_fits_is_finished_and_the_rest_is_told(server: Process) -> None:
    with ThreadPoolExecutor(4) as pool:
        speaks = threading.Event()
        stream = pool.submit(server.stream, 121, speaks)
        assert speaks.wait(60)  # while the server stops, the shorter ones come first
        long = pool.submit(server.post, 120)
        server.wait_for(2)
        short = pool.submit(server.post, 2)
        server.wait_for(3)
        server.process.send_signal(signal.SIGTERM)
        late: Future[httpx.Response] = pool.submit(until_refused, server)

        assert short.result().json()["text"] == "marker-0009"
        refused = long.result()
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "shutting_down"
        assert int(refused.headers["retry-after"]) >= 1
        events = stream.result()
        assert "transcript.text.delta" in events[0]
        assert '"code":"shutting_down"' in events[-1]
        assert late.result().status_code == 503
        assert late.result().json()["error"]["code"] == "shutting_down"
    assert server.process.wait(60) == 0
    assert list((server.data / "scratch").glob("*/request-*")) == []


def until_refused(server: Process) -> httpx.Response:
    """A request that comes while the server stops."""
    wait_until_stopping(server)
    return server.post(3)


def wait_until_stopping(server: Process) -> None:
    for _ in range(3000):
        if httpx.get(f"{server.url}/ready", timeout=60).status_code == 503:
            return
        time.sleep(0.02)
    raise AssertionError("the server does not say that it stops")


def test_a_second_signal_stops_at_once(server: Process) -> None:
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(server.post, 60)
        server.wait_for(1)
        server.process.send_signal(signal.SIGTERM)
        wait_until_stopping(server)  # two signals at once would count as one
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        with pytest.raises(httpx.HTTPError):
            long.result().raise_for_status()
