"""What every engine is: windows of audio in, decoded tokens out; blocking, thread-safe.

An engine knows nothing of requests, files or queues. The scheduler calls it from worker
threads with items of many requests at once; order is kept, and every call answers all of its
items or raises one error for the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from whisper_api.config import Settings
from whisper_api.types import Audio, Task, TokenLogprob


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What was loaded, and where; shown at start and in ``/ready``."""

    engine: str  #: name in the table of engines
    model: str
    device: str
    compute_type: str
    multilingual: bool
    languages: tuple[str, ...]  #: ISO codes the model has tokens for
    replicas: int = 1  #: batches that may run at the same time
    reason: str = ""  #: why this device and type were chosen
    batch_size: int = 0  #: most windows in one batch; 0: what the settings say
    in_steps: bool = False  #: whether batches let others pass often: see ``engines.steps``
    spare: int = 0  #: calls beside those of all replicas, which then share the processor

    @property
    def lets_pass(self) -> bool:
        """Whether short requests need not wait for batches of long ones."""
        return self.in_steps or self.spare > 0


DEFAULT_BATCH = 8
"""Windows in one batch where neither the settings nor the engine say."""


def batch_size_of(info: EngineInfo, settings: Settings) -> int:
    """Most windows in one batch of a loaded engine."""
    return info.batch_size or settings.batch_size or DEFAULT_BATCH


@dataclass(frozen=True, slots=True)
class DecodeParams:
    """How one window is decoded. Items share a batch only when ``batch_key`` is equal."""

    language: str
    task: Task = "transcribe"
    beam_size: int = 5
    temperature: float = 0.0
    seed: int = 0  #: for sampling; the same seed gives the same tokens
    prompt: tuple[int, ...] = ()  #: token ids put after ``<|startofprev|>``; may be empty
    max_new_tokens: int = 448
    words: bool = False
    logprobs: bool = False

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Equal for items that one engine call may hold."""
        seed = self.seed if self.temperature > 0 else 0
        return (self.beam_size, self.temperature, seed, len(self.prompt), self.max_new_tokens)


@dataclass(frozen=True, slots=True)
class WindowItem:
    """One window to decode; ``key`` names its audio so that an engine may keep its encoding."""

    key: str
    audio: Audio
    params: DecodeParams


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word and its place in the window, in seconds."""

    text: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class Piece:
    """What stands between two timestamp tokens; times in seconds from the window's start."""

    start: float
    end: float
    tokens: tuple[int, ...]  #: with its timestamp tokens
    text: str
    words: tuple[TimedWord, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Decoded:
    """One window's result."""

    pieces: tuple[Piece, ...]
    text: str  #: of all pieces
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    temperature: float
    language: str


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a decoding counts as failed; they belong to the model (its manifest)."""

    log_prob: float = -1.0
    no_speech: float = 0.6
    compression_ratio: float = 2.4
    temperatures: tuple[float, ...] = field(default=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    window_seconds: float = 30.0  #: longest window the model decodes well
    short_windows: bool = False  #: whether it reads short ones without silence up to 30 s


class Engine(Protocol):
    """A loaded model."""

    @property
    def info(self) -> EngineInfo:
        """What is loaded, on what."""
        ...

    @property
    def thresholds(self) -> Thresholds:
        """The model's own limits for the quality judge."""
        ...

    def detect(self, audios: Sequence[tuple[str, Audio]]) -> list[dict[str, float]]:
        """Language probabilities (ISO code -> 0..1) of each (key, audio), best first."""
        ...

    def decode(self, items: Sequence[WindowItem]) -> list[Decoded]:
        """Decode windows whose ``batch_key`` is equal, in order.

        Raises:
            EngineOutOfMemory: the batch did not fit; a smaller one may.
            EngineError: anything else; the engine stays usable.
        """
        ...

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of ``text``, for prompts and keywords."""
        ...

    def count_limit(self) -> int:
        """Most prompt tokens one window takes (half of the text context, less one)."""
        ...

    def release(self, keys: Sequence[str]) -> None:
        """Forget whatever was kept for these windows."""
        ...

    def close(self) -> None:
        """Free the model's memory. Calls after this raise EngineError."""
        ...
