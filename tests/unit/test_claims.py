"""Work is taken from a shared database one piece at a time, while there is room, once it is told.

On a real PostgreSQL and DBOS; the steps do nothing but wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.waiting import PATIENCE_S, wait_until

from whisper_api.config import Settings
from whisper_api.database import Database
from whisper_api.tasks.claims import Kind
from whisper_api.tasks.durable import Durable, queue_of

pytestmark = pytest.mark.slow


class Waiting:
    """Steps of tasks and parts that run until they are let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._ends: dict[str, threading.Event] = {}

    def begin(self, ident: str, run: int) -> bool:
        self._wait(ident)
        return False

    def part(self, ident: str, run: int, first: int) -> None:
        self._wait(f"{ident}.{first}")

    def plan(self, ident: str) -> int:
        raise AssertionError

    def batch(self, ident: str, first: int) -> int:
        raise AssertionError

    def merge(self, ident: str) -> int:
        raise AssertionError

    def end(self, ident: str) -> None:
        raise AssertionError

    def let_go(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()

    def _wait(self, name: str) -> None:
        end = self._ends[name] = threading.Event()
        self.begun.append(name)
        end.wait(PATIENCE_S)


class Limit:
    """Room for so many pieces."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.asked: set[Kind] = set()

    def __call__(self, kind: Kind, taken: int) -> bool:
        self.asked.add(kind)
        return taken < self.pieces


@contextmanager
def launched(url: str, folder: Path, steps: Waiting, room: Limit) -> Iterator[Durable]:
    """DBOS on this database, which it would look at by itself once in a minute."""
    settings = Settings(
        data_dir=folder,
        database_url=SecretStr(url),
        queue_poll_s=60,
        task_concurrency=3,
        engine="fake",
    )
    database = Database(settings)
    durable = Durable(settings, database)
    try:
        durable.launch("me-0", steps, room, ["m"])
        yield durable
    finally:
        durable.close()
        database.close()


def test_pieces_are_taken_in_their_order_while_there_is_room(
    postgres_url: str, tmp_path: Path
) -> None:
    steps, room = Waiting(), Limit(0)
    with launched(postgres_url, tmp_path, steps, room) as durable:
        tasks, parts = queue_of("tasks", "m"), queue_of("parts", "m")
        for number, name in enumerate("abcde"):
            durable.enqueue(name, 0, tasks, priority=10 - number)
        wait_until(lambda: "tasks" in room.asked)
        assert steps.begun == []
        room.pieces = 2
        wait_until(lambda: len(steps.begun) == 2)
        time.sleep(0.3)
        assert sorted(steps.begun) == ["d", "e"]  # the order of two threads is nobody's promise
        steps.let_go("d")
        wait_until(lambda: len(steps.begun) == 3)
        # No more than ``task_concurrency`` of them, however much room there is.
        room.pieces = 100
        wait_until(lambda: len(steps.begun) == 4)
        time.sleep(0.3)
        assert steps.begun[2:] == ["c", "b"]
        # Parts have room of their own.
        durable.enqueue_part("x", 0, 7, parts, 1)
        wait_until(lambda: "x.7" in steps.begun)
        steps.let_go("b")
        wait_until(lambda: "a" in steps.begun)
        assert steps.begun[2:] == ["c", "b", "x.7", "a"]
        steps.let_go("e", "c", "x.7", "a")
        # What needs another model waits for somebody who has it.
        durable.enqueue("f", 0, queue_of("tasks", "other"))
        time.sleep(0.3)
        assert "f" not in steps.begun
        durable.listen("other")
        wait_until(lambda: "f" in steps.begun)
        steps.let_go("f")
