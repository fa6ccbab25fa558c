"""A process that does not hear of new work says so once, and once that it hears again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from whisper_api.tasks.claims import _Listener


class Line:
    """A database that can be listened to from the ``up``-th try on, and is lost once more."""

    def __init__(self, up: int) -> None:
        self.stop = threading.Event()
        self.up = up
        self.tries = 0
        self.rings: list[str | None] = []
        self.lost = False

    @contextmanager
    def listening(self) -> Iterator[Line]:
        self.tries += 1
        if self.tries < self.up:
            raise ConnectionError("refused")
        yield self

    def notifies(self, **how: Any) -> Iterator[Any]:
        if self.lost:
            self.stop.set()
            return
        self.lost = True
        self.up += 3
        raise ConnectionError("lost")
        yield

    def ring(self, name: str | None = None) -> None:
        self.rings.append(name)


def test_the_log_has_one_line_for_each_change(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("whisper_api.tasks.claims.RETRY_S", 0.001)
    caplog.set_level("INFO", "whisper_api.tasks.claims")
    line = Line(up=5)
    _Listener(line).run()  # type: ignore[arg-type]
    lines = [(record.levelname, record.message) for record in caplog.records]
    deaf = "new work is not heard of, only looked for now and then: ConnectionError"
    again = ("INFO", "new work is heard of again")
    assert lines == [("WARNING", deaf), again, ("WARNING", deaf), again]
    # What was said meanwhile was said to nobody: every queue is looked at.
    assert line.rings == [None, None]


def test_who_hears_from_the_start_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "whisper_api.tasks.claims")
    line = Line(up=1)
    line.lost = True
    _Listener(line).run()  # type: ignore[arg-type]
    assert caplog.records == []
