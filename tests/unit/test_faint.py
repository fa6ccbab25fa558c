"""Speech that the detector doubts: what counts, and what windows are made of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from whisper_api.audio.cuts import FRAME, Activity
from whisper_api.audio.speech import SpeechDetector, plan_windows
from whisper_api.pipeline import voters_of
from whisper_api.types import SAMPLE_RATE, Options, VadOptions, Waveform, Window

SECOND = SAMPLE_RATE // FRAME  # frames
PAD = 300 * SAMPLE_RATE // 1000
LOUD, BACKGROUND = 1e-4, 1e-6  # 20 dB apart
Part = tuple[float, float, float]  # seconds, probability of speech, energy


class Heard(SpeechDetector):
    """Hears what it is told."""

    def __init__(self, *parts: Part) -> None:
        sizes = [int(seconds * SECOND) for seconds, _, _ in parts]
        self.activity = Activity(
            np.repeat(np.array([part[1] for part in parts], np.float32), sizes),
            np.repeat(np.array([part[2] for part in parts], np.float32), sizes),
        )

    def listen(self, waveform: Waveform, cancelled: Callable[[], bool] = lambda: False) -> Activity:
        return self.activity

    def windows(self, faint: float = 0.4, seconds: float = 30) -> list[Window]:
        source = Waveform(Path("unused"), self.activity.speech.size * FRAME)
        options = Options(vad=VadOptions(faint=faint), chunk_length_s=seconds)
        return plan_windows(source, options, self)


QUIET = (5.0, 0.01, BACKGROUND)
WHISPER = (2.0, 0.25, LOUD)
VOICE = (3.0, 0.9, LOUD)


def test_a_whisper_is_a_window_without_certain_speech() -> None:
    (window,) = Heard(QUIET, WHISPER, QUIET).windows()
    assert window.start == 5 * SECOND * FRAME - PAD
    assert window.stop == 7 * SECOND * FRAME + PAD
    assert (window.voiced, window.faint) == (0.0, True)


def test_none_is_heard_where_faint_speech_is_switched_off() -> None:
    assert Heard(QUIET, WHISPER, QUIET).windows(faint=1) == []


@pytest.mark.parametrize("level", [1e-9, BACKGROUND, LOUD])
def test_what_does_not_stand_out_is_no_speech(level: float) -> None:
    noise = (5.0, 0.01, level)
    assert Heard(noise, (2.0, 0.25, 3 * level), noise).windows() == []


def test_sounds_in_silence_must_have_some_loudness() -> None:
    assert Heard((5.0, 0.0, 0.0), (2.0, 0.25, 1e-7), (5.0, 0.0, 0.0)).windows() == []
    assert Heard((5.0, 0.0, 0.0), (2.0, 0.25, 1e-5), (5.0, 0.0, 0.0)).windows()


def test_a_faint_start_is_part_of_the_speech_behind_it() -> None:
    (window,) = Heard(QUIET, WHISPER, VOICE, QUIET).windows()
    assert window.spans == ((5 * SECOND * FRAME - PAD, 10 * SECOND * FRAME + PAD),)
    assert not window.faint


def test_pauses_of_certain_speech_stay_pauses() -> None:
    pause = (1.0, 0.25, BACKGROUND)
    (window,) = Heard(QUIET, VOICE, pause, VOICE, QUIET).windows()
    assert len(window.spans) == 2


def test_a_long_whisper_is_cut_in_its_pauses() -> None:
    parts = [QUIET, *((3.0, 0.25, LOUD), (0.4, 0.06, BACKGROUND)) * 8, QUIET]
    windows = Heard(*parts).windows(seconds=8)
    ends = [(window.stop // FRAME - 5 * SECOND) % 105 for window in windows[:-1]]
    assert len(windows) == 4
    assert all(93 <= end <= 105 for end in ends), ends


def test_faint_sounds_do_not_vote_on_the_language_beside_voices() -> None:
    faint, voiced = Window(0, 0, 9, 0.0, ((0, 9),)), Window(1, 9, 18, 0.1, ((9, 18),))
    assert voters_of([faint, voiced]) == [voiced]
    assert voters_of([faint]) == [faint]
