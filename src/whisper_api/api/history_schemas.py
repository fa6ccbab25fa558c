"""What the history's routes take and give."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from whisper_api import formats
from whisper_api.audio.envelope import peaks_of
from whisper_api.edits import MOST_SEGMENTS, Line
from whisper_api.records import Change, Entry, Summary
from whisper_api.types import Envelope, Segment, Transcript, Word

LONGEST_TITLE = 200
_Seconds = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class Transcription(BaseModel):
    """A kept transcription, as lists show it."""

    id: str
    object: Literal["transcription"] = "transcription"
    created_at: int = Field(description="Unix seconds")
    updated_at: int | None
    name: str = Field(description="What the caller called the file")
    title: str
    duration_seconds: float
    language: str = Field(description="ISO code of the speech")
    model: str
    task: str = Field(description="transcribe or translate")
    preview: str = Field(description="The beginning of the text, or where the words of q are")
    edited: bool
    has_audio: bool
    task_id: str | None
    source: str = Field(description="sync, task or import")

    @classmethod
    def of(cls, summary: Summary) -> Transcription:
        """The record's public face."""
        return cls.model_validate(listed(summary))


class TranscriptionList(BaseModel):
    """A page of transcriptions."""

    object: Literal["list"] = "list"
    data: list[Transcription]
    has_more: bool
    first_id: str | None
    last_id: str | None


class TranscriptionDetail(Transcription):
    """A whole transcription."""

    text: str
    segments: list[dict[str, Any]] = Field(description="As verbose_json's, each with its words")
    original: dict[str, Any] | None = Field(description="Text and segments before the first edit")
    options: dict[str, Any]
    timings: dict[str, Any]
    coverage: dict[str, float]
    warnings: list[str]


class Deleted(BaseModel):
    """The receipt of a deletion."""

    id: str
    object: Literal["transcription.deleted"] = "transcription.deleted"
    deleted: Literal[True] = True


class Peaks(BaseModel):
    """What a player draws."""

    duration: float
    points_per_second: float
    peaks: list[float] = Field(description="Largest sample around each point, 0 to 1")
    speech: list[tuple[float, float]] = Field(description="Where speech is: seconds from, to")

    @classmethod
    def of(cls, envelope: Envelope) -> Peaks:
        """The envelope's public face."""
        return cls(
            duration=round(envelope.duration, 3),
            points_per_second=envelope.points_per_second,
            peaks=peaks_of(envelope),
            speech=list(envelope.speech),
        )


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewWord(_Strict):
    """A word of an edited segment."""

    word: Annotated[str, Field(max_length=1000)]
    start: _Seconds
    end: _Seconds
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0


class NewSegment(BaseModel):
    """A segment as somebody wrote it; members that verbose_json has besides are ignored."""

    start: _Seconds
    end: _Seconds
    text: Annotated[str, Field(max_length=100_000)]
    words: list[NewWord] | None = Field(
        default=None, description="Left out: words that stay keep their times"
    )

    def line(self) -> Line:
        """The segment as ``edits`` takes it."""
        words = None
        if self.words is not None:
            words = tuple(_word(word) for word in self.words)
        return Line(self.start, self.end, self.text, words)


class Patch(_Strict):
    """What is to change; not segments and text at the same time."""

    title: Annotated[str, Field(max_length=LONGEST_TITLE)] | None = None
    segments: Annotated[list[NewSegment], Field(max_length=MOST_SEGMENTS)] | None = None
    text: str | None = Field(default=None, description="The whole text; times stay where they can")

    def change(self) -> Change:
        """The patch as ``History`` takes it."""
        lines = None if self.segments is None else [item.line() for item in self.segments]
        title = None if self.title is None else " ".join(self.title.split())
        return Change(title, lines, self.text)


def listed(summary: Summary) -> dict[str, Any]:
    """A record as lists show it, in JSON's types."""
    return {
        "id": summary.id,
        "object": "transcription",
        "created_at": int(summary.created_at),
        "updated_at": None if summary.updated_at is None else int(summary.updated_at),
        "name": summary.name,
        "title": summary.title,
        "duration_seconds": round(summary.duration, 3),
        "language": summary.language,
        "model": summary.model,
        "task": summary.task,
        "preview": summary.preview,
        "edited": summary.edited,
        "has_audio": summary.audio is not None,
        "task_id": summary.task_id,
        "source": summary.source,
    }


def detailed(entry: Entry) -> dict[str, Any]:
    """A whole record, in JSON's types."""
    transcript = entry.transcript
    coverage = transcript.coverage
    return {
        **listed(entry.summary),
        **_written(transcript),
        "original": None if entry.original is None else _written(entry.original),
        "options": entry.options,
        "timings": entry.timings,
        "coverage": {
            "decoded": round(coverage.decoded, 3),
            "voiced": round(coverage.voiced, 3),
            "covered": round(coverage.covered, 3),
            "dropped": round(coverage.dropped, 3),
        },
        "warnings": list(transcript.warnings),
    }


def _written(transcript: Transcript) -> dict[str, Any]:
    return {
        "text": transcript.text,
        "segments": [segment_with_words(segment) for segment in transcript.segments],
    }


def segment_with_words(segment: Segment) -> dict[str, Any]:
    """A segment as verbose_json has it, and its words as they are written in it."""
    words = [
        {
            "word": word.text.strip(),
            "start": formats.milliseconds(word.start) / 1000,
            "end": formats.milliseconds(word.end) / 1000,
            "probability": round(word.probability, 4),
        }
        for word in segment.words
    ]
    return formats.verbose_segment(segment) | {"language": segment.language, "words": words}


def _word(word: NewWord) -> Word:
    return Word(f" {word.word.strip()}", word.start, max(word.start, word.end), word.probability)
