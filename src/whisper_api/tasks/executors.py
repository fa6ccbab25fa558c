"""Which process is which, and which of them are dead.

A process holds the lock of a numbered file in the data folder; folder and number make its name,
so a restarted process gets its old name back and takes up its own tasks. A second process on
the same folder gets the next number. Whose lock is free, has its tasks taken over. Processes on
other machines cannot see files; on PostgreSQL each name has a lock there (``session_lock``),
and a heartbeat for processes that live but do nothing.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from whisper_api.database import Database
from whisper_api.errors import DatabaseUnavailable
from whisper_api.locks import try_lock, write_once
from whisper_api.tables import executors
from whisper_api.tasks.session_lock import SessionLock, is_free

MOST = 1024
GRACE_S = 4.0
"""Seconds without a heartbeat after which a free lock means death. Longer than the time in which
a living process takes its lock again when the database has come back."""
LEFT = 0.0
"""``seen_at`` of a process that has ended in good order."""
_POSTGRES_CLOCK = "extract(epoch FROM clock_timestamp())"


class Executor:
    """This process among those that share a database."""

    def __init__(self, data_dir: Path, database: Database, takeover: float) -> None:
        """Locks lie in ``data_dir``, or beside a SQLite database; ``takeover``: seconds of
        silence that mean death."""
        place = database.url.database if database.is_sqlite else None
        self._folder = (Path(place).parent if place else data_dir) / "executors"
        self._database = database
        self._takeover = takeover
        self._handle: int | None = None
        self._lock = None if database.is_sqlite else SessionLock(database)
        self._told = False
        self._judges_from = 0.0
        self.name = ""

    def claim(self) -> str:
        """Take the first free name of this folder. It blocks.

        Raises:
            OSError: the folder cannot be written.
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        node = _node(self._folder / "node")
        for number in range(MOST):
            handle = try_lock(_touched(self._folder / f"{number}.lock"))
            if handle is None:
                continue
            name = f"{node}-{number}"
            # A copy of this folder on another machine has the same names.
            if self._lock is None or self._lock.take(name):
                self._handle, self.name = handle, name
                self._doubt()
                return name
            os.close(handle)
        raise OSError(f"{MOST} processes use {self._folder}")

    def release(self) -> None:
        """Give the name back; idempotent."""
        if self._lock is not None:
            self._lock.drop()
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    async def beat(self, values: dict[str, Any] | None = None) -> None:
        """Say that this process lives, and ``values`` of its row.

        On SQLite once is enough, as the lock says the rest.
        """
        if self._told and self._database.is_sqlite:
            return
        try:
            await self._database.run(lambda connection: self._beat(connection, values or {}))
        except DatabaseUnavailable:
            self._doubt()
            raise
        self._told = True

    async def leave(self) -> None:
        """Have others take over at once what this process has not finished."""
        mine = executors.update().where(executors.c.id == self.name).values(seen_at=LEFT)
        await self._database.run(lambda connection: connection.execute(mine))

    async def claim_dead(self) -> list[str]:
        """Names of dead processes whose tasks this one is to take over; tell ``bury`` when done.

        Each is given to one process only; it is given out again if that one dies on the way.
        """
        if await self.known() == {self.name}:
            return []
        here = await asyncio.to_thread(self._free_here)

        def work(connection: sa.Connection) -> list[str]:
            now = _now(connection)
            rows = connection.execute(sa.select(executors)).all()
            found = [row for row in rows if row.id != self.name]
            found = [row for row in found if row.id in here or self._is_dead(connection, row, now)]
            return [row.id for row in found if _take(connection, row, now)]

        return await self._database.run(work)

    async def bury(self, names: Sequence[str]) -> None:
        """Forget dead processes that have no tasks left."""
        statement = executors.delete().where(executors.c.id.in_(names))
        await self._database.run(lambda connection: connection.execute(statement))

    async def known(self) -> set[str]:
        """Names whose tasks are looked after: of the living, and of the dead until buried."""
        query = sa.select(executors.c.id)
        found = await self._database.run(lambda c: c.execute(query).scalars().all(), write=False)
        return set(found)

    def _is_dead(self, connection: sa.Connection, row: sa.Row[Any], now: float) -> bool:
        if self._lock is None:
            return False
        if row.seen_at < now - self._takeover:
            return True
        may_judge = time.monotonic() >= self._judges_from
        if not (may_judge and row.locks and row.seen_at < now - GRACE_S):
            return False
        return is_free(connection, row.id)

    def _beat(self, connection: sa.Connection, values: dict[str, Any]) -> None:
        row = {**values, "seen_at": _now(connection), "locks": self._locked()}
        mine = executors.update().where(executors.c.id == self.name).values(row)
        if not connection.execute(mine).rowcount:
            connection.execute(executors.insert().values(id=self.name, **row))

    def _locked(self) -> bool:
        """Whether the database shows that this process lives; a lost lock is taken again."""
        if self._lock is None:
            return False
        if self._lock.held():
            return True
        self._doubt()
        return self._lock.take(self.name)

    def _doubt(self) -> None:
        """After the database was away others need a moment to show that they live."""
        self._judges_from = time.monotonic() + GRACE_S

    def _free_here(self) -> set[str]:
        """Names of this folder whose processes are gone."""
        node, found = _node(self._folder / "node"), set()
        for path in self._folder.glob("*.lock"):
            name = f"{node}-{path.stem}"
            handle = try_lock(path) if name != self.name else None
            if handle is not None:
                os.close(handle)
                found.add(name)
        return found


def _take(connection: sa.Connection, row: sa.Row[Any], now: float) -> bool:
    mine = (executors.c.id == row.id) & (executors.c.seen_at == row.seen_at)
    return bool(connection.execute(executors.update().where(mine).values(seen_at=now)).rowcount)


def _now(connection: sa.Connection) -> float:
    """The database's clock, because machines disagree."""
    on_sqlite = connection.dialect.name == "sqlite"
    clock = "(julianday('now') - 2440587.5) * 86400" if on_sqlite else _POSTGRES_CLOCK
    return float(connection.execute(sa.text(f"SELECT {clock}")).scalar_one())


def _node(path: Path) -> str:
    """The folder's own random name, made once."""
    return write_once(path, secrets.token_hex(8))


def _touched(path: Path) -> Path:
    path.touch(mode=0o600)
    return path
