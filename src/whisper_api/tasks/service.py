"""Durable tasks as the rest of the server sees them: submit, look, cancel, retry, follow.

The database says what a task is; DBOS sees to it that some process works on it. Where the two
disagree (a crash between two writes, a restored backup) the database wins: ``_reconcile``.
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
from whisper_api.tasks.durable import RUNNING, WAITING, Durable, flow_id
from whisper_api.tasks.executors import Executor
from whisper_api.tasks.live import Attempt, Parts
from whisper_api.tasks.record import Asked, Status, TaskRecord
from whisper_api.tasks.runner import Describe, Runner, Transcripts
from whisper_api.tasks.steps import LoopSteps
from whisper_api.tasks.store import TaskStore
from whisper_api.types import AudioFile, Segment
from whisper_api.uploads import UploadStore
from whisper_api.webhooks import Webhooks

log = logging.getLogger(__name__)

Show = Callable[[TaskRecord], dict[str, Any]]

RECONCILE_S = 30.0
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
    ) -> None:
        """``transcripts`` is where finished ones go: the history."""
        settings = parts.settings
        self.store = TaskStore(database, parts.audio)
        self.webhooks = Webhooks(settings, database, metrics)
        self._settings = settings
        self._audio: StoredAudio = parts.audio
        self._uploads = uploads
        self._show: Show = _nothing
        self._runner = Runner(parts, self.store, metrics, transcripts, self._tell)
        self.transcript = transcripts.transcript
        self._durable = Durable(settings, database)
        self._executor = Executor(settings.data_dir, database, settings.task_takeover_s)
        self._launching = asyncio.Lock()
        self._launched = False
        self._suspects: set[str] = set()
        self._loops: list[asyncio.Task[None]] = []

    async def start(self, describe: Describe, show: Show) -> None:
        """Take up what was left undone and begin to watch; call it once.

        ``describe`` gives the error object that a failed task has, ``show`` what a webhook
        carries of a task.
        """
        self._runner.describe, self._show = describe, show
        await asyncio.to_thread(self._executor.claim)
        await self._executor.beat()
        if await self.store.unfinished():
            await self._launch()
            await self._reconcile()
        for loop in (self._watch(), self._clean_up(), self.webhooks.run()):
            self._loops.append(asyncio.create_task(loop))

    async def close(self) -> None:
        """Interrupt what runs, in good order; it goes on at the next start."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.leave()
        await asyncio.to_thread(self._durable.close)
        self._executor.release()

    async def leave(self) -> None:
        """Interrupt what runs and take nothing more; ``close`` does the rest."""
        await self._runner.leave()

    async def submit(
        self,
        file: AudioFile,
        asked: Asked,
        owner: str,
        *,
        callback_url: str | None = None,
        source: str = "upload",
    ) -> TaskRecord:
        """Accept a task; audio, record and place in the queue are durable when this returns.

        Raises:
            Overloaded: too many tasks wait.
            StorageFull, DatabaseUnavailable: nothing was accepted.
        """
        if self._runner.leaving:
            raise ShuttingDown(retry_after=5)
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
            callback_url=callback_url or self._settings.callback_url,
        )
        await self._launch()
        hold = await self._audio.keep(file, owner)
        try:
            await self.store.add(record, self._settings.max_pending_tasks, hold)
        except BaseException:
            with contextlib.suppress(WhisperApiError):
                await asyncio.shield(self._audio.release(hold))
            raise
        await self._enqueue(record)
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
        await self._launch()
        changed = await self.store.retry(record, anew=stale)
        await self._enqueue(changed)
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
        return self._runner.leaving

    def _tell(self, connection: sa.Connection, record: TaskRecord) -> None:
        """Queue the webhook of a task that has ended, in the transaction that ended it."""
        if record.callback_url:
            data = self._show(record)
            event = f"task.{record.status}"
            self.webhooks.queue(connection, record.id, record.callback_url, event, data)

    async def _enqueue(self, record: TaskRecord) -> None:
        """Hand a task to DBOS. What fails here is made up for by ``_reconcile``."""
        try:
            await asyncio.to_thread(self._durable.enqueue, record.id, record.run)
        except WhisperApiError as error:
            log.warning("task %s waits for the next look: %s", record.id, error.message)

    async def _launch(self) -> None:
        """Start DBOS with the first task of this process: servers without tasks stay light."""
        async with self._launching:
            if not self._launched and not self._runner.leaving:
                steps = LoopSteps(self._runner, asyncio.get_running_loop())
                await asyncio.to_thread(self._durable.launch, self._executor.name, steps)
                self._launched = True

    async def _watch(self) -> None:
        """Heartbeat, tasks of dead processes, and what fell between two stools."""
        every = max(0.2, min(5.0, self._settings.task_takeover_s / 4))
        looked = time.monotonic()
        while True:
            await asyncio.sleep(every)
            try:
                await self._executor.beat()
                await self._take_over()
                if not self._launched and await self.store.waiting():
                    await self._launch()  # another process has accepted them; work is shared
                if time.monotonic() - looked >= RECONCILE_S:
                    looked = time.monotonic()
                    await self._reconcile()
            except WhisperApiError as error:
                log.warning("tasks were not looked after: %s", error.message)
            except Exception:
                log.exception("tasks were not looked after")

    async def _take_over(self) -> None:
        dead = await self._executor.claim_dead()
        if not dead:
            return
        if await self.store.waiting():
            await self._launch()
            flows = await asyncio.to_thread(self._durable.running_at, dead)
            for flow in flows:
                log.warning("taking over run %s of a process that is gone", flow.id)
                await asyncio.to_thread(self._durable.resume, flow.id)
        await self._executor.bury(dead)

    async def _reconcile(self) -> None:
        """Give every unfinished task a run that DBOS knows and that somebody works on."""
        records = await self.store.unfinished()
        if not records:
            self._suspects.clear()
            return
        await self._launch()
        alive = await self._executor.known() - {self._executor.name}
        ids = [flow_id(record.id, record.run) for record in records]
        flows = await asyncio.to_thread(self._durable.flows, ids)
        suspects: set[str] = set()
        for record in records:
            ident = flow_id(record.id, record.run)
            flow = flows.get(ident)
            if flow is None:
                await self._enqueue(record)
            elif flow.status in WAITING or record.id in self._runner.attempts:
                continue
            elif flow.status != RUNNING or flow.executor not in alive:
                # Twice in a row, because a run begins and ends in several steps.
                suspects.add(ident)
                if ident in self._suspects:
                    await self._revive(record, ident, resumable=flow.status == RUNNING)
        self._suspects = suspects

    async def _revive(self, record: TaskRecord, ident: str, *, resumable: bool) -> None:
        log.warning("task %s lost its run; it goes on", record.id)
        if resumable:
            await asyncio.to_thread(self._durable.resume, ident)
        elif (fresh := await self.store.again(record)) is not None:
            await self._enqueue(fresh)

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
        if self._launched:
            before = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - FORGET_S))
            while over := await asyncio.to_thread(self._durable.over, before):
                await asyncio.to_thread(self._durable.forget, over)


def _nothing(record: TaskRecord) -> dict[str, Any]:
    return {"id": record.id, "status": record.status.value}
