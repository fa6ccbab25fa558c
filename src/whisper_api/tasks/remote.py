"""The pipeline of a process without an engine: its requests become tasks, which workers do.

A task of this kind is in the interactive lane, belongs to the process whose request waits, and
goes with it: when the result was read, when the caller leaves, when the process dies.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator

from whisper_api.audio.scratch import Scratch
from whisper_api.errors import CapacityError, ServerError, WhisperApiError, named_error
from whisper_api.pipeline import Progress, Update
from whisper_api.scheduler import Scheduler, Ticket
from whisper_api.stored_audio import StoredAudio
from whisper_api.tasks.record import Asked, Status, TaskRecord
from whisper_api.tasks.request_store import RequestStore, Standing
from whisper_api.tasks.service import Tasks
from whisper_api.types import AudioFile, Lane, Options
from whisper_api.usage import audio_spent, owner_var, spend_audio

log = logging.getLogger(__name__)

LOOK_S = 0.03
"""Seconds between looks at all tasks that requests wait for, one query for all of them."""
AGAIN_S = 1.0
"""The same after a look that failed."""


class Watch:
    """Looks at tasks for as long as anybody waits for one."""

    def __init__(self, store: RequestStore) -> None:
        """``store`` is asked."""
        self._store = store
        self._waiting: dict[str, asyncio.Queue[Standing | None]] = {}
        self._known: dict[str, Standing] = {}
        self._task: asyncio.Task[None] | None = None

    def join(self, ident: str) -> asyncio.Queue[Standing | None]:
        """Each change of a task from now on; None once it is gone. ``leave`` ends it."""
        news = self._waiting[ident] = asyncio.Queue()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        return news

    def leave(self, ident: str) -> None:
        """Look no more; idempotent."""
        self._waiting.pop(ident, None)
        self._known.pop(ident, None)

    async def _look(self) -> None:
        while self._waiting:
            asked = tuple(self._waiting)
            try:
                found = await self._store.standings(asked)
            except CapacityError:
                await asyncio.sleep(AGAIN_S)  # the database is away: tasks wait as well
                continue
            except Exception:
                log.exception("requests were not looked after")
                await asyncio.sleep(AGAIN_S)
                continue
            # Some have left meanwhile; of those that came meanwhile nothing was asked.
            for ident in self._waiting.keys() & set(asked):
                self._tell(ident, found.get(ident))
            await asyncio.sleep(LOOK_S)

    def _tell(self, ident: str, standing: Standing | None) -> None:
        if standing is None or standing != self._known.get(ident):
            self._waiting[ident].put_nowait(standing)
            if standing is not None:
                self._known[ident] = standing


class RemoteStream:
    """As ``Pipeline.stream``, by workers."""

    resumes = False

    def __init__(
        self, scheduler: Scheduler, tasks: Tasks, store: RequestStore, audio: StoredAudio
    ) -> None:
        """``scheduler`` only counts what waits: it has no engine."""
        self._scheduler = scheduler
        self._tasks = tasks
        self._store = store
        self._audio = audio
        self._watch = Watch(store)

    async def stream(
        self,
        file: AudioFile,
        options: Options,
        scratch: Scratch,
        *,
        model: str | None = None,
        lane: Lane = Lane.INTERACTIVE,
        progress: Progress | None = None,
    ) -> AsyncGenerator[Update, None]:
        """As ``Pipeline.stream``; ``progress`` stays empty, a closed stream leaves nothing.

        Raises:
            DatabaseUnavailable, StorageFull: it cannot be handed to workers.
        """
        del scratch, progress
        async with self._scheduler.admit(lane, file.duration or 0.0) as ticket:
            async with audio_spent(file.duration or 0.0):
                record = await self._hand_over(file, Asked(options=options, model=model), lane)
            try:
                async for update in self._follow(record, ticket):
                    yield update
            finally:
                self._watch.leave(record.id)
                await asyncio.shield(self._discard(record.id))

    async def _hand_over(self, file: AudioFile, asked: Asked, lane: Lane) -> TaskRecord:
        """Submit; a caller who leaves meanwhile takes the task along."""
        handing = asyncio.ensure_future(
            self._tasks.submit(
                file, asked, owner_var.get(), model=asked.model, source="request", lane=lane
            )
        )
        try:
            return await asyncio.shield(handing)
        except asyncio.CancelledError:
            await asyncio.shield(self._take_back(handing))
            raise

    async def _take_back(self, handing: asyncio.Future[TaskRecord]) -> None:
        # What is on its way to the database cannot be stopped, only removed once it is there.
        await asyncio.wait({handing})
        if not handing.cancelled() and handing.exception() is None:
            await self._discard(handing.result().id)

    async def _follow(self, record: TaskRecord, ticket: Ticket) -> AsyncGenerator[Update, None]:
        news = self._watch.join(record.id)
        have, paid = 0, record.duration or 0.0
        while True:
            standing = await news.get()
            if standing is None:
                raise ServerError("The transcription was removed before it was done.")
            total = standing.duration or record.duration or 0.0
            # The file may have claimed less than it holds, or nothing; whole seconds are counted.
            if (more := math.ceil(total) - math.ceil(paid)) > 0:
                paid = total
                await spend_audio(more)
            ticket.resize(max(0.0, total - standing.processed))
            if standing.status is Status.COMPLETED:
                async for update in self._end(record, have):
                    yield update
                return
            if standing.status in (Status.FAILED, Status.CANCELLED):
                raise _error_of(standing)
            if standing.segments > have:
                fresh = await self._tasks.store.segments(record.id, have)
                have += len(fresh)
                yield Update(tuple(fresh), standing.processed, total)

    async def _end(self, record: TaskRecord, have: int) -> AsyncGenerator[Update, None]:
        transcript = await self._store.result(record.id)
        if transcript is None:
            raise ServerError("The result of a worker is missing.")
        envelope = await self._audio.envelope(record.audio or "")
        end = transcript.duration
        if fresh := transcript.segments[have:]:
            yield Update(fresh, end, end)
        yield Update((), end, end, transcript, envelope)

    async def _discard(self, ident: str) -> None:
        try:
            await self._store.discard(ident)
        except WhisperApiError as error:
            # It goes with this process at the latest.
            log.warning("a request's task could not be removed: %s", error.message)


def _error_of(standing: Standing) -> WhisperApiError:
    """What went wrong at the worker, as if it had been here."""
    told = standing.error or {}
    return named_error(
        told.get("kind", ""), told.get("message", ""), told.get("param"), told.get("code")
    )
