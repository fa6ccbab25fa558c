"""Tasks in the database. Every write of a running task names its attempt: a process that was
taken for dead and wakes up writes nothing any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from whisper_api.database import Database
from whisper_api.errors import Conflict, NotFound, Overloaded
from whisper_api.stored_audio import Hold, StoredAudio
from whisper_api.tables import audio_holds, task_batches, task_parts, tasks
from whisper_api.tasks.record import (
    BATCH,
    FINISHED,
    PLANNED,
    UNFINISHED,
    Batch,
    Planned,
    Saved,
    Status,
    TaskRecord,
)
from whisper_api.tasks.rows import LIGHT, record_of, row_of, select_task
from whisper_api.types import Caller, Lane, Segment

Also = Callable[[sa.Connection, TaskRecord], None]
"""Work that belongs into the transaction that ends a task."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running task is."""

    processed: float  #: seconds of audio done
    eta: float | None  #: seconds of work left


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list."""

    records: Sequence[TaskRecord]
    more: bool


class TaskStore:
    """Every statement about tasks."""

    def __init__(self, database: Database, audio: StoredAudio) -> None:
        """``audio`` is told when a task no longer needs its file."""
        self._database = database
        self._audio = audio

    async def add(self, record: TaskRecord, most: int, hold: Hold) -> int:
        """Write a new task, which takes the place of ``hold``; durable when this returns.

        The answer says how many tasks of this owner in this lane wait or run, itself included.

        Raises:
            Overloaded: ``most`` tasks wait or run in this lane already.
            DatabaseUnavailable, StorageFull: nothing was written.
        """

        own = sa.func.count().filter(tasks.c.owner == record.owner).label("own")
        waiting = sa.select(sa.func.count().label("all"), own).select_from(tasks)
        waiting = waiting.where(tasks.c.status.in_(UNFINISHED), tasks.c.lane == record.lane)

        def work(connection: sa.Connection) -> int:
            found = connection.execute(waiting).one()
            if found.all >= most:
                raise Overloaded(f"{most} tasks wait or run already.", retry_after=60)
            connection.execute(tasks.insert().values(row_of(record)))
            connection.execute(audio_holds.delete().where(audio_holds.c.id == hold.id))
            return int(found.own) + 1

        return await self._database.run(work)

    async def find(self, ident: str) -> TaskRecord | None:
        """A task, whoever it belongs to."""
        query = sa.select(*LIGHT).where(tasks.c.id == ident)
        row = await self._database.run(lambda c: c.execute(query).first(), write=False)
        return None if row is None else record_of(row._mapping)

    async def get(self, ident: str, caller: Caller) -> TaskRecord:
        """A task of the caller's.

        Raises:
            NotFound: there is none, it is another's, or a request waits for it.
        """
        record = await self.find(ident)
        if record is None or record.waiter or not caller.may_see(record.owner):
            raise NotFound(f"There is no task {ident[:60]!r}.")
        return record

    async def page(
        self,
        caller: Caller,
        *,
        statuses: Sequence[Status] = (),
        limit: int = 20,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> Page:
        """The caller's tasks by time of submission; ``after`` is the last id of the page before.

        Raises:
            NotFound: ``after`` is no task of theirs.
        """
        query = sa.select(*LIGHT).where(tasks.c.lane == Lane.TASK)
        if not caller.admin:
            query = query.where(tasks.c.owner == caller.key)
        if statuses:
            query = query.where(tasks.c.status.in_(statuses))
        place = sa.tuple_(tasks.c.created_at, tasks.c.id)
        if after is not None:
            last = await self.get(after, caller)
            mark = sa.tuple_(sa.literal(last.created_at), sa.literal(last.id))
            query = query.where(place > mark if order == "asc" else place < mark)
        sides = (tasks.c.created_at, tasks.c.id)
        query = query.order_by(*(side.asc() if order == "asc" else side.desc() for side in sides))
        query = query.limit(limit + 1)
        rows = await self._database.run(lambda c: c.execute(query).all(), write=False)
        found = [record_of(row._mapping) for row in rows]
        return Page(found[:limit], len(found) > limit)

    async def begin(self, ident: str, run: int) -> TaskRecord | None:
        """Count one more attempt at a task; None where there is nothing to do any more."""

        def work(connection: sa.Connection) -> TaskRecord | None:
            changed = connection.execute(
                tasks.update()
                .where(tasks.c.id == ident, tasks.c.run == run, tasks.c.status.in_(UNFINISHED))
                .values(
                    status=Status.RUNNING,
                    attempts=tasks.c.attempts + 1,
                    stalls=tasks.c.stalls + 1,
                    started_at=sa.func.coalesce(tasks.c.started_at, time.time()),
                    eta=None,
                )
            )
            return select_task(connection, ident) if changed.rowcount else None

        return await self._database.run(work)

    async def rest(self, idents: Sequence[str]) -> None:
        """These tasks were interrupted in good order; that is no sign of a bad file."""
        statement = tasks.update().where(tasks.c.id.in_(idents)).values(stalls=0, eta=None)
        await self._database.run(lambda c: c.execute(statement))

    async def plan(self, ident: str) -> Planned | None:
        """What the plan step left, if it came that far."""
        query = sa.select(tasks.c.plan).where(tasks.c.id == ident)
        data = await self._database.run(lambda c: c.execute(query).scalar(), write=False)
        return PLANNED.load(data) if data else None

    async def save_plan(
        self, record: TaskRecord, planned: Planned, parts: Sequence[tuple[int, int]] = ()
    ) -> bool:
        """Keep the plan, cut into ``parts`` (first and stop of each) or whole; False where the
        task is no longer this attempt's."""
        plan = planned.plan
        values = {
            "plan": PLANNED.dump(planned),
            "windows": len(plan.windows),
            "duration": plan.duration,
            "model": plan.model,
            "stalls": 0,
        }
        rows = [{"task_id": record.id, "first": first, "stop": stop} for first, stop in parts]

        def work(connection: sa.Connection) -> bool:
            if not connection.execute(_update(record, values)).rowcount:
                return False
            _drop_parts(connection, record.id)
            if rows:
                connection.execute(task_parts.insert(), rows)
            return True

        return await self._database.run(work)

    async def save_batch(
        self, record: TaskRecord, batch: Batch, first_segment: int, progress: Progress
    ) -> bool:
        """Keep a batch, once; False where the task is no longer this attempt's."""
        values = {
            "done": batch.stop,
            "segments": first_segment + len(batch.segments),
            "processed": progress.processed,
            "eta": progress.eta,
            "stalls": 0,
        }

        def work(connection: sa.Connection) -> bool:
            if not connection.execute(_update(record, values)).rowcount:
                return False
            at = (task_batches.c.task_id == record.id) & (task_batches.c.first == batch.first)
            connection.execute(task_batches.delete().where(at))
            connection.execute(
                task_batches.insert().values(
                    task_id=record.id,
                    first=batch.first,
                    stop=batch.stop,
                    first_segment=first_segment,
                    segments=len(batch.segments),
                    content=BATCH.dump(batch),
                )
            )
            return True

        return await self._database.run(work)

    async def saved(self, ident: str) -> dict[int, Saved]:
        """Which batches are kept, by their first window."""
        count = task_batches.c.first_segment + task_batches.c.segments
        query = sa.select(task_batches.c.first, task_batches.c.stop, count.label("total")).where(
            task_batches.c.task_id == ident
        )
        rows = await self._database.run(lambda c: c.execute(query).all(), write=False)
        return {row.first: Saved(row.stop, row.total) for row in rows}

    async def batches(self, ident: str) -> list[Batch]:
        """Every batch kept, in order."""
        query = _contents(ident)
        rows = await self._database.run(lambda c: c.execute(query).scalars().all(), write=False)
        return [BATCH.load(row) for row in rows]

    async def segments(self, ident: str, skip: int) -> list[Segment]:
        """The segments kept so far, without the first ``skip``."""
        query = _contents(ident).where(
            task_batches.c.first_segment + task_batches.c.segments > skip
        )
        rows = await self._database.run(lambda c: c.execute(query).scalars().all(), write=False)
        found = [segment for row in rows for segment in BATCH.load(row).segments]
        return [segment for segment in found if segment.id >= skip]

    async def finish(
        self,
        record: TaskRecord,
        status: Status,
        also: Also,
        *,
        history_id: str | None = None,
        error: Mapping[str, Any] | None = None,
        result: bytes | None = None,
    ) -> bool:
        """Write how an attempt ended; False where the task is no longer this attempt's."""
        values: dict[str, Any] = {
            "status": status,
            "finished_at": time.time(),
            "history_id": history_id,
            "error": error,
            "eta": None,
        }
        if status is Status.COMPLETED:
            values |= {"processed": record.duration or 0.0, "plan": None, "result": result}

        def work(connection: sa.Connection) -> bool:
            if not connection.execute(_update(record, values)).rowcount:
                return False
            if status is Status.COMPLETED:
                _drop_batches(connection, record.id)
                _drop_parts(connection, record.id)
            also(connection, select_task(connection, record.id))
            return True

        return await self._database.run(work)

    async def cancel(self, record: TaskRecord, also: Also) -> TaskRecord:
        """Stop a task that is not finished.

        Raises:
            Conflict: it has finished meanwhile.
        """

        def work(connection: sa.Connection) -> TaskRecord:
            values = {"status": Status.CANCELLED, "finished_at": time.time(), "eta": None}
            open_ = (tasks.c.id == record.id) & tasks.c.status.in_(UNFINISHED)
            if not connection.execute(tasks.update().where(open_).values(values)).rowcount:
                raise Conflict("The task has finished meanwhile.", code="task_finished")
            changed = select_task(connection, record.id)
            also(connection, changed)
            return changed

        return await self._database.run(work)

    async def retry(self, record: TaskRecord, *, anew: bool) -> TaskRecord:
        """Set a failed or cancelled task to pending; ``anew`` forgets the work done.

        Raises:
            Conflict: it is in another state.
        """
        values: dict[str, Any] = {
            "status": Status.PENDING,
            "run": tasks.c.run + 1,
            "stalls": 0,
            "finished_at": None,
            "error": None,
        }
        if anew:
            values |= {"plan": None, "windows": None, "done": 0, "segments": 0, "processed": 0.0}

        def work(connection: sa.Connection) -> TaskRecord:
            ended = tasks.c.status.in_((Status.FAILED, Status.CANCELLED))
            where = (tasks.c.id == record.id) & ended
            if not connection.execute(tasks.update().where(where).values(values)).rowcount:
                raise Conflict(
                    "Only failed and cancelled tasks are tried again.", code="task_not_retriable"
                )
            if anew:
                _drop_batches(connection, record.id)
                _drop_parts(connection, record.id)
            return select_task(connection, record.id)

        return await self._database.run(work)

    async def again(self, record: TaskRecord) -> TaskRecord | None:
        """Give an unfinished task a new run after its old one was lost; None where it finished."""

        def work(connection: sa.Connection) -> TaskRecord | None:
            same = (tasks.c.id == record.id) & (tasks.c.run == record.run)
            statement = tasks.update().where(same, tasks.c.status.in_(UNFINISHED))
            changed = connection.execute(statement.values(run=tasks.c.run + 1))
            return select_task(connection, record.id) if changed.rowcount else None

        return await self._database.run(work)

    async def waiting(self) -> bool:
        """Whether any task waits or runs."""
        query = sa.select(tasks.c.id).where(tasks.c.status.in_(UNFINISHED)).limit(1)
        return await self._database.run(lambda c: c.execute(query).first(), write=False) is not None

    async def unfinished(self) -> list[TaskRecord]:
        """Every task that waits or runs, oldest first."""
        query = sa.select(*LIGHT).where(tasks.c.status.in_(UNFINISHED))
        query = query.order_by(tasks.c.created_at, tasks.c.id)
        rows = await self._database.run(lambda c: c.execute(query).all(), write=False)
        return [record_of(row._mapping) for row in rows]

    async def remove(self, idents: Sequence[str]) -> int:
        """Delete finished tasks; audio that nothing else needs goes with them."""

        def work(connection: sa.Connection) -> int:
            ended = tasks.c.id.in_(idents) & tasks.c.status.in_(FINISHED)
            rows = connection.execute(sa.select(tasks.c.id, tasks.c.audio).where(ended)).all()
            connection.execute(tasks.delete().where(tasks.c.id.in_([row.id for row in rows])))
            for row in rows:
                self._audio.discard(connection, row.audio)
            return len(rows)

        return await self._database.run(work) if idents else 0

    async def ended_before(self, moment: float, most: int = 500) -> list[str]:
        """Ids of tasks that finished before ``moment``."""
        query = (
            sa.select(tasks.c.id)
            .where(tasks.c.status.in_(FINISHED), tasks.c.finished_at < moment)
            .limit(most)
        )
        rows = await self._database.run(lambda c: c.execute(query).scalars().all(), write=False)
        return list(rows)


def _update(record: TaskRecord, values: Mapping[str, Any]) -> sa.Update:
    """A write that only counts while the task runs in this very attempt."""
    mine = (tasks.c.id == record.id) & (tasks.c.attempts == record.attempts)
    return tasks.update().where(mine, tasks.c.status == Status.RUNNING).values(values)


def _contents(ident: str) -> sa.Select[bytes]:
    query = sa.select(task_batches.c.content).where(task_batches.c.task_id == ident)
    return query.order_by(task_batches.c.first)


def _drop_batches(connection: sa.Connection, ident: str) -> None:
    connection.execute(task_batches.delete().where(task_batches.c.task_id == ident))


def _drop_parts(connection: sa.Connection, ident: str) -> None:
    connection.execute(task_parts.delete().where(task_parts.c.task_id == ident))
