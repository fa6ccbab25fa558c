"""Tasks that a request waits for, in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from whisper_api.database import Database
from whisper_api.stored_audio import StoredAudio
from whisper_api.tables import tasks
from whisper_api.tasks.record import Status
from whisper_api.transcript_codec import TRANSCRIPT
from whisper_api.types import Lane, Transcript


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a task is."""

    status: Status
    segments: int  #: saved
    processed: float  #: seconds of audio done
    duration: float | None
    error: dict[str, Any] | None


class RequestStore:
    """Every statement about them."""

    def __init__(self, database: Database, audio: StoredAudio) -> None:
        """``audio`` is told when a task no longer needs its file."""
        self._database = database
        self._audio = audio

    async def standings(self, idents: Sequence[str]) -> dict[str, Standing]:
        """How far these are; those that are gone are missing."""
        names = ("status", "segments", "processed", "duration", "error")
        query = sa.select(tasks.c.id, *(tasks.c[name] for name in names))
        query = query.where(tasks.c.id.in_(idents))
        rows = await self._database.run(lambda c: c.execute(query).all(), write=False)
        return {
            row.id: Standing(
                Status(row.status), row.segments, row.processed, row.duration, row.error
            )
            for row in rows
        }

    async def result(self, ident: str) -> Transcript | None:
        """What a completed one came to."""
        query = sa.select(tasks.c.result).where(tasks.c.id == ident)
        data = await self._database.run(lambda c: c.execute(query).scalar(), write=False)
        return TRANSCRIPT.load(data) if data else None

    async def discard(self, ident: str) -> None:
        """Remove one with its audio, whatever its state; whoever works on it finds out."""
        await self._database.run(lambda connection: self._remove(connection, tasks.c.id == ident))

    async def abandon(self, waiters: Sequence[str]) -> int:
        """Remove those whose waiting processes are gone; how many that were."""
        lost = tasks.c.waiter.in_(waiters) & (tasks.c.lane == Lane.INTERACTIVE)
        return await self._database.run(lambda connection: self._remove(connection, lost))

    def _remove(self, connection: sa.Connection, which: sa.ColumnElement[bool]) -> int:
        rows = connection.execute(
            tasks.delete().where(which).returning(tasks.c.id, tasks.c.audio)
        ).all()
        for row in rows:
            self._audio.discard(connection, row.audio)
        return len(rows)
