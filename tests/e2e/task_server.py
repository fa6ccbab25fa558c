"""Server processes that are killed and started again, and what can be said of their work."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from tests.conftest import wav_bytes

from whisper_api.engines.fake import MARKER_SAMPLES, make_marker
from whisper_api.types import SAMPLE_RATE

ROOT = Path(__file__).parents[2]
RUNNER = Path(__file__).parent / "run_task_server.py"
DEFAULTS: Mapping[str, Any] = {
    "engine": "fake",
    "model_path": "fake",
    "vad": False,
    "decode_workers": 1,
    "language": "en",
}
FULL = os.environ.get("WHISPER_API_TEST_FULL") == "1"
"""Whether the long variants run: more kills, more tasks."""


@dataclass
class TaskServer:
    """One server that may be started more than once on the same data."""

    data_dir: Path
    log: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: Path | None = None  #: another folder to import the package from
    role: str = ""  #: ``worker``: an engine without an API
    largest_file: int | None = None  #: bytes that no file of the process may pass
    port: int = 0
    process: subprocess.Popen[str] | None = None

    def start(self) -> TaskServer:
        """Start a process and wait until it answers."""
        content = {**DEFAULTS, "data_dir": str(self.data_dir), **self.settings}
        paths = [*([str(self.source)] if self.source else []), str(ROOT)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        self.process = subprocess.Popen(
            [sys.executable, str(RUNNER), json.dumps(content), str(self.log), *self.role.split()],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=self._limit if self.largest_file else None,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.until(lambda: self.alive() or None)
        return self

    def _limit(self) -> None:
        import resource

        assert self.largest_file is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.largest_file, self.largest_file))

    @property
    def pid(self) -> int:
        """The present process's number."""
        assert self.process is not None
        return self.process.pid

    def alive(self) -> bool:
        """Whether it answers."""
        assert self.process is not None
        assert self.process.poll() is None, "the server process ended"
        try:
            return self.get("/health").status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """As if the power went."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)

    def stop(self) -> None:
        """End it in good order, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def get(self, path: str) -> httpx.Response:
        """A GET."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=60)

    def post(self, path: str, **more: Any) -> httpx.Response:
        """A POST."""
        return httpx.post(f"http://127.0.0.1:{self.port}{path}", timeout=60, **more)

    def submit(self, wav: bytes, **fields: str) -> str:
        """A new task's id."""
        answer = self.post(
            "/v1/audio/transcriptions/async", files={"file": ("a.wav", wav)}, data=fields
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def task(self, ident: str) -> dict[str, Any]:
        """A task as it is now."""
        answer = self.get(f"/v1/tasks/{ident}")
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def finished(self, ident: str, seconds: float = 180) -> dict[str, Any]:
        """A task once it has ended."""

        def look() -> dict[str, Any] | None:
            task = self.task(ident)
            return task if task["finished_at"] else None

        found: dict[str, Any] = self.until(look, seconds)
        return found

    def text(self, ident: str) -> str:
        """A completed task's text."""
        return self.get(f"/v1/tasks/{ident}/result?response_format=text").text

    def until(self, look: Callable[[], Any], seconds: float = 120) -> Any:
        """What ``look`` answers once it answers anything.

        Raises:
            AssertionError: it takes longer than ``seconds``.
        """
        end = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < end, "it takes too long"
            time.sleep(0.03)
        return found

    def has_decoded(self) -> bool:
        """Whether the present process has begun to decode any window."""
        assert self.process is not None
        return f"{self.process.pid} " in self.log.read_text()

    def saved_windows(self) -> int:
        """How many windows of its only task are safe, by the database; for a dead server."""
        with closing(sqlite3.connect(self.data_dir / "records.sqlite")) as database:
            return int(database.execute("SELECT done FROM tasks").fetchone()[0])

    def decoded_by(self) -> dict[int, list[int]]:
        """The windows that each process began to decode, in that order."""
        found: dict[int, list[int]] = {}
        for line in self.log.read_text().splitlines():
            pid, index = line.split()
            found.setdefault(int(pid), []).append(int(index))
        return found

    def decoded(self) -> list[int]:
        """Indexes of all windows that any process began to decode, in that order."""
        lines = self.log.read_text().split("\n") if self.log.exists() else []
        return [int(line.split()[1]) for line in lines if line]


def tape(windows: int, seconds: float = 4.0) -> bytes:
    """A recording with one marker in each stretch of ``seconds``."""
    step = int(seconds * SAMPLE_RATE)
    samples = np.zeros(windows * step, np.float32)
    for number in range(windows):
        at = number * step + step // 4
        samples[at : at + MARKER_SAMPLES] = make_marker(number)
    return wav_bytes(samples)


def spoken(windows: int) -> list[str]:
    """The words of such a recording."""
    return [f"marker-{number:04d}" for number in range(windows)]
