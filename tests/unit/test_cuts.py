"""Speech to windows: exact tiling, few windows, cuts in pauses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from whisper_api.audio.cuts import FRAME, UNVOICED, Activity, Span, cut_windows
from whisper_api.types import SAMPLE_RATE, Window

SECOND = SAMPLE_RATE


@st.composite
def some_spans(draw: st.DrawFn, longest: int = 100 * SECOND) -> list[Span]:
    spans, at = [], 0
    for gap, length in draw(
        st.lists(st.tuples(st.integers(0, 40 * SECOND), st.integers(1, longest)), max_size=8)
    ):
        spans.append((at + gap, at + gap + length))
        at += gap + length
    return spans


def activity_for(spans: Sequence[Span], seed: int, longest_pause: int = 25) -> Activity:
    """Some pauses at random places, weak and real ones (of 16 frames and more)."""
    rng = np.random.default_rng(seed)
    frames = -(-(spans[-1][1] if spans else 0) // FRAME)
    speech, at = np.empty(frames, np.float32), 0
    while at < frames:
        voiced, pause = int(rng.integers(1, 400)), int(rng.integers(1, longest_pause + 1))
        speech[at : at + voiced] = rng.uniform(0.4, 1)
        speech[at + voiced : at + voiced + pause] = rng.uniform(0, 0.3)
        at += voiced + pause
    return Activity(speech, rng.random(frames).astype(np.float32))


def voiced(seconds: float, *pauses: Span) -> Activity:
    """Speech everywhere but in the pauses, which are pairs of frames."""
    frames = -(-int(seconds * SECOND) // FRAME)
    activity = Activity(np.full(frames, 0.9, np.float32), np.ones(frames, np.float32))
    for first, last in pauses:
        activity.speech[first:last] = 0.1
    return activity


def frame(seconds: float) -> int:
    return int(seconds * SECOND) // FRAME


def filled(spans: Sequence[Span], longest: int) -> int:
    """The fewest windows for spans that are not to be cut: each as full as it gets."""
    starts: list[int] = []
    for start, stop in spans:
        if not starts or stop - starts[-1] > longest:
            starts.append(start)
    return len(starts)


def greedy(spans: Sequence[Span], longest: int) -> int:
    """Windows that one makes who ends a nearly full one at the longest silence near its end."""
    first = count = 0
    while first < len(spans):
        start = spans[first][0]
        stop = first + 1
        while stop < len(spans) and spans[stop][1] - start <= longest:
            stop += 1
        if stop < len(spans):
            full = start + longest * 5 / 6
            ends = [end for end in range(first + 1, stop + 1) if spans[end - 1][1] >= full]
            stop = max(ends or [stop], key=lambda end: (spans[end][0] - spans[end - 1][1], end))
        first, count = stop, count + 1
    return count


def covered(windows: Sequence[Window]) -> list[Span]:
    """All spans of all windows, those that touch joined."""
    joined: list[Span] = []
    for window in windows:
        for start, stop in window.spans:
            if joined and joined[-1][1] == start:
                joined[-1] = (joined[-1][0], stop)
            else:
                joined.append((start, stop))
    return joined


def cuts_inside(windows: Sequence[Window], spans: Sequence[Span]) -> list[int]:
    edges = {edge for span in spans for edge in span}
    return [window.start for window in windows[1:] if window.start not in edges]


@settings(max_examples=40, deadline=None)
@given(some_spans(), st.floats(1, 30), st.integers(0, 5))
def test_windows_tile_the_speech_exactly(spans: list[Span], seconds: float, seed: int) -> None:
    longest = int(seconds * SECOND)
    windows = cut_windows(spans, activity_for(spans, seed), longest)
    joined = covered([Window(0, *span, spans=(span,)) for span in spans])
    assert covered(windows) == joined
    assert [window.index for window in windows] == list(range(len(windows)))
    for window in windows:
        assert 0 < window.stop - window.start <= longest
        assert window.start == window.spans[0][0]
        assert window.stop == window.spans[-1][1]
        assert window.voiced == pytest.approx(sum(b - a for a, b in window.spans) / SECOND)
    for one, other in itertools.pairwise(windows):
        assert one.stop <= other.start


@settings(max_examples=40, deadline=None)
@given(some_spans(longest=20 * SECOND), st.integers(0, 50))
def test_spans_are_cut_only_where_that_saves_a_window(spans: list[Span], seed: int) -> None:
    windows = cut_windows(spans, activity_for(spans, seed, 15), 20 * SECOND)
    fewest = filled(spans, 20 * SECOND)
    assert len(windows) <= fewest <= greedy(spans, 20 * SECOND)
    assert len(windows) < fewest or not cuts_inside(windows, spans)


@settings(max_examples=40, deadline=None)
@given(some_spans(longest=12 * SECOND))
def test_no_other_division_is_better(spans: list[Span]) -> None:
    """Against all divisions: the fewest windows, then the best pauses and no short windows."""
    longest = 30 * SECOND

    def badness(groups: Sequence[Sequence[Span]]) -> tuple[int, int]:
        lacks = [max(0, longest // 3 - (group[-1][1] - group[0][0])) for group in groups]
        gaps = [
            min(longest, right[0][0] - left[-1][1]) for left, right in itertools.pairwise(groups)
        ]
        return len(groups), sum(abs(SECOND // 2 - gap) for gap in gaps) + sum(lacks)

    divisions = []
    for ends in itertools.product([False, True], repeat=max(0, len(spans) - 1)):
        at = [0, *(k + 1 for k, end in enumerate(ends) if end), len(spans)]
        groups = [spans[a:b] for a, b in itertools.pairwise(at) if a < b]
        if all(group[-1][1] - group[0][0] <= longest for group in groups):
            divisions.append(groups)
    windows = cut_windows(spans, voiced(spans[-1][1] / SECOND if spans else 0), longest)
    found = [[span for span in spans if w.start <= span[0] and span[1] <= w.stop] for w in windows]
    assert badness(found) == min(map(badness, divisions))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5000), st.floats(13, 30), st.integers(0, 50))
def test_words_are_not_cut_while_there_are_pauses(frames: int, seconds: float, seed: int) -> None:
    span = (0, frames * FRAME)
    activity = activity_for([span], seed)
    unvoiced = np.append(activity.speech < UNVOICED, [True])
    pauses = [
        first
        for first, last in itertools.pairwise(np.flatnonzero(np.diff(unvoiced, prepend=1 > 0)))
        if unvoiced[first] and last - first >= 5
    ]
    assume(np.diff([0, *pauses, frames]).max() * FRAME <= (seconds - 1) * SECOND)
    for window in cut_windows([span], activity, int(seconds * SECOND))[1:]:
        assert activity.speech[window.start // FRAME - 2 : window.start // FRAME + 2].max() < 0.35


@settings(max_examples=25, deadline=None)
@given(some_spans(), st.integers(0, 5), st.integers(0, 10_000))
def test_the_cuts_are_the_same_wherever_the_speech_is(
    spans: list[Span], seed: int, frames: int
) -> None:
    here = activity_for(spans, seed)
    before = np.zeros(frames, np.float32)
    there = Activity(np.concatenate([before, here.speech]), np.concatenate([before, here.energy]))
    moved = [(start + frames * FRAME, stop + frames * FRAME) for start, stop in spans]
    assert [
        (w.start - frames * FRAME, w.stop - frames * FRAME)
        for w in cut_windows(moved, there, 8 * SECOND)
    ] == [(w.start, w.stop) for w in cut_windows(spans, here, 8 * SECOND)]


def test_neighbours_are_joined_as_long_as_they_fit() -> None:
    spans = [(k * 6 * SECOND, (k * 6 + 4) * SECOND) for k in range(10)]
    windows = cut_windows(spans, Activity.silent(60 * SECOND), 30 * SECOND)
    assert [(w.start // SECOND, w.stop // SECOND) for w in windows] == [(0, 28), (30, 58)]


def test_a_longer_silence_does_not_make_one_more_window() -> None:
    """Phrases every 2.6 s, a little more silence after every tenth, which ends at 25.6 s."""
    lengths = itertools.cycle([2.4] * 9 + [2.2])
    starts = [k * 2.6 for k in range(110)]
    spans = [
        (round(start * SECOND), round((start + length) * SECOND))
        for start, length in zip(starts, lengths, strict=False)
    ]
    windows = cut_windows(spans, voiced(286), 30 * SECOND)
    assert (len(windows), greedy(spans, 30 * SECOND)) == (10, 11)


def test_a_window_ends_at_the_longer_silence() -> None:
    spans = [(0, 25 * SECOND), (int(25.1 * SECOND), 29 * SECOND), (int(29.6 * SECOND), 50 * SECOND)]
    (first, second) = cut_windows(spans, voiced(50), 30 * SECOND)
    assert (first.stop, second.start) == (29 * SECOND, spans[2][0])


def test_a_silence_of_seconds_is_not_sought_out() -> None:
    """It may be speech that the detector missed, which is decoded inside a window."""
    spans = [(0, 12 * SECOND), (16 * SECOND, 20 * SECOND), (int(20.5 * SECOND), 36 * SECOND)]
    (first, second) = cut_windows(spans, voiced(36), 30 * SECOND)
    assert (first.stop, second.start) == (spans[1][1], spans[2][0])


def test_a_longer_silence_does_not_make_a_short_window() -> None:
    spans = [(0, SECOND), (10 * SECOND, 20 * SECOND), (int(20.4 * SECOND), 36 * SECOND)]
    (_, second) = cut_windows(spans, voiced(36), 30 * SECOND)
    assert second.start == spans[2][0]


def test_a_cut_in_a_weak_pause_saves_a_window() -> None:
    weak = [(frame(20 * k + 9.5), frame(20 * k + 9.5) + 6) for k in range(3)]
    spans = [(20 * k * SECOND, (20 * k + 19) * SECOND) for k in range(3)]
    (first, second) = cut_windows(spans, voiced(60, *weak), 30 * SECOND)
    assert first.stop == second.start == (weak[1][0] + 3) * FRAME
    assert len(cut_windows(spans, voiced(60), 30 * SECOND)) == 3


def test_the_longest_pause_is_the_best_place() -> None:
    pauses = [(frame(at), frame(at) + length) for at, length in ((14, 6), (18, 12), (22, 8))]
    (first, _) = cut_windows([(0, 40 * SECOND)], voiced(40, *pauses), 30 * SECOND)
    assert first.stop == (pauses[1][0] + 6) * FRAME


def test_one_more_window_is_better_than_half_a_word() -> None:
    pauses = [(frame(at), frame(at) + 6) for at in (5, 34)]
    windows = cut_windows([(0, 39 * SECOND)], voiced(39, *pauses), 30 * SECOND)
    assert [w.start for w in windows] == [0, *((first + 3) * FRAME for first, _ in pauses)]


def test_speech_without_pauses_is_cut_where_it_is_least_likely_then_quietest() -> None:
    activity = voiced(40)
    low, high = frame(24), frame(27)
    activity.energy[low] = 0.1
    (first, _) = cut_windows([(0, 40 * SECOND)], activity, 30 * SECOND)
    assert first.stop == low * FRAME + FRAME // 2
    activity.speech[high] = 0.4
    (first, _) = cut_windows([(0, 40 * SECOND)], activity, 30 * SECOND)
    assert first.stop == high * FRAME + FRAME // 2
    activity.speech[frame(9)] = 0  # too early to matter
    (again, _) = cut_windows([(0, 40 * SECOND)], activity, 30 * SECOND)
    assert again == first


def test_without_the_detector_pauses_are_what_is_much_quieter() -> None:
    activity = Activity(np.zeros(frame(40), np.float32), np.ones(frame(40), np.float32))
    activity.energy[frame(20) : frame(20) + 8] = 0.001
    activity.energy[frame(25)] = 0
    (first, _) = cut_windows([(0, 40 * SECOND)], activity, 30 * SECOND)
    assert first.stop == (frame(20) + 4) * FRAME
