"""Transcripts that are kept: stored, found, changed, forgotten."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from whisper_api.config import Settings
from whisper_api.database import Database
from whisper_api.edits import with_lines, with_text
from whisper_api.errors import Conflict, NotFound
from whisper_api.history_query import Query, conditions, page_of
from whisper_api.metrics import Metrics
from whisper_api.records import (
    EDITED,
    LISTED,
    Change,
    Entry,
    NewRecord,
    Summary,
    changed_columns,
    digest_of,
    entry_of,
    new_columns,
    summary_of,
)
from whisper_api.search import excerpt, terms
from whisper_api.stored_audio import Hold, StoredAudio
from whisper_api.tables import audio_holds, tasks, transcripts
from whisper_api.types import AudioFile, Caller

DAY_S = 86_400.0
_BATCH = 50
_ATTEMPTS = 5
_OVER = ("completed", "failed", "cancelled")
"""States of tasks that have ended."""


class History:
    """The kept transcripts of one database."""

    def __init__(
        self, settings: Settings, database: Database, audio: StoredAudio, metrics: Metrics
    ) -> None:
        """Nothing is opened yet."""
        self._settings = settings
        self._database = database
        self._audio = audio
        self._metrics = metrics
        self.on_forget: list[Callable[[Summary], None]] = []
        """Called on the event loop for each record that was deleted."""
        self.on_delete: list[Callable[[sa.Connection, Summary], None]] = []
        """Called in the transaction that deletes a record, for rows that go with it."""

    async def add(self, new: NewRecord) -> str:
        """Keep a transcription; its id. An id that is there already changes nothing.

        The audio is stored when the settings say so.

        Raises:
            StorageFull: no room; nothing is left behind.
            DatabaseUnavailable: the database or the store is away.
        """
        wanted = new.audio if self._settings.history_audio else None
        hold = await self._audio.keep(wanted, new.owner) if isinstance(wanted, AudioFile) else None
        kept = digest_of(wanted)
        try:
            if kept is not None and new.envelope is not None:
                await self._audio.set_envelope(kept, new.envelope)
            values = await asyncio.to_thread(new_columns, new, kept)
            await self._database.run(lambda connection: self._insert(connection, values, hold))
        except BaseException:
            if hold is not None:
                await asyncio.shield(self._audio.release(hold))
            raise
        self._metrics.history_records.labels(source=new.source).inc()
        return new.id

    async def page(self, query: Query, caller: Caller) -> tuple[list[Summary], bool]:
        """A page of records, and whether more follow.

        Raises:
            InvalidOption: ``query.after`` is no record of the caller's.
        """

        def work(connection: sa.Connection) -> tuple[list[Summary], bool]:
            statement = page_of(connection, query, caller, LISTED)
            rows = connection.execute(statement).all()
            more = len(rows) > query.limit
            found = [summary_of(row) for row in rows[: query.limit]]
            return self._with_excerpts(connection, found, query.q), more

        return await self._database.run(work, write=False)

    async def ids(self, query: Query, caller: Caller, most: int) -> list[str]:
        """The ids of everything that a query finds, at most ``most`` of them."""

        def work(connection: sa.Connection) -> list[str]:
            wanted = sa.select(transcripts.c.id).where(*conditions(connection, query, caller))
            newest = wanted.order_by(transcripts.c.created_at.desc(), transcripts.c.seq.desc())
            return list(connection.execute(newest.limit(most)).scalars())

        return await self._database.run(work, write=False)

    async def known(self, ids: Sequence[str], caller: Caller) -> Sequence[str]:
        """Those of ``ids`` that are records of the caller's."""
        wanted = sa.select(transcripts.c.id, transcripts.c.owner).where(transcripts.c.id.in_(ids))
        rows = await self._database.run(lambda c: c.execute(wanted).all(), write=False)
        return [row.id for row in rows if caller.may_see(row.owner)]

    async def get(self, id: str, caller: Caller) -> Entry:
        """A whole record.

        Raises:
            NotFound: there is none, or it is another's.
            RecordBroken: it cannot be read.
        """
        row = await self._database.run(lambda c: _row(c, id, caller), write=False)
        return await asyncio.to_thread(entry_of, row)

    async def summary(self, id: str, caller: Caller) -> Summary:
        """A record as lists show it. Raises: NotFound, as ``get``."""

        def work(connection: sa.Connection) -> Summary:
            wanted = sa.select(*LISTED).where(transcripts.c.id == id)
            return summary_of(_seen(connection.execute(wanted).first(), caller))

        return await self._database.run(work, write=False)

    async def change(self, id: str, caller: Caller, change: Change) -> Entry:
        """Rename or edit a record; the transcript before the first edit is kept.

        Raises:
            NotFound, RecordBroken: as ``get``.
            InvalidOption: the new segments or text cannot be.
            Conflict: others changed it all the while.
        """

        def edit(entry: Entry) -> Entry:
            edited = entry.transcript
            if change.lines is not None:
                edited = with_lines(edited, change.lines, entry.original)
            elif change.text is not None:
                edited = with_text(edited, change.text, entry.original)
            title = entry.summary.title if change.title is None else change.title
            return replace(entry, transcript=edited, summary=replace(entry.summary, title=title))

        return await self._rewrite(id, caller, edit)

    async def revert(self, id: str, caller: Caller) -> Entry:
        """Put the transcript back as it was before the first edit; the title stays.

        Raises:
            NotFound, RecordBroken, Conflict: as ``change``.
        """

        def edit(entry: Entry) -> Entry:
            return replace(entry, transcript=entry.original or entry.transcript)

        return await self._rewrite(id, caller, edit)

    async def _rewrite(self, id: str, caller: Caller, edit: Callable[[Entry], Entry]) -> Entry:
        """Apply ``edit`` outside a transaction, again where somebody was faster."""
        for _ in range(_ATTEMPTS):
            entry = await self.get(id, caller)
            after = await asyncio.to_thread(edit, entry)
            values = await asyncio.to_thread(changed_columns, entry, after)
            before = transcripts.c.updated_at.is_not_distinct_from(entry.summary.updated_at)
            update = transcripts.update().where(transcripts.c.id == id, before).values(values)
            done = await self._database.run(lambda c, u=update: c.execute(u).rowcount)  # type: ignore[misc]
            if done:
                return await self.get(id, caller)
        raise Conflict("Others change this transcript at the same time.")

    async def delete(self, id: str, caller: Caller) -> None:
        """Forget a record: its audio where nothing else needs it, its task, cached results.

        Raises:
            NotFound: there is none, or it is another's.
        """

        def work(connection: sa.Connection) -> list[Summary]:
            wanted = sa.select(*LISTED).where(transcripts.c.id == id)
            return [self._delete(connection, _seen(connection.execute(wanted).first(), caller))]

        self._forget(await self._database.run(work))

    async def prune(self, days: float | None = None) -> int:
        """Forget what is older than ``max_history_days`` (or ``days``); how many that were.

        0 days keep everything.
        """
        days = self._settings.max_history_days if days is None else days
        if days <= 0:
            return 0
        old = sa.select(*LISTED).where(transcripts.c.created_at < time.time() - days * DAY_S)
        total = 0

        def work(connection: sa.Connection) -> list[Summary]:
            rows = connection.execute(old.limit(_BATCH)).all()
            return [self._delete(connection, row) for row in rows]

        while gone := await self._database.run(work):
            self._forget(gone)
            total += len(gone)
        return total

    def _insert(self, connection: sa.Connection, values: dict[str, Any], hold: Hold | None) -> None:
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        statement = insert(transcripts).values(values)
        connection.execute(statement.on_conflict_do_nothing(index_elements=["id"]))
        if hold is not None:
            connection.execute(audio_holds.delete().where(audio_holds.c.id == hold.id))
            self._audio.discard(connection, hold.digest)

    def _delete(self, connection: sa.Connection, row: Any) -> Summary:
        gone = summary_of(row)
        connection.execute(transcripts.delete().where(transcripts.c.id == gone.id))
        for also in self.on_delete:
            also(connection, gone)
        if gone.task_id is not None:
            # One that was tried again runs on.
            over = tasks.c.status.in_(_OVER)
            connection.execute(tasks.delete().where(tasks.c.id == gone.task_id, over))
        self._audio.discard(connection, gone.audio)
        return gone

    def _forget(self, gone: Sequence[Summary]) -> None:
        for summary in gone:
            for tell in self.on_forget:
                tell(summary)

    def _with_excerpts(
        self, connection: sa.Connection, found: list[Summary], q: str
    ) -> list[Summary]:
        """With the place in the text where the words are as preview."""
        wanted = terms(q)
        if not wanted or not found:
            return found
        ids = [summary.id for summary in found]
        rows = connection.execute(
            sa.select(transcripts.c.id, transcripts.c.text).where(transcripts.c.id.in_(ids))
        )
        texts = {row.id: row.text for row in rows}
        return [replace(s, preview=excerpt(texts[s.id], wanted)) for s in found]


def _row(connection: sa.Connection, id: str, caller: Caller) -> Any:
    wanted = sa.select(transcripts, EDITED).where(transcripts.c.id == id)
    return _seen(connection.execute(wanted).first(), caller)


def _seen(row: Any, caller: Caller) -> Any:
    if row is None or not caller.may_see(row.owner):
        raise NotFound("There is no transcript with this id.", param="id")
    return row
