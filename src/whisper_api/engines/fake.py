"""An engine without a model, for tests: it hears markers in the audio and writes their numbers.

A marker is a number from 0 to 9999 as a short chord (``make_marker``): a pilot tone, one tone for
each of the four digits and one for their check digit. The chord survives int16, resampling to
8 kHz, gain and lossy codecs. Put markers into silence or noise with at least 0.1 s between them::

    audio = np.zeros(60 * SAMPLE_RATE, np.float32)
    audio[16_000:16_000 + MARKER_SAMPLES] = make_marker(42)   # at 1.0 s
    FakeEngine().decode([WindowItem("k", audio[:480_000], DecodeParams("en"))])[0].text
    # ' marker-0042'

Each whole marker inside a window becomes one ``Piece`` with its true start and end (within 5 ms).
How it behaves otherwise is said by ``FakeOptions``, or by the model's name in settings:
``model_path="fake:delay=0.05,oom_above=4"`` with ``engine="fake"``. Every call is noted in
``FakeEngine.calls``; appending to a list needs no lock, so threads do not wait for each other.
"""

from __future__ import annotations

import itertools
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from whisper_api.engines.base import (
    Decoded,
    DecodeParams,
    EngineInfo,
    Piece,
    Thresholds,
    TimedWord,
    WindowItem,
)
from whisper_api.engines.steps import step
from whisper_api.errors import EngineError, EngineOutOfMemory, SettingsError
from whisper_api.languages import LANGUAGES
from whisper_api.types import SAMPLE_RATE, Audio, TokenLogprob

if TYPE_CHECKING:
    from whisper_api.config import Settings
    from whisper_api.models import ModelFiles

_T = TypeVar("_T", np.complex128, np.float64)
_Number = TypeVar("_Number", np.complex128, np.float64)

MARKER_SECONDS = 0.25
MARKER_SAMPLES = int(MARKER_SECONDS * SAMPLE_RATE)
TIMESTAMP_BEGIN = 50_364
"""Id of ``<|0.00|>``; ids above count 20 ms, as in Whisper's multilingual vocabulary."""

_PILOT_HZ = 440.0
_DIGITS_HZ = 600.0 + 56.0 * np.arange(50).reshape(5, 10)
_EDGE = 80  # samples faded in and out, against clicks
_HOP = 40  # samples (2.5 ms) between places looked at
_SPAN = MARKER_SAMPLES // _HOP
_PILOT_SHARE = 0.05  # of the energy, from which the pilot counts as heard (a whole marker: 1/12)
_FLOOR = 1e-7  # mean square below which there is only silence
_CLEAR = 4.0  # how many times the power of a digit's tone exceeds the next best


def make_marker(number: int) -> Audio:
    """The chord for ``number`` (0..9999): ``MARKER_SAMPLES`` samples, peak 0.5 or less."""
    if not 0 <= number <= 9999:
        raise ValueError(f"a marker is 0..9999, not {number}")
    time_axis = np.arange(MARKER_SAMPLES) / SAMPLE_RATE
    tones = [_PILOT_HZ, *_DIGITS_HZ[np.arange(5), _digits(number)]]
    # Spread phases keep the six tones from piling up in one peak.
    chord = sum(np.sin(2 * np.pi * (hz * time_axis + i * i / 12)) for i, hz in enumerate(tones))
    ramp = np.minimum(1.0, (np.arange(MARKER_SAMPLES) + 0.5) / _EDGE)
    return np.asarray(chord * ramp * ramp[::-1] / 12, np.float32)


def find_markers(audio: Audio) -> list[tuple[float, int]]:
    """(start in seconds, number) of every whole marker in ``audio``, ascending."""
    found = []
    for start in _candidates(audio):
        number = _read_digits(audio[start : start + MARKER_SAMPLES])
        if number is not None:
            found.append((start / SAMPLE_RATE, number))
    return found


@dataclass(frozen=True)
class FakeOptions:
    """How a ``FakeEngine`` behaves."""

    delay: float = 0.0  #: seconds that every decode call takes
    delay_per_second: float = 0.0  #: and for every second of audio in it
    detect_delay: float = 0.0  #: seconds that every detect call takes
    fail_on: frozenset[int] = frozenset()  #: decode calls (from 1) that raise EngineError
    oom_above: int | None = None  #: batches larger than this raise EngineOutOfMemory
    languages: Mapping[str, float] = field(default_factory=lambda: {"en": 0.9, "ru": 0.1})
    replicas: int = 1
    batch: int = 0  #: most windows in one batch, as a card's engine plans it
    spare: int = 0  #: calls that may run beside those of all replicas
    steps: int = 0  #: that every decode call is made in; 0: it is not, and lets nobody pass
    thresholds: Thresholds = field(default_factory=Thresholds)

    @classmethod
    def from_name(cls, name: str) -> FakeOptions:
        """Options out of a model name: ``fake:delay=0.1,fail_on=2+3,languages=ru``.

        Raises:
            SettingsError: an unknown key or a bad value.
        """
        _, _, tail = name.partition(":")
        pairs = [part.partition("=")[::2] for part in tail.split(",") if part]
        try:
            return cls(**{key: _PARSERS[key](value) for key, value in pairs})  # type: ignore[arg-type]
        except (KeyError, ValueError) as error:
            known = ", ".join(sorted(_PARSERS))
            raise SettingsError(f"model {name!r}: {error}; known options: {known}.") from error


_PARSERS: dict[str, Callable[[str], object]] = {
    "delay": float,
    "delay_per_second": float,
    "detect_delay": float,
    "fail_on": lambda text: frozenset(int(number) for number in text.split("+")),
    "oom_above": int,
    "languages": lambda text: {code: 0.9 / (i + 1) for i, code in enumerate(text.split("+"))},
    "replicas": int,
    "batch": int,
    "spare": int,
    "steps": int,
}


@dataclass(frozen=True, slots=True)
class FakeCall:
    """One decode call as it came in."""

    number: int  #: from 1, in the order of arrival
    keys: tuple[str, ...]
    params: tuple[DecodeParams, ...]
    seconds: float  #: audio in the batch
    started: float  #: time.monotonic()

    @property
    def size(self) -> int:
        """Items in the batch."""
        return len(self.keys)


class FakeEngine:
    """See the module's docstring. ``on_decode`` runs first in every decode call and may raise;
    ``transform`` may change each result (for instance to make a decoding look bad)."""

    def __init__(
        self,
        options: FakeOptions | None = None,
        *,
        model: str = "fake",
        on_decode: Callable[[Sequence[WindowItem]], None] | None = None,
        transform: Callable[[WindowItem, Decoded], Decoded] | None = None,
    ) -> None:
        """``options`` defaults to a fast engine that never fails."""
        self.options = options or FakeOptions()
        self.on_decode = on_decode
        self.transform = transform
        self.calls: list[FakeCall] = []
        self.detect_calls: list[tuple[str, ...]] = []
        self.released: list[str] = []
        self.closed = False
        self._model = model
        self._numbers = itertools.count(1)

    @classmethod
    def load(cls, files: ModelFiles, settings: Settings) -> FakeEngine:
        """An engine whose options stand in the model's name.

        Raises:
            SettingsError: unknown options.
        """
        options = FakeOptions.from_name(files.id if files.kind == "fake" else "fake")
        if settings.replicas:
            changed = {f.name: getattr(options, f.name) for f in fields(options)}
            options = FakeOptions(**{**changed, "replicas": settings.replicas})
        return cls(options, model=files.id)

    @property
    def info(self) -> EngineInfo:
        """What is loaded."""
        return EngineInfo(
            engine="fake",
            model=self._model,
            device="cpu",
            compute_type="none",
            multilingual=True,
            languages=tuple(LANGUAGES),
            replicas=self.options.replicas,
            reason="a test double that reads markers",
            batch_size=self.options.batch,
            in_steps=self.options.steps > 0,
            spare=self.options.spare,
        )

    @property
    def thresholds(self) -> Thresholds:
        """Those of the options."""
        return self.options.thresholds

    def detect(self, audios: Sequence[tuple[str, Audio]]) -> list[dict[str, float]]:
        """The configured probabilities, best first, for every item."""
        self._check_open()
        self.detect_calls.append(tuple(key for key, _ in audios))
        time.sleep(self.options.detect_delay)
        ranked = sorted(self.options.languages.items(), key=lambda pair: -pair[1])
        return [dict(ranked) for _ in audios]

    def decode(self, items: Sequence[WindowItem]) -> list[Decoded]:
        """The markers of every window, in order.

        Raises:
            EngineOutOfMemory: the batch is larger than ``oom_above``.
            EngineError: closed, asked to fail, or the batch mixes batch keys.
        """
        self._check_open()
        call = self._note(items)
        if self.on_decode is not None:
            self.on_decode(items)
        limit = self.options.oom_above
        if limit is not None and call.size > limit:
            raise EngineOutOfMemory(f"a batch of {call.size} does not fit, {limit} would")
        if call.number in self.options.fail_on:
            raise EngineError(f"call {call.number} was told to fail")
        self._spend(self.options.delay + self.options.delay_per_second * call.seconds)
        return [self._decode_one(item) for item in items]

    def encode_text(self, text: str) -> tuple[int, ...]:
        """One id below 50,257 for each word with the space before it."""
        return tuple(zlib.crc32(part.encode()) % 50_257 for part in re.findall(r"\s*\S+", text))

    def count_limit(self) -> int:
        """Whisper's: 223."""
        return 223

    def release(self, keys: Sequence[str]) -> None:
        """Only noted, in ``released``."""
        self.released.extend(keys)

    def close(self) -> None:
        """Calls after this raise EngineError."""
        self.closed = True

    def _spend(self, seconds: float) -> None:
        parts = max(1, self.options.steps)
        for _ in range(parts):
            time.sleep(seconds / parts)
            if self.options.steps:
                step()

    def _check_open(self) -> None:
        if self.closed:
            raise EngineError("the engine is closed")

    def _note(self, items: Sequence[WindowItem]) -> FakeCall:
        if len({item.params.batch_key for item in items}) > 1:
            raise EngineError("items of one batch have different batch keys")
        call = FakeCall(
            number=next(self._numbers),
            keys=tuple(item.key for item in items),
            params=tuple(item.params for item in items),
            seconds=sum(item.audio.size for item in items) / SAMPLE_RATE,
            started=time.monotonic(),
        )
        self.calls.append(call)
        return call

    def _decode_one(self, item: WindowItem) -> Decoded:
        pieces = tuple(
            _piece(start, number, item.params) for start, number in find_markers(item.audio)
        )
        text = "".join(piece.text for piece in pieces)
        data = text.encode()
        decoded = Decoded(
            pieces=pieces,
            text=text,
            avg_logprob=-0.15 if pieces else -0.9,
            compression_ratio=len(data) / len(zlib.compress(data)) if data else 0.0,
            no_speech_prob=0.01 if pieces else 0.95,
            temperature=item.params.temperature,
            language=item.params.language,
        )
        return self.transform(item, decoded) if self.transform else decoded


def _piece(start: float, number: int, params: DecodeParams) -> Piece:
    parts = (" marker", f"-{number:04d}")
    text, end = "".join(parts), start + MARKER_SECONDS
    ids = (zlib.crc32(part.encode()) % 50_257 for part in parts)
    logprobs = tuple(
        TokenLogprob(part, -0.1 * (i + 1), tuple(part.encode())) for i, part in enumerate(parts)
    )
    return Piece(
        start=start,
        end=end,
        tokens=(_timestamp(start), *ids, _timestamp(end)),
        text=text,
        words=(TimedWord(text, start, end, 0.9),) if params.words else (),
        logprobs=logprobs if params.logprobs else (),
    )


def _timestamp(seconds: float) -> int:
    return TIMESTAMP_BEGIN + round(seconds / 0.02)


def _digits(number: int) -> list[int]:
    digits = [int(digit) for digit in f"{number:04d}"]
    return [*digits, (3 * digits[0] + 7 * digits[1] + digits[2] + 9 * digits[3]) % 10]


def _candidates(audio: Audio) -> list[int]:
    """First samples of stretches in which the pilot tone is loud for a whole marker."""
    hops = audio.size // _HOP
    if hops < _SPAN:
        return []
    frames = audio[: hops * _HOP].reshape(hops, _HOP)
    turns = -2 * np.pi * _PILOT_HZ / SAMPLE_RATE
    angles = turns * np.arange(_HOP)
    parts = frames @ np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    tone = (parts[:, 0] + 1j * parts[:, 1]) * np.exp(1j * turns * _HOP * np.arange(hops))
    energy = np.einsum("ij,ij->i", frames, frames, dtype=np.float64)
    loud = np.abs(_moving_sum(tone)) ** 2
    total = _moving_sum(energy)
    heard = (loud > _PILOT_SHARE * MARKER_SAMPLES * total) & (total > _FLOOR * MARKER_SAMPLES)
    return [int(hop) * _HOP for hop in _peaks(loud, heard)]


def _moving_sum(values: NDArray[_Number]) -> NDArray[_Number]:
    sums: NDArray[_Number] = np.concatenate([np.zeros(1, values.dtype), np.cumsum(values)])
    difference: NDArray[_Number] = sums[_SPAN:] - sums[:-_SPAN]
    return difference


def _peaks(loud: NDArray[np.float64], heard: NDArray[np.bool_]) -> list[int]:
    """Places where ``loud`` is the largest within 0.8 of a marker, ascending."""
    places: list[int] = []
    near = int(0.8 * _SPAN)
    for hop in sorted(np.flatnonzero(heard), key=lambda place: -loud[place]):
        if all(abs(int(hop) - place) > near for place in places):
            places.append(int(hop))
    return sorted(places)


def _waves() -> Audio:
    """Cosine and sine of every digit's tone, under a window: [2, 50, MARKER_SAMPLES]."""
    angles = 2 * np.pi * _DIGITS_HZ.reshape(-1, 1) * np.arange(MARKER_SAMPLES) / SAMPLE_RATE
    window = np.hanning(MARKER_SAMPLES)
    return np.stack([np.cos(angles) * window, np.sin(angles) * window]).astype(np.float32)


_WAVES = _waves()


def _read_digits(audio: Audio) -> int | None:
    powers = np.square(_WAVES @ audio).sum(axis=0).reshape(5, 10)
    ranked = np.sort(powers, axis=1)
    if np.any(ranked[:, -1] < _CLEAR * ranked[:, -2]):
        return None
    digits = [int(digit) for digit in powers.argmax(axis=1)]
    number = int("".join(map(str, digits[:4])))
    return number if _digits(number) == digits else None
