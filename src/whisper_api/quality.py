"""Judges a decoded window: loops, silence, low confidence, speech left without text.

The rules are Whisper's (Radford et al. 2022, section 4.5); the figures belong to the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from whisper_api.engines.base import Decoded, Thresholds
from whisper_api.types import SAMPLE_RATE, Window


class Verdict(StrEnum):
    """What to do with a decoding."""

    GOOD = "good"
    SILENT = "silent"  #: no speech: keep nothing
    LOOP = "loop"  #: text repeats itself: decode again
    UNSURE = "unsure"  #: too improbable: decode again


def judge(decoded: Decoded, thresholds: Thresholds, faint: bool = False) -> Verdict:
    """Whether ``decoded`` may stand; of ``faint`` sounds only what leaves no doubt."""
    unsure = decoded.avg_logprob < thresholds.log_prob
    if faint:
        loops = decoded.compression_ratio > thresholds.compression_ratio
        doubtful = unsure or loops or decoded.no_speech_prob > thresholds.no_speech
        return Verdict.SILENT if doubtful else Verdict.GOOD
    if decoded.no_speech_prob > thresholds.no_speech and (unsure or not decoded.text.strip()):
        return Verdict.SILENT
    if decoded.compression_ratio > thresholds.compression_ratio:
        return Verdict.LOOP
    return Verdict.UNSURE if unsure else Verdict.GOOD


def best(attempts: Sequence[Decoded], thresholds: Thresholds) -> Decoded:
    """The most probable attempt that does not loop, else the most probable of all."""
    sane = [a for a in attempts if a.compression_ratio <= thresholds.compression_ratio]
    return max(sane or attempts, key=lambda attempt: attempt.avg_logprob)


def uncovered(window: Window, decoded: Decoded, least: float) -> list[tuple[int, int]]:
    """Stretches of speech that no text stands over, each at least ``least`` seconds long.

    Returns sample pairs of the waveform, ascending. Speech within half a second of a piece
    counts as covered, since Whisper's timestamps are no finer than that on hard audio.
    """
    slack = SAMPLE_RATE // 2
    pieces = [
        (
            window.start + int(piece.start * SAMPLE_RATE) - slack,
            window.start + int(piece.end * SAMPLE_RATE) + slack,
        )
        for piece in decoded.pieces
        if piece.text.strip()
    ]
    gaps: list[tuple[int, int]] = []
    for span in window.spans:
        gaps += subtract(span, pieces)
    return [(a, b) for a, b in gaps if b - a >= least * SAMPLE_RATE]


def subtract(span: tuple[int, int], cuts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is left of ``span`` once all ``cuts`` are taken out, ascending."""
    left = [span]
    for a, b in cuts:
        left = [
            part
            for start, stop in left
            for part in ((start, min(stop, a)), (max(start, b), stop))
            if part[0] < part[1]
        ]
    return sorted(set(left))
