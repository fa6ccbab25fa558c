"""The judge, gaps, file times and the completeness receipt."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_api.engines.base import Decoded, Piece, Thresholds, TimedWord
from whisper_api.merge import WindowResult, coverage, delayed, window_segments
from whisper_api.quality import Verdict, best, judge, subtract, uncovered
from whisper_api.types import SAMPLE_RATE, Waveform, Window

RATE = SAMPLE_RATE
GOOD = Decoded(
    pieces=(Piece(0.0, 1.0, (1,), " One."),),
    text=" One.",
    avg_logprob=-0.2,
    compression_ratio=1.0,
    no_speech_prob=0.01,
    temperature=0.0,
    language="en",
)
LIMITS = Thresholds()


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, Verdict.GOOD),
        ({"avg_logprob": -1.5}, Verdict.UNSURE),
        ({"compression_ratio": 3.0}, Verdict.LOOP),
        ({"avg_logprob": -1.5, "no_speech_prob": 0.9}, Verdict.SILENT),
        ({"no_speech_prob": 0.9}, Verdict.GOOD),
        ({"no_speech_prob": 0.9, "text": " "}, Verdict.SILENT),
    ],
)
def test_judge(change: dict[str, object], verdict: Verdict) -> None:
    assert judge(replace(GOOD, **change), LIMITS) is verdict  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change", [{"avg_logprob": -1.5}, {"compression_ratio": 3.0}, {"no_speech_prob": 0.9}]
)
def test_faint_sounds_get_no_text_where_anything_speaks_against_it(
    change: dict[str, float],
) -> None:
    assert judge(GOOD, LIMITS, faint=True) is Verdict.GOOD
    assert judge(replace(GOOD, **change), LIMITS, faint=True) is Verdict.SILENT  # type: ignore[arg-type]


def test_best_prefers_text_that_does_not_loop() -> None:
    loop = replace(GOOD, avg_logprob=-0.1, compression_ratio=9.0)
    weak = replace(GOOD, avg_logprob=-2.0)
    assert best([loop, weak], LIMITS) is weak
    assert best([loop, replace(loop, avg_logprob=-3.0)], LIMITS) is loop


def test_uncovered_finds_speech_without_text() -> None:
    spans = ((0, 2 * RATE), (6 * RATE, 12 * RATE))
    window = Window(0, 0, 20 * RATE, 8.0, spans)
    assert uncovered(window, GOOD, 2.0) == [(6 * RATE, 12 * RATE)]
    assert uncovered(window, GOOD, 7.0) == []


@given(
    st.tuples(st.integers(0, 50), st.integers(1, 50)),
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 30))),
)
def test_subtract_is_set_difference(span: tuple[int, int], lengths: list[tuple[int, int]]) -> None:
    start, length = span
    cuts = [(a, a + n) for a, n in lengths]
    left = subtract((start, start + length), cuts)
    expected = set(range(start, start + length)) - {x for a, b in cuts for x in range(a, b)}
    assert {x for a, b in left for x in range(a, b)} == expected
    assert left == sorted(left)


def waveform(seconds: float, lead: float = 0.0) -> Waveform:
    return Waveform(Path("unused"), round((seconds + lead) * RATE), lead=round(lead * RATE))


def test_times_refer_to_the_original_file() -> None:
    window = Window(3, 10 * RATE, 20 * RATE)
    words = (TimedWord(" One", 0.2, 0.1, 0.9), TimedWord(".", 0.0, 0.4, 0.9))
    decoded = replace(GOOD, pieces=(Piece(0.5, 1.5, (1,), " One.", words),))
    (segment,) = window_segments(waveform(60, lead=2.0), WindowResult(window, decoded), first_id=7)
    assert (segment.id, segment.start, segment.end, segment.seek) == (7, 8.5, 9.5, 800)
    assert [(w.start, w.end) for w in segment.words] == [(8.2, 8.2), (8.2, 8.4)]


def test_padding_never_leaves_the_file() -> None:
    window = Window(0, 0, 3 * RATE)
    decoded = replace(GOOD, pieces=(Piece(0.0, 3.0, (1,), " One."),))
    (segment,) = window_segments(waveform(1.0, lead=2.0), WindowResult(window, decoded))
    assert (segment.start, segment.end, segment.seek) == (0.0, 1.0, 0)


pieces = st.lists(st.tuples(st.floats(0, 30), st.floats(0, 30), st.sampled_from([" a", " "])))


@given(pieces)
def test_segments_are_ordered_and_inside(times: list[tuple[float, float, str]]) -> None:
    decoded = replace(GOOD, pieces=tuple(Piece(a, b, (), text) for a, b, text in sorted(times)))
    result = WindowResult(Window(0, 5 * RATE, 35 * RATE), decoded)
    segments = window_segments(waveform(33), result)
    assert len(segments) == sum(text == " a" for _, _, text in times)
    for one, two in pairwise(segments):
        assert one.end <= two.start
    for segment in segments:
        assert 0 <= segment.start <= segment.end <= 33


def test_coverage_adds_up() -> None:
    speech = Window(0, 0, 10 * RATE, 6.0, ((0, 4 * RATE), (6 * RATE, 8 * RATE)))
    silent = Window(1, 10 * RATE, 15 * RATE, 5.0, ((10 * RATE, 15 * RATE),))
    decoded = replace(GOOD, pieces=(Piece(1.0, 4.0, (1,), " One."),))
    receipt = coverage(waveform(15), [WindowResult(speech, decoded), WindowResult(silent, None)])
    assert receipt.decoded == 15
    assert receipt.voiced == 11
    assert receipt.covered == 3
    assert receipt.dropped == 8


def test_a_rescued_gap_comes_in_time_order_with_its_words() -> None:
    extra = replace(GOOD, pieces=(Piece(0.0, 0.5, (2,), " Two.", (TimedWord(" Two", 0, 1, 1),)),))
    late = replace(GOOD, pieces=(Piece(9.0, 9.5, (3,), " Three."),), text=" Three.")
    result = WindowResult(Window(0, 0, 10 * RATE, 2.0), late, rescued=(delayed(extra, 4.0),))
    (first, _), (second, _) = result.pieces()
    assert (first.start, second.start) == (4.0, 9.0)
    assert first.words[0].start == 4.0
