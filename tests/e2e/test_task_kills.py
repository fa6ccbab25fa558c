"""Tasks against SIGKILL, upgrades, files that kill the server, and a thousand at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.task_server import FULL, TaskServer, spoken, tape

pytestmark = pytest.mark.slow

MakeServer = Callable[..., TaskServer]


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """``make_server(task_concurrency=2)``: a server on this test's folder; ended later."""
    made: list[TaskServer] = []

    def make(folder: str = "data", **settings: Any) -> TaskServer:
        server = TaskServer(tmp_path / folder, tmp_path / "decoded.log", settings)
        made.append(server)
        return server

    yield make
    for server in made:
        server.stop()


def test_a_task_survives_kills_at_random_moments_without_losing_or_doubling_a_window(
    make_server: MakeServer,
) -> None:
    kills, windows, size = (20, 400, 4) if FULL else (6, 160, 4)
    server = make_server(
        model_path="fake:delay=0.1", batch_size=size, task_checkpoint_s=0.3, task_max_attempts=9
    ).start()
    ident = server.submit(tape(windows), chunk_length_s="4", response_format="srt")
    moments, done = random.Random(1), 0
    for _ in range(kills):
        time.sleep(moments.uniform(0.05, 0.6))
        assert server.task(ident)["status"] in ("pending", "running")
        server.kill()
        server.start()
        # What was saved is never lost: progress does not go back.
        now = server.task(ident)["processed_seconds"]
        assert now >= done
        done = now
    task = server.finished(ident)
    assert task["status"] == "completed"
    assert server.text(ident).split() == spoken(windows)
    assert task["result"].count(" --> ") == windows
    decoded = server.decoded()
    cut = max(decoded) + 1
    assert set(decoded) == set(range(cut))
    # A checkpoint's windows and the call that was on its way, for each kill.
    assert len(decoded) - cut <= kills * (batch_windows(0.3, 0.1, size) + size)


def batch_windows(checkpoint: float, call: float, size: int) -> int:
    """The most windows of one batch when a call of ``size`` windows takes so many seconds."""
    return size * (1 + round(checkpoint / call))
