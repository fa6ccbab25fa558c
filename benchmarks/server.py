"""The real server in a process of its own, as a client uses it, and where its time went."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from machine import cpu_seconds
from peers import Done

_LOAD_SECONDS = 600.0
_STAGES = "whisper_stage_seconds_sum"
_PARTS = "whisper_engine_seconds_total"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    url: str
    pid: int
    state: dict[str, Any]  #: what ``/ready`` says

    @classmethod
    @contextmanager
    def running(cls, folder: Path, model: str, flags: Sequence[str]) -> Iterator[Server]:
        """Start it and wait until it is ready.

        Raises:
            RuntimeError: it ended, or did not become ready.
        """
        command = [sys.executable, "-m", "whisper_api", "serve", "--port", "0", "--model", model]
        command += ["--data-dir", str(folder / "server"), "--log-level", "ERROR", *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            url = next((word for word in words if word.startswith("http://")), "")
            if not url:
                raise RuntimeError("the server did not start")
            yield cls(url, process.pid, _ready(url, process))
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def transcribe(self, language: str) -> Callable[[Path], Done]:
        """What sends a file and waits for its text."""
        # Rounds repeat the same files: no answer may come from the cache.
        client = httpx.Client(timeout=None, headers={"cache-control": "no-store"})
        form = {"language": language, "response_format": "verbose_json"}

        def run(path: Path) -> Done:
            begun, started = cpu_seconds(self.pid), time.perf_counter()
            with path.open("rb") as file:
                answer = client.post(
                    f"{self.url}/v1/audio/transcriptions",
                    data=form,
                    files={"file": (path.name, file)},
                )
            took = time.perf_counter() - started
            answer.raise_for_status()
            tokens = sum(len(part["tokens"]) for part in answer.json()["segments"])
            return Done(took, tokens, begun, cpu_seconds(self.pid))

        return run

    def figures(self) -> dict[str, float]:
        """Seconds by stage and by part of the engine, and windows, since the start."""
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == _STAGES:
                    found[sample.labels["stage"]] = sample.value
                elif sample.name == _PARTS:
                    found[f"engine: {sample.labels['part']}"] = sample.value
                elif sample.name == "whisper_batch_size_sum":
                    found["windows"] = sample.value
        return found

    def stages(self, before: dict[str, float], wall: float) -> dict[str, float]:
        """Where the ``wall`` seconds of the one request since ``before`` went.

        The engine's parts are seconds of its threads, of which several may run at once.
        """
        now = self.figures()
        spent = {name: value - before.get(name, 0.0) for name, value in now.items()}
        windows = spent.pop("windows", 0.0)
        parts = {name: spent.pop(name) for name in sorted(spent) if name.startswith("engine")}
        http = wall - sum(spent.values())
        threads = self.state["replicas"] if windows > 1 else 1
        waiting = spent.get("infer", 0.0) - sum(parts.values()) / threads
        return {
            **spent,
            "HTTP, formatting, scheduling outside infer": http,
            "(windows)": windows,
            **parts,
            "infer without the engine's threads": waiting,
        }


def _ready(url: str, process: subprocess.Popen[str]) -> dict[str, Any]:
    deadline = time.monotonic() + _LOAD_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answer = httpx.get(f"{url}/ready", timeout=60)
        except httpx.TimeoutException:  # choosing an encoder may leave no core to answer
            continue
        if answer.is_success:
            return dict(answer.json())
        time.sleep(0.1)
    raise RuntimeError("the server did not become ready")
