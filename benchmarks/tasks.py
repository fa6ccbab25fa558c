"""What a durable task costs beyond its transcription: short clips and a long file, both ways.

Starts a server with the fake engine, which takes no time, so that everything else is seen.
``python benchmarks/tasks.py --count 1000 --json tasks.json``
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from whisper_api.engines.fake import MARKER_SAMPLES, make_marker
from whisper_api.types import SAMPLE_RATE


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="short clips")
    parser.add_argument("--minutes", type=float, default=60, help="length of the long file")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as url:
        with httpx.Client(base_url=url, timeout=600) as client:
            figures = {**crowd(client, given.count, given.clients)}
            figures |= long_file(client, given.minutes)
        size = sum(path.stat().st_size for path in Path(folder).glob("records*"))
        figures["database_bytes_per_task"] = round(size / (given.count + 1))
    text = json.dumps(figures, indent=2)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n", "utf-8")


def crowd(client: httpx.Client, count: int, clients: int) -> dict[str, float]:
    """Seconds for each of ``count`` clips of half a second: direct, accepted, and done."""
    clips = [tape(1, 0.5, first=number) for number in range(2 * count)]

    def direct(clip: bytes) -> None:
        send(client, "/v1/audio/transcriptions", clip)

    def submit(clip: bytes) -> None:
        send(client, "/v1/audio/transcriptions/async", clip)

    submit(tape(1, 0.5, first=9000))  # starts what starts with the first task
    wait_for_all(client)
    with ThreadPoolExecutor(clients) as threads:
        straight = timed(lambda: list(threads.map(direct, clips[:count])))
        started = time.perf_counter()
        accepted = timed(lambda: list(threads.map(submit, clips[count:])))
        wait_for_all(client)
        done = time.perf_counter() - started
    return {
        "clips": count,
        "direct_ms_per_clip": round(1000 * straight / count, 2),
        "accepted_ms_per_task": round(1000 * accepted / count, 2),
        "done_ms_per_task": round(1000 * done / count, 2),
    }


def long_file(client: httpx.Client, minutes: float) -> dict[str, float]:
    """Seconds for one long file, direct and as a task."""
    recording = tape(int(minutes * 15), 4.0)
    other = tape(int(minutes * 15), 4.0, first=1)
    direct = timed(lambda: send(client, "/v1/audio/transcriptions", recording))
    started = time.perf_counter()
    send(client, "/v1/audio/transcriptions/async", other)
    wait_for_all(client)
    return {
        "long_file_minutes": minutes,
        "long_direct_s": round(direct, 2),
        "long_task_s": round(time.perf_counter() - started, 2),
    }


def send(client: httpx.Client, path: str, audio: bytes) -> None:
    """One upload."""
    client.post(path, files={"file": ("a.wav", audio)}).raise_for_status()


def wait_for_all(client: httpx.Client) -> None:
    """Until no task waits or runs."""
    while client.get("/v1/tasks?status=pending&status=running&limit=1").json()["data"]:
        time.sleep(0.05)


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def tape(markers: int, seconds: float, first: int = 0) -> bytes:
    """A WAV file with a marker in each stretch of ``seconds``."""
    step = int(seconds * SAMPLE_RATE)
    samples = np.zeros(markers * step, np.float32)
    for number in range(markers):
        at = number * step + step // 8
        samples[at : at + MARKER_SAMPLES] = make_marker((first + number) % 10_000)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of a fresh server."""
    command = [sys.executable, "-m", "whisper_api", "serve", "--port", "0", "--no-vad"]
    command += ["--engine", "fake", "--model", "fake", "--data-dir", str(folder)]
    command += ["--log-level", "WARNING", "--task-concurrency", "16"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None
            yield found[0]
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
