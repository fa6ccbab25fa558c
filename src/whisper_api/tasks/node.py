"""This process among those that share the tasks: it shows that it lives, takes work and takes
over what dead ones have left.

The database says what a task is; DBOS sees to it that some process works on it. Where the two
disagree (a crash between two writes, a restored backup, an upgrade) the database wins:
``reconcile``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from whisper_api import __version__
from whisper_api.config import Settings
from whisper_api.database import Database
from whisper_api.errors import WhisperApiError
from whisper_api.tasks.claims import HasRoom
from whisper_api.tasks.cluster import About, Cluster, row_of
from whisper_api.tasks.durable import (
    QUEUE,
    RUNNING,
    STEPS_VERSION,
    WAITING,
    Durable,
    Flow,
    flow_id,
    queue_of,
)
from whisper_api.tasks.executors import Executor
from whisper_api.tasks.record import Part, TaskRecord
from whisper_api.tasks.request_store import RequestStore
from whisper_api.tasks.runner import Runner
from whisper_api.tasks.steps import LoopSteps
from whisper_api.tasks.store import TaskStore
from whisper_api.types import Lane

log = logging.getLogger(__name__)

Role = Literal["all", "api", "worker"]
RECONCILE_S = 30.0
BEAT_S = 1.5
"""Most seconds between two heartbeats on a shared database."""
STORED_S = 30.0
"""How long the list of models on disk is believed."""
AFTER_REQUESTS = 1000
"""Priority of the first part of a task; those of direct requests come before it."""


@dataclass(frozen=True, slots=True)
class Means:
    """What this process can do, asked when it tells others."""

    role: Role
    first_models: Callable[[], Sequence[str]]  #: taken work for from the start; blocks
    loaded: Callable[[], Sequence[str]]
    stored: Callable[[], Sequence[str]]  #: models on disk; blocks
    speed: Callable[[], float]  #: seconds of audio in a second


class Node:
    """Opened by ``start``, ended by ``close``."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: TaskStore,
        requests: RequestStore,
        means: Means,
    ) -> None:
        """Set ``runner`` and ``has_room`` before ``start``."""
        self.runner: Runner
        self.has_room: HasRoom
        self.cluster = Cluster(database)
        self.shared = not database.is_sqlite
        self.draining = False
        self._settings = settings
        self._store = store
        self._requests = requests
        self._means = means
        self._durable = Durable(settings, database)
        self._executor = Executor(settings.data_dir, database, settings.task_takeover_s)
        self._started_at = time.time()
        self._stored: tuple[str, ...] = ()
        self._stored_at = 0.0
        self._launching = asyncio.Lock()
        self.launched = False
        self._suspects: set[str] = set()

    @property
    def name(self) -> str:
        """What others know this process by."""
        return self._executor.name

    @property
    def durable(self) -> Durable:
        """DBOS, once it is ``launched``."""
        return self._durable

    async def takers(self) -> int:
        """How many processes take work just now.

        Raises:
            DatabaseUnavailable: nobody knows.
        """
        return len((await self.cluster.look()).ready) if self.shared else 1

    async def start(self) -> None:
        """Take a name and take up what was left undone under it."""
        await asyncio.to_thread(self._executor.claim)
        await self._requests.abandon([self.name])
        await self._beat(first=True)
        if self._means.role != "all" or await self._store.unfinished():
            await self.launch()
            await self.reconcile()

    async def watch(self) -> None:
        """Heartbeat, tasks of dead processes, and what fell between two stools; never ends."""
        every = max(0.2, min(5.0, self._settings.task_takeover_s / 4))
        every = min(every, BEAT_S) if self.shared else every
        looked = time.monotonic()
        while True:
            await asyncio.sleep(every)
            try:
                await self._beat()
                buried = await self._take_over()
                if not self.launched and await self._store.waiting():
                    await self.launch()  # another process has accepted them; work is shared
                if buried or time.monotonic() - looked >= RECONCILE_S:
                    looked = time.monotonic()
                    await self.reconcile()
            except WhisperApiError as error:
                log.warning("tasks were not looked after: %s", error.message)
            except Exception:
                log.exception("tasks were not looked after")

    async def close(self) -> None:
        """Stop; others may take over at once what is not finished."""
        await asyncio.to_thread(self._durable.close)
        if self.shared and self.name:
            try:
                await self._executor.leave()
            except WhisperApiError as error:
                log.warning("others take over later: %s", error.message)
        await asyncio.to_thread(self._executor.release)

    async def launch(self) -> None:
        """Start DBOS: with the first task where the database is this process's own, so that
        servers without tasks stay light."""
        async with self._launching:
            if self.launched or (self.runner.leaving and not self.draining):
                return
            models: Sequence[str] = ()
            if self.shared and self._settings.local_engine and not self.draining:
                models = await asyncio.to_thread(self._means.first_models)
            await self._launch(models)

    async def enqueue(self, record: TaskRecord, priority: int = 1) -> None:
        """Hand a task to some process. What fails here is made up for by ``reconcile``."""
        queue = QUEUE
        if self.shared and record.model:
            kind = "requests" if record.lane == Lane.INTERACTIVE else "tasks"
            queue = queue_of(kind, record.model)
        try:
            await asyncio.to_thread(self._durable.enqueue, record.id, record.run, queue, priority)
        except WhisperApiError as error:
            log.warning("task %s waits for the next look: %s", record.id, error.message)

    async def hand_back(self) -> None:
        """Take nothing more; others go on at once with what ran here. Idempotent.

        Raises:
            DatabaseUnavailable: the database is away; others go on when this process has ended.
        """
        if self.draining or not self.shared or not self._settings.local_engine:
            return
        self.draining = True
        async with self._launching:
            if self.launched:
                self.launched = False
                await asyncio.to_thread(self._durable.close)
                # At its launch DBOS puts back into the queue what ran under this name.
                await self._launch(())
                await asyncio.to_thread(self._durable.give_back, self.name)

    async def hand_out(self, record: TaskRecord, parts: Sequence[Part], before: int = 0) -> None:
        """Hand out parts of a task, after ``before`` others; those of other recordings come in
        between.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        base = before + (1 if record.lane == Lane.INTERACTIVE else AFTER_REQUESTS)
        queue = queue_of("parts", record.model or "")

        def work() -> None:
            for number, part in enumerate(parts):
                self._durable.enqueue_part(record.id, record.run, part.first, queue, base + number)

        if parts:
            await asyncio.to_thread(work)

    async def reconcile(self) -> None:
        """Give every unfinished task a run that DBOS knows and that somebody works on."""
        records = await self._store.unfinished()
        if not records:
            self._suspects.clear()
            return
        await self.launch()
        alive = await self._executor.known() - {self.name}
        flows = await asyncio.to_thread(
            self._durable.flows, [flow_id(record.id, record.run) for record in records]
        )
        suspects: set[str] = set()
        for record in records:
            ident = flow_id(record.id, record.run)
            flow = flows.get(ident)
            if flow is None:
                await self.enqueue(record)
            elif record.id in self.runner.attempts:
                continue
            elif flow.status in WAITING:
                await self._update(record, flow)
            elif flow.status != RUNNING or flow.executor not in alive:
                # Twice in a row, because a run begins and ends in several steps.
                suspects.add(ident)
                if ident in self._suspects:
                    await self._revive(record, flow)
        self._suspects = suspects

    async def _launch(self, models: Sequence[str]) -> None:
        steps = LoopSteps(self.runner, asyncio.get_running_loop())
        await asyncio.to_thread(self._durable.launch, self.name, steps, self.has_room, models)
        self.launched = True

    async def _beat(self, *, first: bool = False) -> None:
        values = row_of(self._means.role, STEPS_VERSION, await self._about())
        if first:
            values["drain"] = False
        await self._executor.beat(values)
        snapshot = await self.cluster.look()
        if not self.shared:
            return
        mine = next((worker for worker in snapshot.workers if worker.id == self.name), None)
        if mine is not None and mine.drain and not self.draining:
            await self._drain()
        elif self.launched and not self.draining and self._settings.local_engine:
            await self._listen()

    async def _about(self) -> About:
        if time.monotonic() - self._stored_at > STORED_S:
            self._stored = tuple(await asyncio.to_thread(self._means.stored))
            self._stored_at = time.monotonic()
        return About(
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            started_at=self._started_at,
            models=tuple(self._means.loaded()),
            stored=self._stored,
            running=self.runner.busy,
            speed=round(self._means.speed(), 3),
            draining=self.draining or self.runner.leaving,
        )

    async def _listen(self) -> None:
        """Take work for models that are here, where nobody else has them loaded."""
        snapshot, loaded = self.cluster.latest, set(self._means.loaded())
        for model in snapshot.waiting_models & {*loaded, *self._stored}:
            if model in loaded or model not in snapshot.loaded:
                await asyncio.to_thread(self._durable.listen, model)

    async def _drain(self) -> None:
        """Take nothing more and hand back what runs; direct requests of this server go on."""
        log.warning("an administrator drains this process: it takes no more tasks")
        await self.runner.leave()
        await self.hand_back()
        await self._executor.beat(row_of(self._means.role, STEPS_VERSION, await self._about()))

    async def _take_over(self) -> bool:
        """Whether anybody was dead."""
        dead = await self._executor.claim_dead()
        if not dead:
            return False
        await self._requests.abandon(dead)
        if await self._store.waiting():
            await self.launch()
            flows = await asyncio.to_thread(self._durable.running_at, dead)
            for flow in flows:
                log.warning("taking over run %s of a process that is gone", flow.id)
                await asyncio.to_thread(self._durable.resume, flow)
        await self._executor.bury(dead)
        await self.cluster.look()
        return True

    async def _update(self, record: TaskRecord, flow: Flow) -> None:
        """A run that waits for a version of the steps that no process has goes on in this one."""
        if flow.version in (None, STEPS_VERSION) or flow.version in self.cluster.latest.versions:
            return
        log.warning("task %s was begun by version %s; it goes on", record.id, flow.version)
        if (fresh := await self._store.again(record)) is not None:
            await self.enqueue(fresh)

    async def _revive(self, record: TaskRecord, flow: Flow) -> None:
        log.warning("task %s lost its run; it goes on", record.id)
        if flow.status == RUNNING:
            await asyncio.to_thread(self._durable.resume, flow)
        elif (fresh := await self._store.again(record)) is not None:
            await self.enqueue(fresh)
