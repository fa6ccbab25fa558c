"""The processes that share a database, as each of them sees the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa

from whisper_api.database import Database
from whisper_api.errors import NotFound
from whisper_api.metrics import ClusterFigures
from whisper_api.scheduler import UNMEASURED_RTF
from whisper_api.tables import executors, tasks
from whisper_api.tasks.record import UNFINISHED

SILENT_S = 10.0
"""Seconds without a heartbeat after which a process counts as away."""

OLD_SILENT_S = 20.0
"""The same for processes of versions that say so less often."""


@dataclass(frozen=True, slots=True)
class About:
    """What a process says of itself with each heartbeat."""

    host: str
    pid: int
    version: str
    started_at: float  #: Unix seconds
    models: tuple[str, ...] = ()  #: loaded
    stored: tuple[str, ...] = ()  #: it can load
    running: int = 0  #: tasks and parts
    speed: float = 0.0  #: measured seconds of audio in a second
    draining: bool = False  #: takes nothing more


@dataclass(frozen=True, slots=True)
class Worker:
    """One process of those that share the database."""

    id: str
    role: str  #: all, api or worker
    about: About
    steps: str  #: version of the steps that it runs
    age: float  #: seconds since its last heartbeat
    drain: bool  #: somebody wants it to take nothing more

    @property
    def ready(self) -> bool:
        """Whether it takes work."""
        away = self.age > SILENT_S or self.drain or self.about.draining
        return self.role != "api" and not away

    @property
    def state(self) -> str:
        """In one word."""
        if self.age > SILENT_S:
            return "away"
        return "draining" if self.drain or self.about.draining else "ready"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster a moment ago."""

    workers: tuple[Worker, ...] = ()
    queued: Mapping[str, float] = field(default_factory=dict)  #: seconds of audio by lane
    versions: frozenset[str] = frozenset()  #: of the steps, of all that live
    waiting_models: frozenset[str] = frozenset()  #: models of tasks that wait or run

    @property
    def ready(self) -> list[Worker]:
        """Those that take work."""
        return [worker for worker in self.workers if worker.ready]

    @property
    def speed(self) -> float:
        """Seconds of audio that all ready ones do in a second; of one unmeasured, with none."""
        found = [worker.about.speed or 1 / UNMEASURED_RTF for worker in self.ready]
        return sum(found) or 1 / UNMEASURED_RTF

    @property
    def backlog(self) -> float:
        """Seconds until what is queued is done: what to scale workers by."""
        return sum(self.queued.values()) / self.speed

    @property
    def offered(self) -> frozenset[str]:
        """Models that some ready process has loaded or can load."""
        every = (worker.about.models + worker.about.stored for worker in self.ready)
        return frozenset(name for names in every for name in names)

    @property
    def loaded(self) -> frozenset[str]:
        """Models that some ready process has loaded."""
        return frozenset(name for worker in self.ready for name in worker.about.models)


class Cluster:
    """Reads and keeps the picture of the others; its writes are wishes of admins."""

    def __init__(self, database: Database) -> None:
        """Nothing is read yet."""
        self._database = database
        self.latest = Snapshot()

    async def look(self) -> Snapshot:
        """The picture anew."""
        self.latest = await self._database.run(_read, write=False)
        return self.latest

    def figures(self) -> ClusterFigures:
        """What the metrics show."""
        latest = self.latest
        states = [worker.state for worker in latest.workers if worker.role != "api"]
        workers = {state: states.count(state) for state in ("ready", "draining", "away")}
        return ClusterFigures(latest.queued, latest.speed, latest.backlog, workers)

    async def drain(self, ident: str) -> Worker:
        """Ask a process to take nothing more and hand its work back.

        Raises:
            NotFound: there is no such process.
        """
        statement = (
            executors.update()
            .where(executors.c.id == ident, executors.c.role != "api")
            .values(drain=True)
        )
        await self._database.run(lambda c: c.execute(statement))
        # Those that have told nothing of themselves are not shown, and others may be gone already.
        for worker in (await self.look()).workers:
            if worker.id == ident and worker.role != "api":
                return worker
        raise NotFound(f"There is no worker {ident[:60]!r}.")


def row_of(role: str, steps: str, about: About) -> dict[str, Any]:
    """What a heartbeat writes beside the time."""
    return {"role": role, "steps": steps, "about": asdict(about)}


def _read(connection: sa.Connection) -> Snapshot:
    now: float | None = None  # on SQLite a process that is listed lives: its lock says so
    if connection.dialect.name != "sqlite":
        clock = sa.text("SELECT extract(epoch FROM clock_timestamp())")
        now = float(connection.execute(clock).scalar_one())
    rows = connection.execute(sa.select(executors).order_by(executors.c.id)).all()
    left = sa.func.coalesce(tasks.c.duration, 0.0) - tasks.c.processed
    waiting = connection.execute(
        sa.select(tasks.c.lane, tasks.c.model, sa.func.sum(left).label("seconds"))
        .where(tasks.c.status.in_(UNFINISHED))
        .group_by(tasks.c.lane, tasks.c.model)
    ).all()
    queued: dict[str, float] = {}
    for row in waiting:
        queued[row.lane] = queued.get(row.lane, 0.0) + max(0.0, float(row.seconds or 0.0))
    return Snapshot(
        workers=tuple(_worker(row, now) for row in rows if row.about),
        queued=queued,
        versions=frozenset(
            row.steps
            for row in rows
            if row.role != "api" and (now is None or row.seen_at > now - OLD_SILENT_S)
        ),
        waiting_models=frozenset(row.model for row in waiting if row.model),
    )


def _worker(row: sa.Row[Any], now: float | None) -> Worker:
    known = {name: row.about[name] for name in About.__slots__ if name in row.about}
    for name in ("models", "stored"):
        known[name] = tuple(known.get(name, ()))
    about = About(**known)
    age = 0.0 if now is None else max(0.0, now - row.seen_at)
    return Worker(row.id, row.role, about, row.steps, age, bool(row.drain))
