"""The server under load, and clients of it; what ``load.py`` measures with."""

from __future__ import annotations

import asyncio
import io
import json
import random
import subprocess
import sys
import time
import wave
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "src" / "whisper_api" / "assets" / "sample.wav"
URL = "/v1/audio/transcriptions"
PROBE = """
import json, sys, threading, time, httpx
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
found = []
with httpx.Client(base_url=sys.argv[1], timeout=60) as client:
    while not stop.is_set():
        started = time.perf_counter()
        status = client.get("/health").status_code
        found.append([status, time.perf_counter() - started])
        time.sleep(0.02)
print(json.dumps(found))
"""
"""Asks /health until its input is closed: the clients' own process is too busy to time it."""


def recording(seconds: float) -> bytes:
    """The sample's speech over and over as WAV, ``seconds`` long; no two are equal."""
    with wave.open(str(SAMPLE)) as file:
        rate, frames = file.getframerate(), file.readframes(file.getnframes())
    size = 2 * int(seconds * rate)
    data = bytearray((frames * (size // len(frames) + 1))[:size])
    data[-64:] = random.randbytes(64)
    out = io.BytesIO()
    with wave.open(out, "wb") as target:
        target.setparams((1, 2, rate, 0, "NONE", ""))
        target.writeframes(bytes(data))
    return out.getvalue()


def percentile(values: list[float], p: float) -> float | None:
    """The value below which ``p`` percent lie (nearest rank)."""
    ordered = sorted(values)
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * int(p) // 100) - 1))], 4)


@dataclass
class Tally:
    """What happened to requests."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        """Percentiles in seconds, and how requests ended."""
        return {
            "requests": sum(self.statuses.values()),
            "statuses": dict(self.statuses),
            **{f"p{p}": percentile(self.seconds, p) for p in (50, 95, 99)},
        }


class Server:
    """``whisper-api serve`` in a process of its own."""

    def __init__(self, engine: str, model: str, folder: Path, flags: Iterable[str] = ()) -> None:
        command = [sys.executable, "-m", "whisper_api", "serve", "--port", "0"]
        command += ["--engine", engine, "--model", model, "--data-dir", str(folder)]
        command += ["--log-level", "ERROR", *flags]
        self.folder = folder
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.url = next(word for word in line.split() if word.startswith("http://"))

    def rss(self) -> float:
        """Resident memory of the server's own process in MB, decode workers left out."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return round(int(line.split()[1]) / 1024, 1)
        return 0.0

    def scratch(self) -> int:
        """Request folders that are left."""
        return len(list((self.folder / "scratch").glob("*/request-*")))

    def end(self) -> None:
        """Whatever it does."""
        self.process.kill()
        self.process.wait()


class Load:
    """Requests to one server."""

    def __init__(self, server: Server, form: dict[str, str] | None = None) -> None:
        """``form`` goes along with every recording."""
        self.server = server
        self._form = form or {}
        limits = httpx.Limits(max_connections=None)
        self.client = httpx.AsyncClient(base_url=server.url, timeout=3600, limits=limits)

    async def send(self, wav: bytes, tally: Tally) -> None:
        """One transcription."""
        started = time.perf_counter()
        try:
            answer = await self.client.post(
                URL,
                files={"file": ("a.wav", wav)},
                data=self._form,
                headers={"cache-control": "no-store"},
            )
            tally.statuses[str(answer.status_code)] += 1
            if answer.status_code == 200:
                tally.seconds.append(time.perf_counter() - started)
        except httpx.HTTPError as error:
            tally.statuses[type(error).__name__] += 1

    async def ready(self) -> dict[str, Any]:
        """Wait for the model; what ``/ready`` says then."""
        for _ in range(3000):
            answer = await self.client.get("/ready")
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
            await asyncio.sleep(0.2)
        raise RuntimeError("the model does not load")

    async def warm(self) -> None:
        """First requests are slower than others."""
        for _ in range(3):
            await self.send(recording(3), Tally())

    async def queue(self) -> dict[str, Any]:
        """``/v1/queue``."""
        found: dict[str, Any] = (await self.client.get("/v1/queue")).json()
        return found

    async def holds(self, requests: int) -> bool:
        """Whether so many requests are in the queue, within ten minutes."""
        for _ in range(6000):
            if (await self.queue())["requests"] >= requests:
                return True
            await asyncio.sleep(0.1)
        return False

    async def works(self) -> float:
        """Wait until the engine has worked for a while; the audio seconds that are left then."""
        busy = 0
        for _ in range(6000):
            queue = await self.queue()
            busy += bool(queue["running_batches"])
            if busy >= 20:
                return float(queue["queued_seconds"])
            await asyncio.sleep(0.1)
        raise RuntimeError("the engine does nothing")

    async def idle(self) -> float | None:
        """Seconds until nothing is left of earlier work; None if that takes over a minute."""
        started = time.perf_counter()
        while (took := time.perf_counter() - started) < 60:
            queue = await self.queue()
            if not queue["requests"] and not queue["running_batches"] and not self.server.scratch():
                return round(took, 2)
            await asyncio.sleep(0.05)
        return None

    async def clients(self, count: int, recordings: Iterable[bytes], tally: Tally) -> float:
        """``count`` clients, each with one request after the other; the seconds it took."""
        todo = iter(recordings)

        async def client() -> None:
            for wav in todo:
                await self.send(wav, tally)

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(count)))
        return time.perf_counter() - started


@asynccontextmanager
async def health_of(server: Server) -> AsyncIterator[Tally]:
    """How ``/health`` fares meanwhile, asked by a process of its own; known at the end."""
    health, pipe = Tally(), asyncio.subprocess.PIPE
    command = [sys.executable, "-c", PROBE, server.url]
    probe = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        yield health
    finally:
        output, _ = await probe.communicate(b"")  # closes its input, at which it ends
    for status, seconds in json.loads(output):
        health.statuses[str(status)] += 1
        health.seconds.append(seconds)
