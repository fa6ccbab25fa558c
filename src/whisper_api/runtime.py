"""The parts of one process, built in order and taken down in reverse."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Protocol, TypeVar

from whisper_api.audio.decode import Decoder
from whisper_api.audio.effort import Effort
from whisper_api.audio.scratch import Scratch, sweep
from whisper_api.audio.sources import Intake
from whisper_api.audio.speech import SpeechDetector
from whisper_api.config import Settings
from whisper_api.database import Database
from whisper_api.engines.timing import ENGINE_CLOCK
from whisper_api.errors import DatabaseUnavailable, ShuttingDown, WhisperApiError
from whisper_api.history import History
from whisper_api.jobs import Jobs, Streams
from whisper_api.metrics import Metrics
from whisper_api.models import ModelStore, RemoteModels
from whisper_api.pipeline import Pipeline
from whisper_api.playback import Playback
from whisper_api.pool import Pool
from whisper_api.pulls import Pulls
from whisper_api.scheduler import Scheduler
from whisper_api.stored_audio import StoredAudio
from whisper_api.tasks.live import Parts
from whisper_api.tasks.node import Role
from whisper_api.tasks.remote import RemoteStream
from whisper_api.tasks.roles import check_role, means_of
from whisper_api.tasks.service import Tasks
from whisper_api.tasks.transcripts import KeptTranscripts
from whisper_api.tracing import OFF, Tracing
from whisper_api.types import Lane, Options, Transcript
from whisper_api.uploads import UploadStore

log = logging.getLogger(__name__)

IDLE_CHECK_S = 30.0
"""How often idle models are looked for, at least."""
HOUSEKEEPING_S = 3600.0
"""Seconds between two clean-ups."""
STORE_TURNS = 24
"""Clean-ups of which one looks through the whole store of audio."""
DATABASE_WAIT_S = 30.0
"""How long a start waits for a database that does not answer yet."""


@dataclass(eq=False, slots=True)
class Runtime:
    """Everything a door (HTTP, command line) needs."""

    settings: Settings
    metrics: Metrics
    store: ModelStore
    decoder: Decoder
    intake: Intake
    scheduler: Scheduler
    pool: Pool
    pipeline: Pipeline
    pulls: Pulls
    uploads: UploadStore
    jobs: Jobs
    database: Database
    audio: StoredAudio
    tasks: Tasks
    playback: Playback
    history: History
    tracing: Tracing
    failure: str | None = field(default=None)
    """Why the default model could not be loaded, in words for people."""
    ready: bool = False
    """Whether the default model is loaded."""
    stopping: bool = False
    """Whether nothing new is let in."""

    async def preload(self) -> None:
        """Load the default model, downloaded first where it is not here yet.

        A failure is logged and kept in ``failure``. Cancelling stops the download, too.
        """
        if not self.settings.local_engine:
            self.ready = True
            return
        report = _DownloadLog(self.store.default_name)
        try:
            await asyncio.to_thread(self.store.prepare, report)
            async with self.pool.lease():
                self.ready, self.failure = True, None
        except WhisperApiError as error:
            self.failure = error.message
            log.error("the default model is not available: %s", error.message)
        finally:
            report.stopped = True
        for name in self.settings.preload_models:
            try:
                async with self.pool.lease(name):
                    pass
            except WhisperApiError as error:
                log.error("preload_models: %s: %s", name, error.message)

    async def unload_idle(self) -> None:
        """Take models out of memory that nobody has used for ``model_idle_s``; never ends."""
        after = self.settings.model_idle_s
        while after > 0:
            await asyncio.sleep(min(after, IDLE_CHECK_S))
            await self.pool.unload_idle(after)

    async def open_records(self) -> None:
        """Make the database ready; a server of it that starts at the same time is waited for.

        Raises:
            SettingsError: a newer version of this server made it.
            DatabaseUnavailable: it did not come.
        """
        deadline = monotonic() + DATABASE_WAIT_S
        while True:
            try:
                return await asyncio.to_thread(self.database.migrate)
            except DatabaseUnavailable as error:
                # A file that cannot be opened does not come by itself.
                if self.database.is_sqlite or monotonic() > deadline:
                    raise
                log.warning("waiting for the database: %s", error.message)
                await asyncio.sleep(1)

    async def keep_house(self) -> None:
        """Forget old transcripts and sweep stored audio, now and then, until cancelled."""
        for turn in count():
            try:
                forgotten = await self.history.prune()
                swept = await self.audio.sweep(files=turn % STORE_TURNS == 0)
                if forgotten or swept:
                    log.info("clean-up: %d old transcripts, %d audio files", forgotten, swept)
            except WhisperApiError as error:
                log.warning("clean-up: %s", error.message)
            except Exception:
                log.exception("clean-up failed")
            await asyncio.sleep(HOUSEKEEPING_S)

    async def drain(self, seconds: float) -> None:
        """Let nothing new in; running requests have ``seconds``, the rest are told to come again.

        Tasks are interrupted at once: they go on after the restart.
        """
        self.stopping = True
        self.scheduler.stop_admitting()
        await self.tasks.leave()
        # Beside the requests, which must not wait for a database that is away.
        handing_back = asyncio.create_task(self.tasks.hand_back())
        if not await self.scheduler.drain(seconds):
            log.warning("drain_seconds are over: the requests that are left get an error")
        await self.jobs.close()
        self.scheduler.refuse_rest()
        await handing_back

    async def transcribe_path(
        self, path: Path, options: Options, *, model: str | None = None
    ) -> Transcript:
        """Transcribe a file of this machine on its owner's behalf (no allowed directories)."""
        async with Scratch.create(self.settings.scratch_dir) as scratch:
            file = await self.intake.from_own_path(scratch, path)
            return await self.pipeline.transcribe(
                file, options, scratch, model=model, lane=Lane.INTERACTIVE
            )


class _DownloadLog:
    """A line in the log for each tenth of a download; ends it once ``stopped`` is set."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tenths = -1
        self.stopped = False

    def __call__(self, done: int, total: int) -> None:
        if self.stopped:
            raise ShuttingDown
        tenths = 10 * done // total if total else 0
        if tenths != self._tenths:
            self._tenths = tenths
            log.info("downloading %s: %d of %d MB", self._name, done / 1e6, total / 1e6)


@asynccontextmanager
async def open_runtime(
    settings: Settings, tracing: Tracing = OFF, role: Role | None = None
) -> AsyncIterator[Runtime]:
    """Build the parts, and on the way out drain, close and clean up.

    ``role`` is what it is to others, by ``local_engine`` if left out; see ``check_role``.
    """
    role = role or ("all" if settings.local_engine else "api")
    check_role(settings, role)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, tracing.close)
        metrics, decoder = Metrics(), await _decoder(settings, stack)
        store = ModelStore(settings) if settings.local_engine else RemoteModels(settings)
        scheduler, pool = _engines(settings, metrics, store, stack, tracing)
        detector, effort = await asyncio.to_thread(SpeechDetector), Effort(settings.vad_threads)
        stack.callback(effort.close)
        pipeline = Pipeline(decoder, detector, effort, pool, scheduler, metrics, tracing)
        pulls = _kept(stack, Pulls(store))
        database = Database(settings)
        stack.push_async_callback(asyncio.to_thread, database.close)
        audio = StoredAudio(settings, database)
        playback = _kept(stack, Playback(settings, audio, decoder, detector))
        history = History(settings, database, audio, metrics)
        uploads, means = UploadStore(settings), means_of(settings, role, store, pool, scheduler)
        parts = Parts(settings, pipeline, scheduler, pool, decoder, audio)
        transcripts = KeptTranscripts(history)
        tasks = _kept(stack, Tasks(parts, database, metrics, uploads, transcripts, means))
        streams = _streams(pipeline, store, scheduler, tasks, audio)
        jobs = _kept(stack, Jobs(settings, streams, metrics))
        history.on_forget.append(lambda gone: jobs.forget(gone.owner, gone.digest or ""))
        yield Runtime(
            settings=settings,
            metrics=metrics,
            store=store,
            decoder=decoder,
            intake=Intake(settings, decoder),
            scheduler=scheduler,
            pool=pool,
            uploads=uploads,
            pipeline=pipeline,
            pulls=pulls,
            jobs=jobs,
            database=database,
            audio=audio,
            tasks=tasks,
            playback=playback,
            history=history,
            tracing=tracing,
        )


class _Closes(Protocol):
    async def close(self) -> None: ...


P = TypeVar("P", bound=_Closes)


def _kept(stack: AsyncExitStack, part: P) -> P:
    """``part``, closed when ``stack`` is."""
    stack.push_async_callback(part.close)
    return part


async def _decoder(settings: Settings, stack: AsyncExitStack) -> Decoder:
    """The decoder, on a scratch folder without what a crash has left."""
    await asyncio.to_thread(settings.scratch_dir.mkdir, parents=True, exist_ok=True)
    await asyncio.to_thread(sweep, settings.scratch_dir)
    decoder = Decoder(settings)
    await asyncio.to_thread(decoder.start)
    stack.push_async_callback(asyncio.to_thread, decoder.close)
    return decoder


def _streams(
    pipeline: Pipeline,
    store: ModelStore,
    scheduler: Scheduler,
    tasks: Tasks,
    audio: StoredAudio,
) -> Streams:
    """Who does the work of direct requests: this process, or workers."""
    if not isinstance(store, RemoteModels):
        return pipeline
    store.offered = lambda: tasks.cluster.latest.offered
    return RemoteStream(scheduler, tasks, tasks.requests, audio)


def _engines(
    settings: Settings,
    metrics: Metrics,
    store: ModelStore,
    stack: AsyncExitStack,
    tracing: Tracing,
) -> tuple[Scheduler, Pool]:
    scheduler = Scheduler(settings, tracing=tracing)
    scheduler.on_batch = metrics.observe_batch
    metrics.follow_queue(lambda: scheduler.state().by_lane)
    metrics.follow_engines(ENGINE_CLOCK.read)
    pool = Pool(settings, store, closing=scheduler.forget, loaded=metrics.observe_load)
    stack.push_async_callback(pool.close)
    stack.push_async_callback(scheduler.close)
    return scheduler, pool


async def settle(task: asyncio.Task[None]) -> None:
    """Cancel a background task and wait for its end."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
