"""The frozen values that flow down the one path: file, waveform, windows, segments, transcript.

Times are seconds from the start of the caller's file unless a name says otherwise; sample
offsets count 16 kHz mono samples of the waveform.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Samples per second of every waveform (Whisper's rate)."""

WINDOW_SECONDS = 30
"""The longest window a Whisper encoder takes."""

Task = Literal["transcribe", "translate"]
Audio = NDArray[np.float32]
"""Mono samples in -1..1 at ``SAMPLE_RATE``."""


class Lane(StrEnum):
    """Who waits: lower lanes run only when higher ones leave room."""

    REALTIME = "realtime"
    INTERACTIVE = "interactive"
    TASK = "task"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request; what they leave behind (tasks, history, audio) is theirs alone."""

    key: str = ""  #: id of the API key, never the key itself; empty where no keys are set
    name: str = "everybody"  #: the key's name, for people
    admin: bool = True  #: whether they may see and change what belongs to others
    callback_url: str | None = None  #: webhook for their tasks that name none

    def may_see(self, owner: str) -> bool:
        """Whether something left by the key ``owner`` is for their eyes."""
        return self.admin or self.key == owner


@dataclass(frozen=True, slots=True)
class AudioFile:
    """Audio on disk whose size, name and content were checked; only ``audio.sources`` makes one."""

    path: Path
    name: str  #: what the caller called it; for display only, never opened
    size: int  #: bytes
    digest: str  #: sha256 of the bytes, hex
    container: str  #: libav's demuxer name, e.g. ``mov,mp4,m4a,3gp,3g2,mj2``
    codec: str  #: libav's codec name, e.g. ``aac``
    mime: str  #: MIME type found in the content
    duration: (
        float | None
    )  #: seconds the container claims, else what its packets come to; None where neither tells


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a player draws of audio: how loud it is where, and where speech is."""

    duration: float  #: seconds
    points_per_second: float
    peaks: str  #: the largest absolute sample around each point, two hex digits each
    speech: tuple[tuple[float, float], ...] = ()  #: seconds from, to


@dataclass(frozen=True, slots=True)
class Waveform:
    """Decoded PCM on disk: signed 16-bit little-endian, mono, ``SAMPLE_RATE``."""

    path: Path
    samples: int  #: samples of the whole, artificial padding included
    lead: int = 0  #: samples of silence put in front of the caller's audio
    tail: int = 0  #: samples of silence put behind it
    peak: float = 0.0  #: largest absolute sample, 0..1
    damaged: int = 0  #: packets of the file that could not be decoded and were left out
    envelope: Envelope | None = None  #: of the caller's own audio, before any preprocessing
    begins: int = 0  #: sample at which the file begins, where it holds a stretch only

    @property
    def duration(self) -> float:
        """Seconds of the caller's own audio, without padding."""
        return (self.samples - self.lead - self.tail) / SAMPLE_RATE

    def read(self, start: int, stop: int) -> Audio:
        """Samples ``start..stop`` (clamped to the file) as float32 in -1..1, read from disk."""
        start, stop = max(self.begins, start), min(self.samples, stop)
        if stop <= start:
            return np.zeros(0, np.float32)
        with self.path.open("rb") as file:
            file.seek(2 * (start - self.begins))
            raw = np.fromfile(file, "<i2", stop - start)
        return raw.astype(np.float32) / 32768.0

    def seconds(self, sample: int) -> float:
        """The time in the caller's file that ``sample`` of this waveform stands for."""
        return min(max((sample - self.lead) / SAMPLE_RATE, 0.0), self.duration)


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of a waveform decoded at once: at most ``WINDOW_SECONDS`` long."""

    index: int
    start: int  #: first sample
    stop: int  #: one past the last sample
    voiced: float = 0.0  #: seconds of speech the VAD found inside; 0 where it doubts all
    spans: tuple[tuple[int, int], ...] = ()
    """Speech inside, as sample pairs of the waveform, ascending."""

    @property
    def duration(self) -> float:
        """Seconds of audio in the window."""
        return (self.stop - self.start) / SAMPLE_RATE

    @property
    def faint(self) -> bool:
        """Whether it holds only sounds that the VAD doubts to be speech."""
        return bool(self.spans) and not self.voiced


@dataclass(frozen=True, slots=True)
class VadOptions:
    """How speech is found (Silero's terms)."""

    enabled: bool = True
    threshold: float = 0.5
    faint: float = 0.4  #: share of ``threshold`` that is enough for sounds that stand out; 1: none
    min_speech_ms: int = 64
    min_silence_ms: int = 500
    speech_pad_ms: int = 300


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller asked for, parsed and checked; everything that changes the transcript."""

    task: Task = "transcribe"
    language: str | None = None  #: ISO code; None detects
    languages: tuple[str, ...] = ()  #: candidates for detection; empty means all
    prompt: str = ""
    keywords: tuple[str, ...] = ()
    temperature: float = 0.0  #: 0 means the whole fallback ladder
    beam_size: int = 5
    max_new_tokens: int = 448
    word_timestamps: bool = False
    logprobs: bool = False
    vad: VadOptions = field(default_factory=VadOptions)
    chunk_length_s: float = WINDOW_SECONDS  #: longest window
    loudness: bool = False  #: normalise loudness first (``chunking_strategy=auto``)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides the transcript but the audio itself; plain data, storable."""

    model: str
    options: Options
    duration: float  #: seconds of the caller's audio
    language: str
    language_probability: float
    windows: tuple[Window, ...]
    first_prompt: tuple[int, ...]  #: tokens before the first window
    prompt: tuple[int, ...]  #: tokens before every other window
    seed: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word; ``text`` keeps its leading space and punctuation."""

    text: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One text token, its bytes as text where they are text, and its natural-log probability."""

    token: str
    logprob: float
    bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """One timed line of the transcript, with the figures of its decoding (OpenAI's meanings)."""

    id: int
    seek: int  #: 10 ms frames from the file's start to the window's start
    start: float
    end: float
    text: str  #: keeps its leading space
    tokens: tuple[int, ...]  #: with timestamp tokens
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    language: str = "en"
    words: tuple[Word, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    window: int = 0  #: index of the window it came from


@dataclass(frozen=True, slots=True)
class Coverage:
    """The completeness receipt: seconds of audio decoded, voiced, covered by text, and dropped."""

    decoded: float = 0.0
    voiced: float = 0.0
    covered: float = 0.0
    dropped: float = 0.0


@dataclass(frozen=True, slots=True)
class Transcript:
    """The canonical result; ``formats`` turns it into any answer."""

    task: Task
    language: str  #: ISO code of the speech
    language_probability: float
    duration: float  #: seconds of the caller's audio
    segments: tuple[Segment, ...]
    model: str
    coverage: Coverage = field(default_factory=Coverage)
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The whole text, stripped."""
        return "".join(segment.text for segment in self.segments).strip()

    @property
    def words(self) -> tuple[Word, ...]:
        """All words in order; empty unless word timestamps were asked for."""
        return tuple(word for segment in self.segments for word in segment.words)
