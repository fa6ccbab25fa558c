"""Speech that the detector doubts: whispers, and voices that are far or muffled.

Silero goes by the tone of a voice. Of whispered words it misses a third to a half, most often the
first ones, yet it gives them far more than it gives noise. So what it thinks possible counts too
where it stands out of the background; ``quality`` judges text that rests on it alone more strictly.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from whisper_api.audio.cuts import FRAME, Activity, Span
from whisper_api.types import SAMPLE_RATE, Window

_STANDS_OUT = 10.0
"""Times the background's energy: steady noise and hum never reach it."""
_BACKGROUND = 1e-7  # at least: -70 dB, under which a recording is silent
_AROUND = 15 * SAMPLE_RATE // FRAME
_LOUD, _QUIET = 0.8, 0.1  # quantiles of energy: of the sound, and of the seconds around it


def faint_runs(
    activity: Activity, possible: Sequence[Span], sure: Sequence[Span], shortest: int = 0
) -> list[Span]:
    """What of ``possible`` lies outside ``sure``, is ``shortest`` samples long or longer and stands
    out; all in frames, ascending."""
    mask = np.zeros(activity.speech.size, np.bool_)
    for start, stop in possible:
        mask[start:stop] = True
    for start, stop in sure:
        mask[start:stop] = False
    long = (span for span in _stretches(mask) if (span[1] - span[0]) * FRAME >= shortest)
    return [span for span in long if _stands_out(activity, *span)]


def joined(spans: Sequence[Span], more: Sequence[Span]) -> list[Span]:
    """Both together, those that touch as one; ascending."""
    found: list[Span] = []
    for start, stop in sorted([*spans, *more]):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


def emphasised(activity: Activity, faint: Sequence[Span], factor: float) -> Activity:
    """The activity with speech made ``factor`` times as likely where it is faint.

    Otherwise all of a whisper would look like one long pause to whoever cuts windows.
    """
    speech = activity.speech.copy()
    for start, stop in faint:
        speech[start:stop] = np.minimum(speech[start:stop] * factor, 1.0)
    return Activity(speech, activity.energy)


def doubted(windows: Sequence[Window], sure: Sequence[Span]) -> list[Window]:
    """The windows, ``voiced`` 0 in those that none of the ``sure`` runs of frames reaches into."""
    starts = [start * FRAME for start, _ in sure]

    def certain(window: Window) -> bool:
        before = bisect_left(starts, window.stop)
        return before > 0 and sure[before - 1][1] * FRAME > window.start

    return [window if certain(window) else replace(window, voiced=0.0) for window in windows]


def _stands_out(activity: Activity, start: int, stop: int) -> bool:
    near = activity.energy[max(0, start - _AROUND) : stop + _AROUND]
    background = max(float(np.quantile(near, _QUIET)), _BACKGROUND)
    return float(np.quantile(activity.energy[start:stop], _LOUD)) >= _STANDS_OUT * background


def _stretches(mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[Span]:
    turns = np.diff(np.concatenate([[0], mask, [0]]).astype(np.int8))
    starts, stops = np.flatnonzero(turns > 0), np.flatnonzero(turns < 0)
    return list(zip(starts.tolist(), stops.tolist(), strict=True))
