"""Durable tasks as the rest of the server sees them: submit, look, cancel, retry, follow.

``node`` sees to it that some process works on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from whisper_api.database import Database
from whisper_api.errors import Conflict, NotFound, ShuttingDown, WhisperApiError
from whisper_api.metrics import Metrics
from whisper_api.stored_audio import StoredAudio
from whisper_api.tasks.live import Attempt, Parts
from whisper_api.tasks.node import Means, Node
from whisper_api.tasks.part_store import PartStore
from whisper_api.tasks.record import Asked, Status, TaskRecord
from whisper_api.tasks.request_store import RequestStore
from whisper_api.tasks.room import Room
from whisper_api.tasks.runner import Describe, Runner, Transcripts
from whisper_api.tasks.spread import Spread
from whisper_api.tasks.store import TaskStore
from whisper_api.tasks.stretches import Stretches
from whisper_api.types import AudioFile, Lane, Segment
from whisper_api.uploads import UploadStore
from whisper_api.webhooks import Webhooks

log = logging.getLogger(__name__)

Show = Callable[[TaskRecord], dict[str, Any]]

CLEAN_UP_S = 900.0
FORGET_S = 3600.0
"""Age at which DBOS's records of ended runs are dropped."""


class Tasks:
    """The tasks of one application; opened by ``start``, ended by ``close``."""

    def __init__(
        self,
        parts: Parts,
        database: Database,
        metrics: Metrics,
        uploads: UploadStore,
        transcripts: Transcripts,
        means: Means,
    ) -> None:
        """``transcripts`` is where finished ones go: the history."""
        settings = parts.settings
        self.store = TaskStore(database, parts.audio)
        self.webhooks = Webhooks(settings, database, metrics)
        self._settings = settings
        self._audio: StoredAudio = parts.audio
        self._uploads = uploads
        self._show: Show = _nothing
        self.requests = RequestStore(database, parts.audio)
        self.node = Node(settings, database, self.store, self.requests, means)
        self.cluster = self.node.cluster
        metrics.follow_cluster(self.cluster.figures)
        spread = Spread(
            parts,
            self.store,
            PartStore(database),
            workers=self.node.takers,
            hand_out=self.node.hand_out,
            name=lambda: self.node.name,
            stretches=Stretches(parts.audio.store),
        )
        self._runner = Runner(parts, self.store, metrics, transcripts, self._tell, spread)
        self.node.runner = self._runner
        self.node.has_room = Room(parts, self._runner, lambda: len(self.cluster.latest.ready))
        self.transcript = transcripts.transcript
        self._stopping = False
        self._loops: list[asyncio.Task[None]] = []

    async def start(self, describe: Describe, show: Show) -> None:
        """Take up what was left undone and begin to watch; call it once.

        ``describe`` gives the error object that a failed task has, ``show`` what a webhook
        carries of a task.
        """
        self._runner.describe, self._show = describe, show
        await self.node.start()
        for loop in (self.node.watch(), self._clean_up(), self.webhooks.run()):
            self._loops.append(asyncio.create_task(loop))

    async def close(self) -> None:
        """Interrupt what runs, in good order; it goes on at the next start."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.leave()
        await self.node.close()

    async def leave(self) -> None:
        """Interrupt what runs and take nothing more; ``close`` does the rest."""
        self._stopping = True
        await self._runner.leave()

    async def hand_back(self) -> None:
        """After ``leave``, where ``close`` comes late: others go on with the tasks already."""
        try:
            await self.node.hand_back()
        except WhisperApiError as error:
            log.warning("others go on with the tasks later: %s", error.message)

    async def submit(
        self,
        file: AudioFile,
        asked: Asked,
        owner: str,
        *,
        callback_url: str | None = None,
        source: str = "upload",
        model: str | None = None,
        lane: Lane = Lane.TASK,
    ) -> TaskRecord:
        """Accept a task; audio, record and place in the queue are durable when this returns.

        ``model`` is the id of the one that is meant. A task in another lane than the last one
        belongs to this process, and nobody else sees it.

        Raises:
            Overloaded: too many tasks wait.
            StorageFull, DatabaseUnavailable: nothing was accepted.
        """
        if self._stopping:
            raise ShuttingDown(retry_after=5)
        waits = lane is not Lane.TASK
        record = TaskRecord(
            id=f"task_{secrets.token_hex(16)}",
            owner=owner,
            status=Status.PENDING,
            created_at=time.time(),
            name=file.name,
            asked=asked,
            audio=file.digest,
            source=source,
            duration=file.duration,
            callback_url=None if waits else callback_url or self._settings.callback_url,
            model=model if self.node.shared else None,
            lane=lane.value,
            waiter=self.node.name if waits else None,
        )
        await self.node.launch()
        hold = await self._audio.keep(file, owner)
        try:
            place = await self.store.add(record, self._settings.max_pending_tasks, hold)
        except BaseException:
            with contextlib.suppress(WhisperApiError):
                await asyncio.shield(self._audio.release(hold))
            raise
        # Whoever has little under way goes before whoever has much.
        await self.node.enqueue(record, place)
        return record

    async def cancel(self, record: TaskRecord) -> TaskRecord:
        """Stop a task: here at once, on another process within one batch.

        Raises:
            Conflict: it has finished meanwhile.
        """
        changed = await self.store.cancel(record, self._tell)
        self._runner.stop(record.id)
        return changed

    async def retry(self, record: TaskRecord) -> TaskRecord:
        """Run a failed or cancelled task again with the same options; work done is kept.

        Raises:
            Conflict: it is in another state, or its audio is gone.
        """
        if record.audio is None:
            raise Conflict("The audio of this task is no longer stored.", code="audio_gone")
        stale = (record.error or {}).get("code") == "task_stale"
        await self.node.launch()
        changed = await self.store.retry(record, anew=stale)
        await self.node.enqueue(changed)
        return changed

    async def remove(self, record: TaskRecord) -> None:
        """Delete a finished task; its transcript stays in the history."""
        await self.store.remove([record.id])

    def attempt(self, ident: str) -> Attempt | None:
        """The attempt at a task in this very process, if there is one."""
        return self._runner.attempts.get(ident)

    async def final_segments(self, record: TaskRecord) -> Sequence[Segment]:
        """The segments of a completed task; none where its transcript was deleted."""
        try:
            return (await self.transcript(record)).segments
        except NotFound:
            return ()

    @property
    def leaving(self) -> bool:
        """Whether the process stops."""
        return self._stopping

    def _tell(self, connection: sa.Connection, record: TaskRecord) -> None:
        """Queue the webhook of a task that has ended, in the transaction that ended it."""
        if record.callback_url:
            data = self._show(record)
            event = f"task.{record.status}"
            self.webhooks.queue(connection, record.id, record.callback_url, event, data)

    async def _clean_up(self) -> None:
        """Remove what is past its time: uploads, finished tasks, audio nobody needs."""
        while True:
            try:
                await self.clean_up()
            except WhisperApiError as error:
                log.warning("the clean-up waits: %s", error.message)
            except Exception:
                log.exception("the clean-up failed")
            await asyncio.sleep(CLEAN_UP_S)

    async def clean_up(self) -> None:
        """One round of it."""
        await asyncio.to_thread(self._uploads.sweep)
        if self._settings.max_task_days:
            past = time.time() - 86_400 * self._settings.max_task_days
            while ids := await self.store.ended_before(past):
                await self.store.remove(ids)
        if self.node.launched:
            before = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - FORGET_S))
            while over := await asyncio.to_thread(self.node.durable.over, before):
                await asyncio.to_thread(self.node.durable.forget, over)


def _nothing(record: TaskRecord) -> dict[str, Any]:
    return {"id": record.id, "status": record.status.value}
