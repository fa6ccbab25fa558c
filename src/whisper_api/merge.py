"""Decoded windows -> one transcript: file times, order, the completeness receipt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from whisper_api.engines.base import Decoded, Piece, TimedWord
from whisper_api.quality import subtract
from whisper_api.types import SAMPLE_RATE, Coverage, Segment, Waveform, Window, Word


@dataclass(frozen=True, slots=True)
class WindowResult:
    """One window's accepted decoding; ``decoded`` is None where it held no speech."""

    window: Window
    decoded: Decoded | None
    warnings: tuple[str, ...] = ()
    rescued: tuple[Decoded, ...] = ()  #: second decodings of its gaps, in the window's own time

    def pieces(self) -> list[tuple[Piece, Decoded]]:
        """Every piece with text, in time order, each with the decoding that it is from."""
        parts = (*((self.decoded,) if self.decoded else ()), *self.rescued)
        found = [(piece, part) for part in parts for piece in part.pieces if piece.text.strip()]
        return sorted(found, key=lambda pair: (pair[0].start, pair[0].end))


def window_segments(waveform: Waveform, result: WindowResult, first_id: int = 0) -> list[Segment]:
    """The segments of one window, in file time, ids from ``first_id``.

    Guarantees ``0 <= start <= end <= duration``, ascending starts and ends that never pass the
    next start; pieces without text are left out.
    """
    segments: list[Segment] = []
    for piece, decoded in result.pieces():
        segment = _segment(waveform, result.window, decoded, piece, first_id + len(segments))
        if segments and segment.start < segments[-1].end:
            start = segments[-1].end
            segment = replace(segment, start=start, end=max(start, segment.end))
        segments.append(segment)
    return segments


def coverage(waveform: Waveform, results: Iterable[WindowResult]) -> Coverage:
    """The receipt: what was decoded, voiced, covered by text, and voiced yet without text."""
    decoded = voiced = covered = 0
    for result in results:
        window = result.window
        decoded += window.stop - window.start
        spans = window.spans or ((window.start, window.stop),)
        cuts = _text_spans(result)
        for span in spans:
            voiced += span[1] - span[0]
            bare = sum(b - a for a, b in subtract(span, cuts))
            covered += span[1] - span[0] - bare
    return Coverage(
        decoded=decoded / SAMPLE_RATE,
        voiced=voiced / SAMPLE_RATE,
        covered=covered / SAMPLE_RATE,
        dropped=(voiced - covered) / SAMPLE_RATE,
    )


def add_coverage(parts: Iterable[Coverage]) -> Coverage:
    """The receipt of several stretches together."""
    decoded = voiced = covered = dropped = 0.0
    for part in parts:
        decoded += part.decoded
        voiced += part.voiced
        covered += part.covered
        dropped += part.dropped
    return Coverage(decoded, voiced, covered, dropped)


def delayed(decoded: Decoded, seconds: float) -> Decoded:
    """``decoded`` with all its times later by ``seconds``."""
    return replace(decoded, pieces=tuple(_shift(piece, seconds) for piece in decoded.pieces))


def _text_spans(result: WindowResult) -> list[tuple[int, int]]:
    base = result.window.start
    return [
        (base + int(piece.start * SAMPLE_RATE), base + int(piece.end * SAMPLE_RATE))
        for piece, _ in result.pieces()
    ]


def _segment(
    waveform: Waveform, window: Window, decoded: Decoded, piece: Piece, number: int
) -> Segment:
    def at(seconds: float) -> float:
        return waveform.seconds(window.start + round(seconds * SAMPLE_RATE))

    start, end = at(piece.start), at(max(piece.start, piece.end))
    return Segment(
        id=number,
        seek=round(waveform.seconds(window.start) * 100),
        start=start,
        end=end,
        text=piece.text,
        tokens=piece.tokens,
        temperature=decoded.temperature,
        avg_logprob=decoded.avg_logprob,
        compression_ratio=decoded.compression_ratio,
        no_speech_prob=decoded.no_speech_prob,
        language=decoded.language,
        words=_words(waveform, window, piece.words),
        logprobs=piece.logprobs,
        window=window.index,
    )


def _words(waveform: Waveform, window: Window, words: Sequence[TimedWord]) -> tuple[Word, ...]:
    placed: list[Word] = []
    last = 0.0
    for word in words:
        start = max(last, waveform.seconds(window.start + round(word.start * SAMPLE_RATE)))
        end = max(start, waveform.seconds(window.start + round(word.end * SAMPLE_RATE)))
        placed.append(Word(word.text, start, end, word.probability))
        last = end
    return tuple(placed)


def _shift(piece: Piece, offset: float) -> Piece:
    words = tuple(replace(w, start=w.start + offset, end=w.end + offset) for w in piece.words)
    return replace(piece, start=piece.start + offset, end=piece.end + offset, words=words)
