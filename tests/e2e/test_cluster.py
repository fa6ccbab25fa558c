"""API-only servers and workers as processes, on a real PostgreSQL and a real S3 server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.task_server import TaskServer, spoken, tape

pytestmark = pytest.mark.slow


class Machines:
    """Processes that share a database and a store, each with a folder of its own."""

    def __init__(self, folder: Path, shared: dict[str, Any]) -> None:
        self.folder = folder
        self.shared = shared
        self.made: list[TaskServer] = []

    def api(self, **settings: Any) -> TaskServer:
        """A started API-only server."""
        return self._start("", {"local_engine": False, **settings})

    def worker(self, **settings: Any) -> TaskServer:
        """A started worker."""
        return self._start("worker", settings)

    def make(self, role: str, settings: dict[str, Any]) -> TaskServer:
        """One that is not started."""
        number = len(self.made)
        server = TaskServer(
            self.folder / str(number),
            self.folder / f"decoded-{number}.log",
            {**self.shared, **settings},
            role=role,
        )
        self.made.append(server)
        return server

    def _start(self, role: str, settings: dict[str, Any]) -> TaskServer:
        return self.make(role, settings).start()


@pytest.fixture
def machines(tmp_path: Path, postgres_url: str, s3_url: str) -> Iterator[Machines]:
    """Makes processes of every role; they are ended later."""
    found = Machines(tmp_path, {"database_url": postgres_url, "storage_url": s3_url})
    yield found
    for server in found.made:
        server.stop()


def test_every_kind_of_request_works_through_a_server_without_engine(machines: Machines) -> None:
    api, worker = machines.api(), machines.worker()
    wav = tape(3)
    answer = api.post(
        "/v1/audio/transcriptions", files={"file": ("a.wav", wav)}, data={"response_format": "text"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.text.split() == spoken(3)
    ident = api.submit(wav, response_format="text")
    assert api.finished(ident)["result"].split() == spoken(3)
    with httpx.stream(
        "POST",
        f"http://127.0.0.1:{api.port}/v1/audio/transcriptions",
        files={"file": ("a.wav", wav)},
        data={"stream": "true"},
        timeout=30,
    ) as stream:
        lines = [line[6:] for line in stream.iter_lines() if line.startswith("data: {")]
    events = [json.loads(line) for line in lines]
    assert events[-1]["text"].split() == spoken(3)
    assert worker.has_decoded()
