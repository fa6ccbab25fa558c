"""Audio that outlives its request: kept once for each content, for as long as a row names it.

A row of ``audio`` stands for a stored file. What refers to it (transcripts, tasks, holds) is a
foreign key, so the database itself refuses to forget audio that is in use. ``keep`` returns a
hold: it guards the file until the caller's own row is written, and ends by itself after a crash.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from whisper_api import transcript_codec as codec
from whisper_api.audio.media import mime_of
from whisper_api.audio.scratch import Scratch
from whisper_api.config import Settings
from whisper_api.database import Database
from whisper_api.errors import NotFound, WhisperApiError
from whisper_api.storage import GONE, Store, open_store
from whisper_api.tables import audio, audio_holds, tasks, transcripts
from whisper_api.types import AudioFile, Caller, Envelope

log = logging.getLogger(__name__)
T = TypeVar("T")

HOLD_SECONDS = 3600.0
"""How long a hold lasts when nobody says otherwise."""
ORPHAN_SECONDS = 6 * 3600.0
"""Age from which a file without a row counts as left behind."""
_AT_ONCE = 500
REFERRERS = (transcripts.c.audio, tasks.c.audio, audio_holds.c.digest)
"""Columns that keep audio."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Audio kept until ``until``; its id is also what callers know an upload by."""

    id: str
    digest: str
    owner: str
    name: str
    until: float  #: Unix seconds


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a stored file, by its content."""

    digest: str
    size: int  #: bytes
    mime: str
    codec: str
    duration: float | None  #: seconds the container claims


class StoredAudio:
    """The audio of history, tasks and finished uploads."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """Nothing is contacted yet.

        Raises:
            SettingsError: ``storage_url`` cannot be used.
        """
        self._database = database
        self.store: Store = open_store(settings)

    async def keep(
        self, file: AudioFile, owner: str, *, seconds: float = HOLD_SECONDS, id: str | None = None
    ) -> Hold:
        """Store the file's bytes; durable when this returns. End the hold with ``release``.

        ``id`` names the hold (an upload's id); left out it is a random one.

        Raises:
            StorageFull: no room; nothing is left behind.
            DatabaseUnavailable: the database or the store is away.
        """
        now = time.time()
        hold = Hold(
            id or f"audio_{secrets.token_hex(12)}", file.digest, owner, file.name, now + seconds
        )
        await self._database.run(lambda connection: _retried(_insert, connection, file, hold, now))
        try:
            await asyncio.to_thread(self.store.put, file.digest, file.path)
        except BaseException:
            await asyncio.shield(self.release(hold))
            raise
        return hold

    async def release(self, hold: Hold) -> None:
        """End a hold; audio that nothing refers to goes with it."""

        def work(connection: sa.Connection) -> None:
            connection.execute(audio_holds.delete().where(audio_holds.c.id == hold.id))
            self.discard(connection, hold.digest)

        await self._database.run(work)

    async def held(self, id: str, caller: Caller) -> Hold:
        """The hold that ``caller`` knows as an ``audio_id``.

        Raises:
            NotFound: none, over, or another key's.
        """
        rows = sa.select(audio_holds).where(
            audio_holds.c.id == id, audio_holds.c.until > time.time()
        )
        row = await self._database.run(lambda c: c.execute(rows).first(), write=False)
        if row is None or not caller.may_see(row.owner):
            raise NotFound("There is no stored audio with this id.", param="audio_id")
        return Hold(row.id, row.digest, row.owner, row.name, row.until)

    async def facts(self, digest: str) -> Facts:
        """What is known of stored audio.

        Raises:
            NotFound: it is gone.
        """
        row = await self._row(digest)
        return Facts(row.digest, row.size, row.mime, row.codec, row.duration)

    async def file(self, digest: str, scratch: Scratch, name: str = "audio") -> AudioFile:
        """Stored audio as a file in ``scratch``, ready for the pipeline.

        Raises:
            NotFound: it is gone.
            DatabaseUnavailable, StorageFull: as ``keep``.
        """
        row = await self._row(digest)
        path = scratch.unique("stored")
        await asyncio.to_thread(self.store.fetch, digest, path)
        return AudioFile(
            path, name, row.size, digest, row.container, row.codec, row.mime, row.duration
        )

    async def set_envelope(self, digest: str, envelope: Envelope) -> None:
        """Note what a player draws of this audio; the first one stays."""
        statement = (
            audio.update()
            .where(audio.c.digest == digest, audio.c.envelope.is_(None))
            .values(envelope=codec.ENVELOPE.dump(envelope))
        )
        await self._database.run(lambda connection: connection.execute(statement))

    async def envelope(self, digest: str) -> Envelope | None:
        """What a player draws of this audio, where it is known.

        Raises:
            NotFound: the audio is gone.
        """
        row = await self._row(digest)
        return codec.ENVELOPE.load(row.envelope) if row.envelope else None

    def discard(self, connection: sa.Connection, digest: str | None) -> bool:
        """Remove audio that nothing refers to any more, file first; whether it went.

        Call it inside the transaction that took the last reference away: until that ends,
        nobody else can store the same content anew.
        """
        if digest is None:
            return False
        # Of two that let go at the same time, the second one sees that it is the last.
        lock = sa.select(audio.c.digest).where(audio.c.digest == digest).with_for_update()
        if connection.execute(lock).first() is None:
            return False
        used = sa.union_all(
            *(sa.select(sa.literal(1)).where(column == digest) for column in REFERRERS)
        )
        if connection.execute(used.limit(1)).first() is not None:
            return False
        connection.execute(audio.delete().where(audio.c.digest == digest))
        self._remove_file(digest)
        return True

    async def sweep(self, *, files: bool = True) -> int:
        """End holds that are over and remove audio that nothing refers to; how much that was.

        ``files`` looks for files without a row as well, which lists the whole store.
        """
        removed = await self._database.run(self._sweep_rows)
        return removed + (await asyncio.to_thread(self._sweep_files) if files else 0)

    def _sweep_rows(self, connection: sa.Connection) -> int:
        connection.execute(audio_holds.delete().where(audio_holds.c.until <= time.time()))
        loose = sa.select(audio.c.digest).where(
            *(~sa.exists().where(column == audio.c.digest) for column in REFERRERS)
        )
        digests = connection.execute(loose).scalars().all()
        return sum(self.discard(connection, digest) for digest in digests)

    def _sweep_files(self) -> int:
        old = [
            key.partition(".")[0]
            for key, written in self.store.listing()
            if written < time.time() - ORPHAN_SECONDS
        ]
        return sum(self._remove_lost(digest) for digest in self._without_row(old))

    def _without_row(self, digests: Sequence[str]) -> set[str]:
        """Those of ``digests`` that the database does not know."""
        lost = set(digests)
        for at in range(0, len(digests), _AT_ONCE):
            some = digests[at : at + _AT_ONCE]
            query = sa.select(audio.c.digest).where(audio.c.digest.in_(some))
            with self._database.transaction(write=False) as connection:
                lost.difference_update(connection.execute(query).scalars())
        return lost

    def _remove_lost(self, digest: str) -> bool:
        """Remove a file, unless somebody has stored it meanwhile."""
        query = sa.select(audio.c.digest).where(audio.c.digest == digest)
        with self._database.transaction() as connection:
            if connection.execute(query).first() is not None:
                return False
            self._remove_file(digest)
            return True

    def _remove_file(self, digest: str) -> None:
        try:
            self.store.remove(digest)
        except WhisperApiError as error:
            # The row goes in any case; the next sweep finds the file.
            log.warning("stored audio %s could not be removed: %s", digest, error.message)

    async def _row(self, digest: str) -> sa.Row[Any]:
        query = sa.select(audio).where(audio.c.digest == digest)
        row = await self._database.run(lambda c: c.execute(query).first(), write=False)
        if row is None:
            raise NotFound(GONE)
        return row


def _insert(connection: sa.Connection, file: AudioFile, hold: Hold, now: float) -> None:
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(
        insert(audio)
        .values(
            digest=file.digest,
            size=file.size,
            mime=file.mime or mime_of(file.container),
            container=file.container,
            codec=file.codec,
            duration=file.duration,
            created_at=now,
        )
        .on_conflict_do_nothing()
    )
    connection.execute(
        audio_holds.insert().values(
            id=hold.id,
            digest=hold.digest,
            owner=hold.owner,
            name=hold.name,
            created_at=now,
            until=hold.until,
        )
    )


def _retried(work: Callable[..., T], connection: sa.Connection, *args: Any) -> T:
    """``work``, again where another process removed the row that it refers to meanwhile."""
    for _ in range(3):
        try:
            with connection.begin_nested():
                return work(connection, *args)
        except IntegrityError:
            continue
    return work(connection, *args)
