"""Where speech is: block by block as in one go, and planned without the detector."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.media import tone, waveform

from whisper_api.audio import speech
from whisper_api.audio.cuts import FRAME, Values
from whisper_api.audio.speech import (
    Cancelled,
    SpeechDetector,
    _all_runs,
    find_spans,
    plan_windows,
)
from whisper_api.types import SAMPLE_RATE, Audio, Options, VadOptions, Waveform, Window

SECOND = SAMPLE_RATE
DATA = Path(os.environ.get("WHISPER_API_TEST_DATA", "nowhere"))
with_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="WHISPER_API_TEST_DATA names no folder with recordings"
)


@cache
def detector() -> SpeechDetector:
    return SpeechDetector()


def babble(seconds: float, seed: int = 0) -> Audio:
    """A buzz with moving formants and pauses: the detector takes much of it for a voice."""
    rng = np.random.default_rng(seed)
    size = round(seconds * SAMPLE_RATE)
    times = np.arange(size) / SAMPLE_RATE
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * times) + 10 * np.sin(2 * np.pi * 2.3 * times)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    formants = np.interp(
        times,
        np.arange(0, seconds + 1, 0.18),
        rng.uniform(300, 2500, len(np.arange(0, seconds + 1, 0.18))),
    )
    voice = sum(
        np.sin(k * phase) * np.exp(-(((k * pitch - formants) / 400) ** 2)) for k in range(1, 25)
    )
    loud = np.clip(np.sin(2 * np.pi * 3.1 * times) + 0.6, 0, 1)
    sound = voice * loud
    sound = 0.6 * sound / np.abs(sound).max() + 0.002 * rng.standard_normal(size)
    return np.asarray(sound, np.float32)


def load(path: Path) -> Audio:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    with av.open(path) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    frames += resampler.resample(None)
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return np.asarray(samples / 32768, np.float32)


# --- the detector ---------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 3, 100, 4096])
def test_blocks_equal_one_whole_call(frames: int, tmp_path: Path) -> None:
    source = waveform(tmp_path / "pcm", babble(20.013))
    whole = detector().probabilities(source.read(0, source.samples), block=1 << 30)
    assert whole.size == -(-source.samples // FRAME)
    assert whole.max() > 0.5
    blocks = detector().probabilities(source.read(0, source.samples), block=frames * FRAME)
    assert np.allclose(blocks, whole, atol=2e-4)
    listened = detector().listen(source).speech
    assert np.allclose(listened[64:], whole[64:], atol=2e-4)
    assert (listened[:64] >= whole[:64] - 2e-4).all()


def test_blocks_equal_the_model_run_frame_by_frame() -> None:
    """The plainest reading of Silero: every frame with the 64 samples before it, state carried."""
    audio = babble(4)
    session = onnxruntime.InferenceSession(
        str(speech._model_path()), providers=["CPUExecutionProvider"]
    )
    h: Any = np.zeros((1, 1, 128), np.float32)
    c: Any = np.zeros((1, 1, 128), np.float32)
    padded = np.concatenate([np.zeros(64, np.float32), audio, np.zeros(FRAME, np.float32)])
    expected = []
    for start in range(0, audio.size, FRAME):
        window = padded[None, start : start + 64 + FRAME]
        out, h, c = session.run(None, {"input": window, "h": h, "c": c})
        expected.append(float(np.asarray(out).reshape(-1)[0]))
    assert np.allclose(detector().probabilities(audio), expected, atol=1e-4)


def test_no_audio_is_no_probabilities() -> None:
    assert detector().probabilities(np.zeros(0, np.float32)).size == 0


def test_detection_stops_between_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def cancelled() -> bool:
        nonlocal calls
        calls += 1
        return calls > 2

    source = waveform(tmp_path / "pcm", np.zeros(400 * SECOND, np.float32))
    with pytest.raises(Cancelled):
        plan_windows(source, Options(), detector(), cancelled)
    assert calls == 3
    calls = 0
    off = Options(vad=VadOptions(enabled=False))
    with pytest.raises(Cancelled):
        plan_windows(source, off, detector(), cancelled)


@pytest.mark.parametrize("kind", ["silence", "hum", "noise", "clicks", "nothing"])
def test_no_speech_is_no_window(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    size = 40 * SECOND
    audio = {
        "silence": np.zeros(size),
        "hum": 0.2 * np.sign(tone(40, 50, 1)),
        "noise": 0.1 * rng.standard_normal(size),
        "clicks": 0.8 * (rng.random(size) < 0.0005),
        "nothing": np.zeros(0),
    }[kind]
    source = waveform(tmp_path / "pcm", np.asarray(audio, np.float32))
    assert plan_windows(source, Options(), detector()) == []
    assert detector().find_speech(source, VadOptions()) == []


def test_speech_between_silences_is_found_where_it_is(tmp_path: Path) -> None:
    audio = np.concatenate([np.zeros(5 * SECOND), babble(4), np.zeros(5 * SECOND)])
    source = waveform(tmp_path / "pcm", audio.astype(np.float32))
    (window,) = plan_windows(source, Options(), detector())
    assert window.start == pytest.approx(4.7 * SECOND, abs=0.35 * SECOND)
    assert window.stop == pytest.approx(9.3 * SECOND, abs=0.35 * SECOND)
    assert window.voiced == pytest.approx(window.duration, abs=1.5)
    assert detector().find_speech(source, VadOptions()) == list(window.spans)


@with_data
def test_lone_digits_survive_the_defaults(tmp_path: Path) -> None:
    files = sorted((DATA / "digits-human").glob("*.wav"))
    assert len(files) == 300
    lost = [
        file.name
        for file in files
        if not plan_windows(waveform(tmp_path / "pcm", load(file)), Options(), detector())
    ]
    assert len(lost) <= 6, lost


@with_data
def test_real_speech_is_covered(tmp_path: Path) -> None:
    audio = load(DATA / "speech-real" / "jfk.flac")
    source = waveform(tmp_path / "pcm", audio)
    (window,) = plan_windows(source, Options(), detector())
    assert window.start < 0.6 * SECOND
    assert window.stop > 10 * SECOND
    assert window.voiced > 7


# --- probabilities to spans -----------------------------------------------------------------


def curve(*parts: tuple[float, int]) -> Values:
    return np.concatenate([np.full(frames, value, np.float32) for value, frames in parts])


def test_hysteresis_and_padding() -> None:
    vad = VadOptions(threshold=0.5, min_silence_ms=320, speech_pad_ms=64, min_speech_ms=96)
    probabilities = curve((0, 20), (0.6, 5), (0.4, 9), (0.6, 3), (0.1, 9), (0.6, 1), (0, 40))
    assert find_spans(probabilities, 87 * FRAME, vad) == [(18 * FRAME, 49 * FRAME)]


def test_short_sounds_are_dropped_and_long_silence_divides() -> None:
    vad = VadOptions(min_silence_ms=320, speech_pad_ms=0, min_speech_ms=96)
    probabilities = curve((0.9, 10), (0, 20), (0.9, 2), (0, 20), (0.9, 10))
    spans = find_spans(probabilities, 62 * FRAME - 100, vad)
    assert spans == [(0, 10 * FRAME), (52 * FRAME, 62 * FRAME - 100)]


def test_padding_of_neighbours_meets_half_way() -> None:
    vad = VadOptions(min_silence_ms=64, speech_pad_ms=1000, min_speech_ms=0)
    probabilities = curve((0, 2), (0.9, 10), (0, 5), (0.9, 10), (0, 2))
    assert find_spans(probabilities, 29 * FRAME, vad) == [
        (0, 14 * FRAME + FRAME // 2),
        (14 * FRAME + FRAME // 2, 29 * FRAME),
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.3, 0.4, 0.5, 0.9]), st.integers(1, 60)), max_size=30
    ),
    st.integers(0, FRAME - 1),
    st.integers(0, 2000),
    st.integers(0, 1000),
    st.integers(32, 2000),
)
def test_spans_are_ordered_and_inside(
    parts: list[tuple[float, int]], cut: int, pad: int, shortest: int, silence: int
) -> None:
    probabilities = curve(*parts) if parts else np.zeros(0, np.float32)
    samples = max(0, probabilities.size * FRAME - cut)
    spans = find_spans(
        probabilities,
        samples,
        VadOptions(speech_pad_ms=pad, min_speech_ms=shortest, min_silence_ms=silence),
    )
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges)
    assert all(0 <= start < stop <= samples for start, stop in spans)


# --- VAD off --------------------------------------------------------------------------------


def planned(source: Waveform, seconds: float) -> list[Window]:
    options = Options(vad=VadOptions(enabled=False), chunk_length_s=seconds)
    return plan_windows(source, options, detector())


def test_without_vad_everything_is_tiled_and_cut_at_quiet_places(tmp_path: Path) -> None:
    audio = tone(95.3, 200, 0.4)
    for second in (26, 51, 77):
        audio[second * SECOND : second * SECOND + 3000] = 0
    windows = planned(waveform(tmp_path / "pcm", audio), 30)
    assert windows[0].start == 0
    assert windows[-1].stop == audio.size
    for one, other in itertools.pairwise(windows):
        assert one.stop == other.start
    for window, second in zip(windows, (26, 51, 77), strict=False):
        assert second * SECOND <= window.stop <= second * SECOND + 3000


def test_without_vad_a_short_file_is_one_window(tmp_path: Path) -> None:
    (window,) = planned(waveform(tmp_path / "pcm", np.zeros(SECOND, np.float32)), 30)
    assert (window.start, window.stop, window.voiced) == (0, SECOND, 1.0)


def runs_frame_by_frame(
    speech: Values, threshold: float, low: float, silence: int
) -> Iterator[tuple[int, int]]:
    start, quiet = -1, 0
    for frame, value in enumerate(speech.tolist()):
        if value >= threshold and start < 0:
            start, quiet = frame, 0
        elif start >= 0:
            quiet = quiet + 1 if value < low else 0
            if quiet >= silence:
                yield start, frame + 1 - quiet
                start = -1
    if start >= 0:
        yield start, speech.size - quiet


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.35, 0.4, 0.5, 0.6, 1.0]), max_size=60),
    st.integers(1, 6),
)
def test_runs_are_those_that_one_finds_frame_by_frame(values: list[float], silence: int) -> None:
    speech = np.array(values, np.float32)
    expected = list(runs_frame_by_frame(speech, 0.5, 0.35, silence))
    assert list(_all_runs(speech, 0.5, 0.35, silence)) == expected
