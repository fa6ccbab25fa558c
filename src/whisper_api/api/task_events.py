"""A task's life as server-sent events: ``status``, ``progress`` and ``segment``.

Nothing is kept for a stream: an event's id holds how many segments came before it, so a client
that returns with ``Last-Event-ID`` gets the rest from any process. Where the task runs in this
very process, segments come window by window, otherwise batch by batch.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from whisper_api.api.history_schemas import segment_with_words
from whisper_api.api.task_schemas import TaskBody, task_body
from whisper_api.errors import CapacityError, NotFound
from whisper_api.tasks.live import Attempt
from whisper_api.tasks.record import Status, TaskRecord
from whisper_api.tasks.service import Tasks
from whisper_api.types import Caller, Segment

KEEP_ALIVE_S = 10.0
KEEP_ALIVE = b": keep-alive\r\n\r\n"
LOOK_S = 0.5
"""Seconds between looks at a task that runs elsewhere."""
OFTEN_S = 0.1
"""Shortest time between looks at one that runs here."""
_STEP = 1_000_000
"""Ids count events between two segments below this, and segments above it."""
_LONGEST = 15
"""Digits of an id; the number of segments then fits a database's 32 bits."""


class Cursor:
    """Where a client stands: segments that it has, and the number of the last event."""

    def __init__(self, last_id: str | None) -> None:
        """``last_id`` is the header Last-Event-ID; anything else than an id of ours is a start."""
        text = last_id or ""
        ours = text.isascii() and text.isdigit() and len(text) <= _LONGEST
        self.segments, self._count = divmod(int(text) if ours else 0, _STEP)

    def event(self, kind: str, data: Any) -> bytes:
        """The next event."""
        self._count += 1
        return self._frame(kind, data)

    def segment(self, segment: Segment) -> bytes:
        """The event of one segment, whose number is the segments before it."""
        self.segments, self._count = segment.id + 1, 0
        return self._frame("segment", segment_body(segment))

    def _frame(self, kind: str, data: Any) -> bytes:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        number = self.segments * _STEP + self._count
        return f"id: {number}\r\nevent: {kind}\r\ndata: {text}\r\n\r\n".encode()


class Follower:
    """One client that follows one task."""

    def __init__(self, tasks: Tasks, record: TaskRecord, caller: Caller, cursor: Cursor) -> None:
        """``record`` is the task as it is now."""
        self._tasks = tasks
        self._record = record
        self._caller = caller
        self._cursor = cursor
        self._status: Status | None = None
        self._progress: dict[str, Any] | None = None
        self._sent = time.monotonic()

    async def frames(self) -> AsyncIterator[bytes]:
        """Events until the task has ended, or the process stops (the client comes again)."""
        while True:
            for frame in await self._news():
                self._sent = time.monotonic()
                yield frame
            if self._record.status.finished or self._tasks.leaving:
                return
            await self._wait()
            if time.monotonic() - self._sent >= KEEP_ALIVE_S:
                self._sent = time.monotonic()
                yield KEEP_ALIVE
            try:
                self._record = await self._tasks.store.get(self._record.id, self._caller)
            except CapacityError:
                continue  # the database is away; it is asked again
            except NotFound:
                return

    async def _news(self) -> list[bytes]:
        """What the client does not know yet; the status comes last when it is final."""
        record, cursor = self._record, self._cursor
        attempt = self._tasks.attempt(record.id)
        frames = []
        status = []
        if record.status is not self._status:
            self._status = record.status
            status.append(task_body(record, attempt))
        if not record.status.finished:
            frames += [cursor.event("status", body.dump()) for body in status]
        if segments := await self._segments(attempt):
            # Of a long recording that has ended these are all, and take seconds to write.
            frames += await asyncio.to_thread(lambda: [*map(cursor.segment, segments)])
        progress = progress_body(record, attempt)
        if progress != self._progress:
            self._progress = progress
            frames.append(cursor.event("progress", progress))
        if record.status.finished:
            frames += [cursor.event("status", body.dump()) for body in status]
        return frames

    async def _segments(self, attempt: Attempt | None) -> list[Segment]:
        record, have = self._record, self._cursor.segments
        if record.status is Status.COMPLETED:
            return [item for item in await self._tasks.final_segments(record) if item.id >= have]
        fresh = list(attempt.fresh) if attempt is not None else []
        before = fresh[0].id if fresh else record.segments
        found: list[Segment] = []
        if before > have:
            found = await self._tasks.store.segments(record.id, have)
            have += len(found)
        # A batch that is saved just now may be in both.
        return found + [segment for segment in fresh if segment.id >= have]

    async def _wait(self) -> None:
        attempt = self._tasks.attempt(self._record.id)
        if attempt is None:
            await asyncio.sleep(LOOK_S)
            return
        await asyncio.sleep(OFTEN_S)
        await attempt.pulse.wait(LOOK_S)


def progress_body(record: TaskRecord, attempt: Attempt | None) -> dict[str, Any]:
    """The data of a ``progress`` event."""
    body: TaskBody = task_body(record, attempt)
    names = ("progress", "processed_seconds", "duration_seconds", "eta_seconds")
    return {name: getattr(body, name) for name in names}


def segment_body(segment: Segment) -> dict[str, Any]:
    """A segment as the history has it; without words where none were asked for."""
    body = segment_with_words(segment)
    if not segment.words:
        del body["words"]
    return body
