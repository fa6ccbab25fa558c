"""Many clients at a real server: what must hold whatever the machine's speed.

How fast it is there, ``benchmarks/load.py`` measures.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from tests.conftest import marked
from tests.e2e.conftest import Server, StartServer

pytestmark = pytest.mark.slow

URL = "/v1/audio/transcriptions"
ROOM = 12
"""Requests that the server holds at the same time."""
STEPS = (1, 4, 16, 40)
PATIENCE = 600.0
"""Seconds that no answer may take on any machine."""


@pytest.fixture(scope="module")
def crowded(start_server: StartServer) -> Server:
    """Few places, short batches, an engine that takes its time."""
    return start_server(
        model_path="fake:delay=0.05",
        batch_size=4,
        decode_workers=2,
        max_concurrent_requests=ROOM,
    )


class Client:
    """Sends recordings and counts what comes back."""

    def __init__(self, server: Server) -> None:
        limits = httpx.Limits(max_connections=None)
        self.http = httpx.AsyncClient(base_url=server.root, timeout=PATIENCE, limits=limits)
        self.statuses: Counter[int] = Counter()

    async def post(self, number: int, seconds: float, **fields: str) -> httpx.Response:
        files = {"file": marked({0.5: number}, seconds)}
        headers = {"cache-control": "no-store"}
        data = {"language": "en", **fields}
        answer = await self.http.post(URL, files=files, data=data, headers=headers)
        self.statuses[answer.status_code] += 1
        return answer

    async def insist(self, number: int, seconds: float) -> str:
        """The text, however often the queue is full."""
        while True:
            answer = await self.post(number, seconds)
            if answer.status_code != 429:
                answer.raise_for_status()
                return str(answer.json()["text"])
            assert int(answer.headers["retry-after"]) >= 1
            await asyncio.sleep(0.2)  # sooner than told: the queue must stay full

    async def metric(self, line: str) -> float:
        """A value of ``/metrics``; 0 where it is not there yet."""
        text = (await self.http.get("/metrics")).text
        found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def wait_for(self, requests: int) -> None:
        """Until so many are in the queue."""
        for _ in range(int(PATIENCE / 0.05)):
            if (await self.http.get("/v1/queue")).json()["requests"] >= requests:
                return
            await asyncio.sleep(0.05)
        pytest.fail("the requests do not arrive")


@contextmanager
def asking_health(server: Server) -> Iterator[Counter[int]]:
    """Asks ``/health`` all the time, in a thread of its own."""
    seen, over = Counter[int](), threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=server.root, timeout=PATIENCE) as client:
            while not over.wait(0.02):
                seen[client.get("/health").status_code] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


async def test_everybody_is_answered_once_however_many_come(crowded: Server) -> None:
    client, total = Client(crowded), 0
    windows = await client.metric("whisper_batch_size_sum")
    with asking_health(crowded) as health:
        for clients in STEPS:

            async def several(first: int) -> list[str]:
                return [await client.insist(number, 3) for number in (first, first + 1)]

            firsts = range(100, 100 + 2 * clients, 2)
            texts = await asyncio.gather(*(several(first) for first in firsts))
            for first, pair in zip(firsts, texts, strict=True):
                assert pair == [f"marker-{first:04d}", f"marker-{first + 1:04d}"]
            total += 2 * clients
    assert health.keys() == {200}
    assert client.statuses.keys() <= {200, 429}
    assert client.statuses[429] > 0  # the last step is more than the server has room for
    assert client.statuses[200] == total
    # Nothing was decoded twice or in vain.
    assert await client.metric("whisper_batch_size_sum") - windows == total
    crowded.wait_until_idle(PATIENCE)
    assert await client.metric('whisper_queued_seconds{lane="interactive"}') == 0
    await client.http.aclose()


async def test_nothing_is_left_of_clients_who_leave(crowded: Server) -> None:
    client = Client(crowded)
    before = await client.metric("whisper_audio_seconds_total")
    leaving = [
        # An hour of engine time each: it cannot end by itself.
        asyncio.create_task(client.post(n, 3600, chunk_length_s="1"))
        for n in range(4)
    ]
    await client.wait_for(len(leaving))
    staying = [asyncio.create_task(client.insist(n, 3)) for n in range(10, 16)]
    await client.wait_for(len(leaving) + 1)
    for task in leaving:
        task.cancel()
    assert await asyncio.gather(*staying) == [f"marker-{n:04d}" for n in range(10, 16)]
    ended = await asyncio.gather(*leaving, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in ended)
    crowded.wait_until_idle(PATIENCE)
    queue = (await client.http.get("/v1/queue")).json()
    assert queue["running_batches"] == queue["queued_seconds"] == 0
    # Only who stayed was served to the end.
    assert await client.metric("whisper_audio_seconds_total") - before == pytest.approx(6 * 3)
    await client.http.aclose()
