"""Transcripts that are kept: stored, found, changed, forgotten."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from whisper_api.config import Settings
from whisper_api.database import Database
from whisper_api.edits import Line, with_lines, with_text
from whisper_api.errors import Conflict, NotFound
from whisper_api.history_query import Query, conditions, page_of
from whisper_api.metrics import Metrics
from whisper_api.search import excerpt, index_words, terms
from whisper_api.stored_audio import Hold, StoredAudio
from whisper_api.tables import audio_holds, tasks, transcripts
from whisper_api.transcript_codec import OPTIONS, TRANSCRIPT
from whisper_api.types import AudioFile, Caller, Envelope, Options, Transcript

Source = Literal["sync", "task", "import"]
"""Where a record comes from: a request that waited, a task, or an older server's folder."""

PREVIEW_CHARACTERS = 200
DAY_S = 86_400.0
_BATCH = 200
_ATTEMPTS = 5
_OVER = ("completed", "failed", "cancelled")
"""States of tasks that have ended."""

_LISTED = [
    column
    for column in transcripts.c
    if column.name not in {"words", "content", "original", "text", "options", "timings"}
]


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A finished transcription that is to be kept."""

    transcript: Transcript
    owner: str  #: ``Caller.key``
    name: str  #: what the caller called the file
    source: Source
    options: Options | None = None
    timings: Mapping[str, Any] = field(default_factory=dict)
    """Figures in seconds, shown as they are: ``processing_seconds`` and the like."""
    audio: AudioFile | str | None = None
    """The file, or the digest of audio that a row keeps already."""
    envelope: Envelope | None = None
    task_id: str | None = None
    title: str = ""
    id: str = field(default_factory=lambda: new_id())
    created_at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Summary:
    """A record as lists show it."""

    id: str
    owner: str
    created_at: float
    updated_at: float | None
    name: str
    title: str
    source: str
    task_id: str | None
    task: str
    language: str
    model: str
    duration: float
    audio: str | None  #: digest of the stored audio
    digest: str | None
    preview: str
    edited: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A whole record."""

    summary: Summary
    transcript: Transcript
    original: Transcript | None  #: before the first edit
    options: dict[str, Any]
    timings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody wants changed; at most one of ``lines`` and ``text``."""

    title: str | None = None
    lines: Sequence[Line] | None = None
    text: str | None = None


def new_id() -> str:
    """An id for a record."""
    return f"tr_{secrets.token_hex(12)}"


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
        kept = _digest(wanted)
        try:
            if kept is not None and new.envelope is not None:
                await self._audio.set_envelope(kept, new.envelope)
            values = await asyncio.to_thread(_values, new, kept)
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
            statement = page_of(connection, query, caller, [*_LISTED, _edited()])
            rows = connection.execute(statement).all()
            more = len(rows) > query.limit
            found = [_summary(row) for row in rows[: query.limit]]
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
        return await asyncio.to_thread(_entry, row)

    async def summary(self, id: str, caller: Caller) -> Summary:
        """A record as lists show it. Raises: NotFound, as ``get``."""

        def work(connection: sa.Connection) -> Summary:
            wanted = sa.select(*_LISTED, _edited()).where(transcripts.c.id == id)
            return _summary(_seen(connection.execute(wanted).first(), caller))

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
            values = await asyncio.to_thread(_changed, entry, after)
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
            wanted = sa.select(*_LISTED, _edited()).where(transcripts.c.id == id)
            return [self._delete(connection, _seen(connection.execute(wanted).first(), caller))]

        self._forget(await self._database.run(work))

    async def prune(self, days: float | None = None) -> int:
        """Forget what is older than ``max_history_days`` (or ``days``); how many that were.

        0 days keep everything.
        """
        days = self._settings.max_history_days if days is None else days
        if days <= 0:
            return 0
        old = sa.select(*_LISTED, _edited()).where(
            transcripts.c.created_at < time.time() - days * DAY_S
        )
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
        gone = _summary(row)
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


def storable(text: str) -> str:
    """``text`` without what databases refuse: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _digest(audio: AudioFile | str | None) -> str | None:
    return audio.digest if isinstance(audio, AudioFile) else audio


def _edited() -> sa.Label[bool]:
    return transcripts.c.original.is_not(None).label("edited")


def _texts(transcript: Transcript, name: str, title: str) -> dict[str, Any]:
    """The columns that follow from a transcript."""
    text = storable(transcript.text)
    return {
        "preview": " ".join(text[: 2 * PREVIEW_CHARACTERS].split())[:PREVIEW_CHARACTERS],
        "text": text,
        "words": index_words(title, name, text),
        "content": TRANSCRIPT.dump(transcript),
    }


def _changed(before: Entry, after: Entry) -> dict[str, Any]:
    """The columns to write after an edit."""
    summary, original = after.summary, before.original or before.transcript
    same = after.transcript == original
    return {
        "title": storable(summary.title),
        "updated_at": max(time.time(), (before.summary.updated_at or 0.0) + 1e-5),
        "original": None if same else TRANSCRIPT.dump(original),
        **_texts(after.transcript, summary.name, summary.title),
    }


def _values(new: NewRecord, kept: str | None) -> dict[str, Any]:
    transcript = new.transcript
    options = OPTIONS.plain(new.options)["value"] if new.options else {}
    return {
        "id": new.id,
        "owner": new.owner,
        "created_at": new.created_at,
        "name": storable(new.name),
        "title": storable(new.title),
        "source": new.source,
        "task_id": new.task_id,
        "task": transcript.task,
        "language": transcript.language,
        "model": transcript.model,
        "duration": transcript.duration,
        "audio": kept,
        "digest": _digest(new.audio),
        "options": options,
        "timings": dict(new.timings),
        **_texts(transcript, new.name, new.title),
    }


def _row(connection: sa.Connection, id: str, caller: Caller) -> Any:
    wanted = sa.select(transcripts, _edited()).where(transcripts.c.id == id)
    return _seen(connection.execute(wanted).first(), caller)


def _seen(row: Any, caller: Caller) -> Any:
    if row is None or not caller.may_see(row.owner):
        raise NotFound("There is no transcript with this id.", param="id")
    return row


def _summary(row: Any) -> Summary:
    values = row._mapping
    return Summary(**{name: values[name] for name in Summary.__dataclass_fields__})


def _entry(row: Any) -> Entry:
    return Entry(
        _summary(row),
        TRANSCRIPT.load(row.content),
        TRANSCRIPT.load(row.original) if row.original else None,
        row.options,
        row.timings,
    )
