"""How speech is cut into windows: as few as there can be, and each cut where it hurts least.

Every window costs the encoder the same, full or not, so that full ones are faster. But a cut in
the middle of a sentence can cost a word, and one in the middle of a word does. So the prices:
a window costs 1; a cut in a real pause nothing; one in a weak pause 1 to 4 s of a window of 30 s,
and much more in short windows, of which it spoils a larger share; one in speech more than a window
and two cuts in weak pauses, so that it happens only where no pause is in reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from whisper_api.types import SAMPLE_RATE, WINDOW_SECONDS, Audio, Window

FRAME = 512
"""Samples that get one speech probability (32 ms)."""
Span = tuple[int, int]
"""First sample, and one past the last."""
Values = NDArray[np.float32]
_Numbers = NDArray[np.int64]

UNVOICED = 0.35
"""A frame that is less likely to be speech than this is part of a pause."""
_QUIET = 10**-2.5  # of the energy around: -25 dB
_AROUND = 15 * SAMPLE_RATE // FRAME
_WEAK, _REAL = 5, 16  # frames of the shortest weak and of the shortest real pause
_LONG = SAMPLE_RATE // 2
"""The best silence to leave out between two windows, in samples: a shorter one is less of a pause,
a longer one may hold words that the detector missed, and inside a window they are decoded."""
_WEAK_S, _WEAKEST_S = 1.0, 4.0  # what cuts at the longest and at the shortest weak pause cost
_WINDOW = 1000
_SPEECH = 4 * _WINDOW
_SURE = 500  # what a cut where speech is certain costs more than one where it is not


@dataclass(frozen=True, slots=True, eq=False)
class Activity:
    """What was heard in each frame of ``FRAME`` samples."""

    speech: Values  #: probability of speech; zeros where the detector was not asked
    energy: Values  #: mean square of the samples

    @classmethod
    def silent(cls, samples: int) -> Activity:
        """Nothing heard in so many samples."""
        frames = -(-samples // FRAME)
        return cls(np.zeros(frames, np.float32), np.zeros(frames, np.float32))


def energy_of(frames: Audio) -> Values:
    """Mean square of each row."""
    return np.asarray(np.mean(np.square(frames), axis=1), np.float32)


def cut_windows(
    spans: Sequence[Span], activity: Activity, longest: int, unvoiced: float = UNVOICED
) -> list[Window]:
    """Windows of at most ``longest`` samples (a second or more) that tile the speech exactly.

    A window starts where its first span does and ends with its last. The windows are those of
    the least price (see above); of equals those with pauses of about a second between them and
    no window shorter than a third of ``longest``. A frame under ``unvoiced``
    is no speech.
    """
    pieces = list(_pieces(spans, _Pauses.heard(activity, unvoiced), longest))
    ends = _best_ends(pieces, longest)
    return [
        _window(index, pieces[first:stop])
        for index, (first, stop) in enumerate(zip([0, *ends], ends, strict=False))
    ]


class _Piece(NamedTuple):
    """Speech that stays whole, and what a cut after it costs."""

    start: int
    stop: int
    price: int  #: in thousandths of a window
    regret: int  #: decides between equal prices; samples


@dataclass(frozen=True, slots=True, eq=False)
class _Pauses:
    """Every frame's part in a pause."""

    activity: Activity
    lengths: _Numbers  #: frames of the pause that a frame is part of, 0 in speech
    firsts: _Numbers  #: first frames of the pauses worth a cut
    lasts: _Numbers  #: one past their last

    @classmethod
    def heard(cls, activity: Activity, unvoiced: float) -> _Pauses:
        quiet = np.concatenate([[0], _quiet(activity, unvoiced), [0]]).astype(np.int8)
        turns = np.diff(quiet)
        firsts, lasts = np.flatnonzero(turns > 0), np.flatnonzero(turns < 0)
        lengths = np.zeros(activity.speech.size, np.int64)
        lengths[quiet[1:-1] > 0] = np.repeat(lasts - firsts, lasts - firsts)
        long = lasts - firsts >= _WEAK
        return cls(activity, lengths, firsts[long], lasts[long])

    def cuts(self, span: Span, longest: int) -> _Numbers:
        """Samples inside ``span`` to cut at: all pauses, and some more where they are too far."""
        start, stop = span
        low = np.searchsorted(self.firsts * FRAME, start, "right")
        high = max(low, np.searchsorted(self.lasts * FRAME, stop))
        cuts = (self.firsts[low:high] + self.lasts[low:high]) * FRAME // 2
        edges = np.concatenate([[start], cuts, [stop]])
        far = np.flatnonzero(np.diff(edges) > longest)
        if not far.size:
            return cuts
        more = [self._quietest(int(edges[at]), int(edges[at + 1]), longest) for at in far]
        return np.unique(np.concatenate([cuts, *more]))

    def _quietest(self, start: int, stop: int, longest: int) -> list[int]:
        """The best places to cut in speech, about ten for each window."""
        found = []
        step, middle = longest // 10, FRAME // 2
        for at in range(start + 1, stop, step):
            first = -(-(at - middle) // FRAME)
            last = -(-(min(at + step, stop) - middle) // FRAME)
            if first < last:
                speech = np.round(self.activity.speech[first:last], 1)
                order = np.lexsort((self.activity.energy[first:last], speech))
                found.append((first + int(order[0])) * FRAME + middle)
        return found

    def prices(self, cuts: _Numbers, longest: int) -> _Numbers:
        """What cuts at these samples cost, as rows of price and regret."""
        frames = cuts // FRAME
        lengths = self.lengths[frames]
        weak = (_REAL - np.clip(lengths, _WEAK, _REAL)) / (_REAL - _WEAK)
        seconds = np.where(weak > 0, _WEAK_S + weak * (_WEAKEST_S - _WEAK_S), 0)
        share = SAMPLE_RATE / longest * (WINDOW_SECONDS * SAMPLE_RATE / longest)
        pause = np.minimum(seconds * share, 1) * _WINDOW
        speech = _SPEECH + np.round(self.activity.speech[frames], 1) * _SURE
        quieter = 100 + 10 * np.log10(np.maximum(self.activity.energy[frames], 1e-10))
        left_out = np.clip((lengths - _REAL) * FRAME, 0, _LONG)
        in_pause = lengths >= _WEAK
        return np.stack(
            [
                np.where(in_pause, pause, speech).astype(np.int64),
                _LONG + np.where(in_pause, -left_out, quieter * FRAME).astype(np.int64),
            ],
            axis=1,
        )


def _quiet(activity: Activity, unvoiced: float) -> NDArray[np.bool_]:
    """Frames without a voice.

    The detector knows best: sounds such as a long t are as quiet as a pause. Where it was not
    asked, what is far under the loudness of the seconds around.
    """
    if activity.speech.any():
        return activity.speech < unvoiced
    total = np.concatenate([[0], np.cumsum(activity.energy, dtype=np.float64)])
    frames = np.arange(activity.energy.size)
    low = np.maximum(frames - _AROUND, 0)
    high = np.minimum(frames + _AROUND, frames.size)
    around = np.maximum(total[high] - total[low], 0) / np.maximum(high - low, 1)
    return np.asarray(activity.energy <= around * _QUIET)


def _pieces(spans: Sequence[Span], pauses: _Pauses, longest: int) -> Iterator[_Piece]:
    """The speech in parts that are never cut, each at most ``longest`` samples."""
    cuts = [pauses.cuts(span, longest) for span in spans]
    none: _Numbers = np.zeros(0, np.int64)
    prices = iter(pauses.prices(np.concatenate([none, *cuts]), longest).tolist())
    for index, (start, stop) in enumerate(spans):
        for cut, (price, regret) in zip(cuts[index].tolist(), prices, strict=False):
            yield _Piece(start, cut, price, regret)
            start = cut
        silence = spans[index + 1][0] - stop if index + 1 < len(spans) else 0
        yield _Piece(start, stop, 0, abs(_LONG - min(silence, longest)))


def _best_ends(pieces: Sequence[_Piece], longest: int) -> list[int]:
    """Where windows end, as numbers of pieces: the cheapest way to divide all of them.

    The best windows up to each piece are the best up to the start of its own window and that
    window; a window reaches over few pieces, so that the time grows with the audio alone.
    """
    table: _Numbers = np.array(pieces, np.int64).reshape(-1, 4)
    starts, stops = table[:, 0], table[:, 1]
    reach = np.searchsorted(starts, stops - longest)
    price, regret = np.zeros(len(table) + 1, np.int64), np.zeros(len(table) + 1, np.int64)
    before = np.zeros(len(table) + 1, np.int64)
    for end in range(1, len(table) + 1):
        firsts = slice(reach[end - 1], end)
        prices = price[firsts]
        least = prices.min()
        lacks = np.maximum(longest // 3 - (stops[end - 1] - starts[firsts]), 0)
        regrets = np.where(prices == least, regret[firsts] + lacks, np.iinfo(np.int64).max)
        best = int(regrets.argmin())
        before[end] = reach[end - 1] + best
        price[end] = least + _WINDOW + table[end - 1, 2]
        regret[end] = regrets[best] + table[end - 1, 3]
    ends = []
    end = len(table)
    while end:
        ends.append(end)
        end = int(before[end])
    return ends[::-1]


def _window(index: int, pieces: Sequence[_Piece]) -> Window:
    spans: list[Span] = []
    for piece in pieces:
        if spans and piece.start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], piece.stop)
        else:
            spans.append((piece.start, piece.stop))
    return Window(
        index=index,
        start=spans[0][0],
        stop=spans[-1][1],
        voiced=sum(stop - start for start, stop in spans) / SAMPLE_RATE,
        spans=tuple(spans),
    )
