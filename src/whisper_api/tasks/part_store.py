"""Parts of long recordings in the database."""

from __future__ import annotations

import sqlalchemy as sa

from whisper_api.database import Database
from whisper_api.tables import task_parts, tasks
from whisper_api.tasks.record import BATCH, Batch, Part, Status, TaskRecord
from whisper_api.tasks.rows import LIGHT, record_of


class PartStore:
    """Every statement about parts."""

    def __init__(self, database: Database) -> None:
        """``database`` is shared."""
        self._database = database

    async def all(self, ident: str) -> dict[int, Part]:
        """The parts of a task by their first window, without what they came to."""
        query = sa.select(task_parts.c.first, task_parts.c.stop, task_parts.c.failed)
        query = query.where(task_parts.c.task_id == ident).order_by(task_parts.c.first)
        rows = await self._database.run(lambda c: c.execute(query).all(), write=False)
        return {row.first: Part(row.first, row.stop, bool(row.failed)) for row in rows}

    async def get(self, record: TaskRecord, first: int) -> Part | None:
        """One part as it is now; None where the task is no longer this attempt's."""
        query = (
            sa.select(task_parts)
            .join(tasks, tasks.c.id == task_parts.c.task_id)
            .where(task_parts.c.task_id == record.id, task_parts.c.first == first)
            .where(tasks.c.attempts == record.attempts, tasks.c.status == Status.RUNNING)
        )
        row = await self._database.run(lambda c: c.execute(query).first(), write=False)
        if row is None:
            return None
        batch = BATCH.load(row.content) if row.content else None
        return Part(row.first, row.stop, bool(row.failed), batch)

    async def wanted(self, ident: str, run: int, first: int) -> TaskRecord | None:
        """The task of a part that nobody has done; None where there is nothing to do any more."""
        open_ = (task_parts.c.first == first) & task_parts.c.content.is_(None)
        query = (
            sa.select(*LIGHT)
            .join(task_parts, task_parts.c.task_id == tasks.c.id)
            .where(tasks.c.id == ident, tasks.c.run == run, open_, ~task_parts.c.failed)
            .where(tasks.c.status == Status.RUNNING)
        )
        row = await self._database.run(lambda c: c.execute(query).first(), write=False)
        return None if row is None else record_of(row._mapping)

    async def save(self, ident: str, batch: Batch, executor: str) -> bool:
        """Keep what a part came to, the first time; False where it was not wanted any more."""

        def work(connection: sa.Connection) -> bool:
            at = (task_parts.c.task_id == ident) & (task_parts.c.first == batch.first)
            write = task_parts.update().where(at, task_parts.c.content.is_(None))
            content = BATCH.dump(batch)
            changed = connection.execute(write.values(content=content, executor=executor))
            return bool(changed.rowcount)

        return await self._database.run(work)

    async def fail(self, ident: str, first: int) -> None:
        """Leave a part to whoever merges."""
        at = (task_parts.c.task_id == ident) & (task_parts.c.first == first)
        write = task_parts.update().where(at).values(failed=True)
        await self._database.run(lambda connection: connection.execute(write))
