"""What is kept of a transcription: its values, and their columns in ``tables.transcripts``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from whisper_api.edits import Line
from whisper_api.search import index_words
from whisper_api.tables import transcripts
from whisper_api.transcript_codec import OPTIONS, TRANSCRIPT
from whisper_api.types import AudioFile, Envelope, Options, Transcript

Source = Literal["sync", "task", "import"]
"""Where a record comes from: a request that waited, a task, or an older server's folder."""

PREVIEW_CHARACTERS = 200


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


_SMALL = [
    column
    for column in transcripts.c
    if column.name not in {"words", "content", "original", "text", "options", "timings"}
]
EDITED = transcripts.c.original.is_not(None).label("edited")
LISTED: list[Any] = [*_SMALL, EDITED]
"""What a summary is made of."""


def storable(text: str) -> str:
    """``text`` without what databases refuse: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def digest_of(audio: AudioFile | str | None) -> str | None:
    """The sha256 of audio, however it is named."""
    return audio.digest if isinstance(audio, AudioFile) else audio


def _texts(transcript: Transcript, name: str, title: str) -> dict[str, Any]:
    """The columns that follow from a transcript."""
    text = storable(transcript.text)
    return {
        "preview": " ".join(text[: 2 * PREVIEW_CHARACTERS].split())[:PREVIEW_CHARACTERS],
        "text": text,
        "words": index_words(title, name, text),
        "content": TRANSCRIPT.dump(transcript),
    }


def changed_columns(before: Entry, after: Entry) -> dict[str, Any]:
    """The columns to write after an edit."""
    summary, original = after.summary, before.original or before.transcript
    same = after.transcript == original
    return {
        "title": storable(summary.title),
        "updated_at": max(time.time(), (before.summary.updated_at or 0.0) + 1e-5),
        "original": None if same else TRANSCRIPT.dump(original),
        **_texts(after.transcript, summary.name, summary.title),
    }


def new_columns(new: NewRecord, kept: str | None) -> dict[str, Any]:
    """A record's columns; ``kept`` is the digest of its audio where that is stored."""
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
        "digest": digest_of(new.audio),
        "options": options,
        "timings": dict(new.timings),
        **_texts(transcript, new.name, new.title),
    }


def summary_of(row: Any) -> Summary:
    """A row with the columns ``LISTED``, as a value."""
    values = row._mapping
    return Summary(**{name: values[name] for name in Summary.__dataclass_fields__})


def entry_of(row: Any) -> Entry:
    """A whole row, as a value.

    Raises:
        RecordBroken: it cannot be read.
    """
    return Entry(
        summary_of(row),
        TRANSCRIPT.load(row.content),
        TRANSCRIPT.load(row.original) if row.original else None,
        row.options,
        row.timings,
    )
