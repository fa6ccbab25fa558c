"""Load on the real server: latency, throughput, memory and errors while many ask at once.

    python benchmarks/load.py --model bundled
    python benchmarks/load.py --engine fake --model fake:delay_per_second=0.02 --long-seconds 600

Starts ``whisper-api serve`` in a process of its own, sends it recordings over HTTP, and writes
``benchmarks/results/load-<commit>.json`` and, with ``--svg``, a picture of the latencies.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import wave
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "src" / "whisper_api" / "assets" / "sample.wav"
URL = "/v1/audio/transcriptions"
STEPS = (1, 4, 16, 64)
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
    """The sample's speech over and over, ``seconds`` long; no two are equal."""
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


@dataclass
class Tally:
    """What happened to the requests of one phase."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        """Percentiles in seconds, and how requests ended."""
        return {
            "requests": sum(self.statuses.values()),
            "statuses": dict(self.statuses),
            **{f"p{p}": percentile(self.seconds, p) for p in (50, 95, 99)},
        }


def percentile(values: list[float], p: float) -> float | None:
    """The value below which ``p`` percent lie (nearest rank)."""
    ordered = sorted(values)
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * int(p) // 100) - 1))], 4)


class Server:
    """The server under load."""

    def __init__(self, engine: str, model: str, folder: Path, flags: list[str]) -> None:
        command = [sys.executable, "-m", "whisper_api", "serve", "--port", "0"]
        command += ["--engine", engine, "--model", model, "--data-dir", str(folder)]
        command += ["--log-level", "WARNING", *flags]
        self.folder = folder
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.url = next(word for word in line.split() if word.startswith("http://"))

    def rss(self) -> float:
        """Resident memory of the server's own process in MB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return round(int(line.split()[1]) / 1024, 1)
        return 0.0

    def scratch(self) -> int:
        """Request folders that are left."""
        return len(list((self.folder / "scratch").glob("*/request-*")))


class Load:
    """Requests to one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        limits = httpx.Limits(max_connections=None)
        self.client = httpx.AsyncClient(base_url=server.url, timeout=3600, limits=limits)

    async def send(self, wav: bytes, tally: Tally) -> None:
        """One transcription."""
        started = time.perf_counter()
        try:
            files = {"file": ("a.wav", wav)}
            answer = await self.client.post(URL, files=files, headers={"cache-control": "no-store"})
            tally.statuses[str(answer.status_code)] += 1
            if answer.status_code == 200:
                tally.seconds.append(time.perf_counter() - started)
        except httpx.HTTPError as error:
            tally.statuses[type(error).__name__] += 1

    async def ready(self) -> None:
        """Wait for the model."""
        for _ in range(3000):
            if (await self.client.get("/ready")).status_code == 200:
                return
            await asyncio.sleep(0.2)
        raise RuntimeError("the model does not load")

    async def idle(self) -> bool:
        """Whether nothing is left of earlier work, within a minute."""
        for _ in range(600):
            queue = (await self.client.get("/v1/queue")).json()
            if not queue["requests"] and not queue["running_batches"] and not self.server.scratch():
                return True
            await asyncio.sleep(0.1)
        return False

    async def clip_beside_long_files(
        self, files: int, seconds: float, clips: int
    ) -> dict[str, Any]:
        """A 3 s clip alone, and with long files in the queue."""
        alone, beside, ignored = Tally(), Tally(), Tally()
        for _ in range(clips):
            await self.send(recording(3), alone)
        long = [asyncio.create_task(self.send(recording(seconds), ignored)) for _ in range(files)]
        for _ in range(6000):
            if (await self.client.get("/v1/queue")).json()["requests"] >= files:
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(3)  # into their engine work, past the uploads
        for _ in range(clips):
            await self.send(recording(3), beside)
        left = (await self.client.get("/v1/queue")).json()
        for task in long:
            task.cancel()
        await asyncio.gather(*long, return_exceptions=True)
        ratio = (percentile(beside.seconds, 95) or 0) / (percentile(alone.seconds, 95) or 1)
        return {
            "long_files": files,
            "long_seconds": seconds,
            "queued_seconds_at_end": round(left["queued_seconds"]),
            "alone": alone.summary(),
            "beside": beside.summary(),
            "ratio_p95": round(ratio, 2),
            "idle_afterwards": await self.idle(),
        }

    async def many_connections(self, count: int) -> dict[str, Any]:
        """Everybody at once; how /health fares meanwhile, asked by a process of its own."""
        tally, health, wav = Tally(), Tally(), recording(3)
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, "-c", PROBE, self.server.url]
        probe = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        await asyncio.gather(*(self.send(wav, tally) for _ in range(count)))
        output, _ = await probe.communicate(b"")  # closes its input, at which it ends
        for status, seconds in json.loads(output):
            health.statuses[str(status)] += 1
            health.seconds.append(seconds)
        return {"connections": count, **tally.summary(), "health": health.summary()}

    async def step(self, clients: int, requests: int) -> dict[str, Any]:
        """So many clients with a mix of short and longer recordings, one after the other each."""
        tally, audio = Tally(), 0.0
        lengths = [(3.0, 3.0, 3.0, 10.0, 60.0)[n % 5] for n in range(requests)]
        todo = iter(lengths)

        async def client() -> None:
            nonlocal audio
            for seconds in todo:
                await self.send(recording(seconds), tally)
                audio += seconds

        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        wall = time.perf_counter() - started
        speed = {"audio_per_second": round(audio / wall, 2), "rss_mb": self.server.rss()}
        return {"clients": clients, **tally.summary(), **speed}

    async def endurance(self, requests: int) -> dict[str, Any]:
        """Memory over many requests; the first tenth warms up."""
        tally, wav = Tally(), recording(1)
        warm = max(1, requests // 10)

        async def batch(count: int) -> None:
            todo = iter(range(count))

            async def client() -> None:
                for _ in todo:
                    await self.send(wav, tally)

            await asyncio.gather(*(client() for _ in range(8)))

        await batch(warm)
        before = self.server.rss()
        await batch(requests)
        after = self.server.rss()
        growth = round(100 * (after - before) / before, 2) if before else None
        return {**tally.summary(), "rss_before": before, "rss_after": after, "growth": growth}

    async def killed_clients(self, count: int) -> dict[str, Any]:
        """Half of the clients leave in the middle of their request."""
        tally = Tally()
        tasks = [asyncio.create_task(self.send(recording(30), tally)) for _ in range(count)]
        await asyncio.sleep(1)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return {"clients": count, **tally.summary(), "idle_afterwards": await self.idle()}


async def measure(server: Server, asked: argparse.Namespace) -> dict[str, Any]:
    """All phases, one after the other."""
    load = Load(server)
    await load.ready()
    for _ in range(3):
        await load.send(recording(3), Tally())  # warm
    found: dict[str, Any] = {"rss_at_start_mb": server.rss()}
    found["steps"] = [await load.step(n, max(10, 2 * n)) for n in STEPS if n <= asked.clients]
    found["connections"] = await load.many_connections(asked.connections)
    found["killed"] = await load.killed_clients(10)
    found["endurance"] = await load.endurance(asked.requests)
    found["clip"] = await load.clip_beside_long_files(
        asked.long_files, asked.long_seconds, asked.clips
    )
    found["rss_at_end_mb"] = server.rss()
    await load.client.aclose()
    return found


def picture(steps: list[dict[str, Any]]) -> str:
    """Latency percentiles over the number of clients, as SVG."""
    width, height, margin = 560, 300, 46
    most = max(step["p95"] or 0 for step in steps) or 1
    across = (width - 2 * margin) / max(1, len(steps) - 1)

    def place(index: int, value: float) -> tuple[float, float]:
        up = height - margin - value / most * (height - 2 * margin)
        return margin + index * across, up

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12"><title>Latency by number of clients</title>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M{margin} {margin}V{height - margin}H{width - margin}" fill="none" '
        'stroke="#888"/>',
        f'<text x="{margin}" y="{margin - 14}">seconds (highest: {most:.2f})</text>',
    ]
    for name, colour in (("p50", "#1b7f4b"), ("p95", "#b4531a")):
        points = [place(n, step[name] or 0) for n, step in enumerate(steps)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = points[-1]
        parts.append(f'<text x="{x + 5:.1f}" y="{y:.1f}" fill="{colour}">{name}</text>')
    for n, step in enumerate(steps):
        x, _ = place(n, 0)
        label = f"{step['clients']} clients" if not n else str(step["clients"])
        parts.append(f'<text x="{x - 6:.1f}" y="{height - margin + 18}">{label}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    """Run it and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--clients", type=int, default=STEPS[-1])
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--long-files", type=int, default=8)
    parser.add_argument("--long-seconds", type=float, default=3600)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--svg", type=Path, default=None)
    parser.add_argument("flags", nargs="*", help="more flags for the server, after --")
    asked = parser.parse_args()
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(asked.engine, asked.model, Path(folder), asked.flags)
        try:
            found = asyncio.run(measure(server, asked))
            started = time.perf_counter()
            server.process.terminate()
            found["stop"] = {"status": server.process.wait(60)}
            found["stop"]["seconds"] = round(time.perf_counter() - started, 2)
        finally:
            server.process.kill()
            server.process.wait()
    found |= {"commit": commit, "engine": asked.engine, "model": asked.model}
    found |= {"cores": os.cpu_count(), "load_average": os.getloadavg()[0]}
    out = asked.out or ROOT / "benchmarks" / "results" / f"load-{commit or 'now'}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if asked.svg is not None:
        asked.svg.write_text(picture(found["steps"]), encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
