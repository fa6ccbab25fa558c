"""What a task is: its states, its record, and what a running one saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from whisper_api.formats import Format, Granularity
from whisper_api.transcript_codec import Codec
from whisper_api.types import SAMPLE_RATE, Coverage, Lane, Options, Plan, Segment, Waveform


class Status(StrEnum):
    """Where a task is in its life."""

    PENDING = "pending"  #: accepted, durable, waits for its turn
    RUNNING = "running"  #: a process works on it, or died and another will
    COMPLETED = "completed"  #: its transcript is in the history
    FAILED = "failed"  #: it cannot go on by itself; ``error`` says why
    CANCELLED = "cancelled"  #: somebody stopped it

    @property
    def finished(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in FINISHED


UNFINISHED = (Status.PENDING, Status.RUNNING)
FINISHED = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller asked for: options of the transcript, and the shape of the answer."""

    options: Options
    model: str | None = None
    format: Format = "json"
    granularities: tuple[Granularity, ...] = ("segment",)
    return_timestamps: bool = False
    logprobs: bool = False


ASKED: Codec[Asked] = Codec("task options", 1, Asked)


@dataclass(frozen=True, slots=True)
class Planned:
    """What the plan step leaves behind: enough to decode any slice of the same windows again."""

    plan: Plan
    samples: int  #: of the waveform; another number means other preprocessing
    lead: int
    tail: int
    damaged: int

    def fits(self, waveform: Waveform) -> bool:
        """Whether ``waveform`` is the one that was planned on."""
        mine = (self.samples, self.lead, self.tail)
        return mine == (waveform.samples, waveform.lead, waveform.tail)

    def length(self, part: Part) -> float:
        """Seconds of audio in the windows of a part."""
        return sum(window.duration for window in self.plan.windows[part.first : part.stop])

    def seconds(self, sample: int) -> float:
        """As ``Waveform.seconds``."""
        at = (sample - self.lead) / SAMPLE_RATE
        return min(max(at, 0.0), (self.samples - self.lead - self.tail) / SAMPLE_RATE)


PLANNED: Codec[Planned] = Codec("task plan", 1, Planned)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch of windows came to."""

    first: int  #: index of its first window
    stop: int  #: one past its last window
    segments: tuple[Segment, ...]
    coverage: Coverage
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """Windows of a long recording that one process decodes, beside others."""

    first: int
    stop: int
    failed: bool = False  #: it could not be decoded there; whoever merges tries it
    batch: Batch | None = None  #: what it came to; segments counted from 0


@dataclass(frozen=True, slots=True)
class Saved:
    """A batch in the database: one past its last window, and the segments up to there."""

    stop: int
    segments: int


BATCH: Codec[Batch] = Codec("task batch", 1, Batch)


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task as the database has it."""

    id: str
    owner: str
    status: Status
    created_at: float
    name: str  #: the caller's file name
    asked: Asked
    audio: str | None  #: digest of the stored audio
    source: str = "upload"  #: upload, url, base64, path or audio
    started_at: float | None = None
    finished_at: float | None = None
    duration: float | None = None  #: seconds of audio, as far as known
    processed: float = 0.0  #: seconds of audio done
    eta: float | None = None  #: seconds of work left, measured
    attempts: int = 0  #: processes that began or took it up; also fences writers off
    stalls: int = 0  #: attempts in a row without progress
    run: int = 0  #: how often it was retried by hand
    windows: int | None = None  #: once planned
    done: int = 0  #: windows decoded and saved
    segments: int = 0  #: segments saved
    model: str | None = None  #: the model in use, once known
    history_id: str | None = None
    callback_url: str | None = None
    error: Mapping[str, Any] | None = field(default=None)  #: OpenAI's error object
    lane: str = Lane.TASK.value  #: ``interactive``: a request waits for it, nobody else sees it
    waiter: str | None = None  #: the process of that request; the task ends with it

    @property
    def progress(self) -> float:
        """Percent done, 0 to 100."""
        if self.status is Status.COMPLETED:
            return 100.0
        if not self.duration:
            return 0.0
        return round(min(99.9, 100 * self.processed / self.duration), 1)
