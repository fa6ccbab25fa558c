"""The old chain against sox's own output, loudness alone, and sox's parameter syntax."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.media import tone, waveform

from whisper_api.audio.libav import decode_pcm
from whisper_api.audio.preprocess import (
    CEILING_DB,
    DEFAULT_COMPAND,
    TARGET_LUFS,
    Chain,
    measure_loudness,
    normalise_loudness,
    parse_compand,
    run_chain,
)
from whisper_api.config import Settings
from whisper_api.errors import SettingsError
from whisper_api.types import SAMPLE_RATE, Audio

SOX = Path(__file__).parents[1] / "data" / "sox"
OLD = "0.3,1 -90,-90,-70,-50,-40,-15,0,0 -7 0 0.15"
CHAINS = {
    "old": Chain(8000, -0.55, OLD),
    "default": Chain(),
    "wide": Chain(16_000, -3, "0.1,0.5 6:-70,-60,-20 -5 -90 0.1"),
}


def load(path: Path) -> Audio:
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    with av.open(path) as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32)


def level(audio: NDArray[np.float32]) -> float:
    return float(10 * np.log10(np.mean(np.square(audio))))


def through(chain: Chain, source: Path, folder: Path) -> tuple[Audio, int, int]:
    raw = decode_pcm(source, folder / "raw", chain.rate, 60)
    pcm, lead, tail = run_chain(folder / "raw", folder / "out", raw.peak, chain)
    samples = np.fromfile(folder / "out", "<i2")
    assert samples.size == pcm.samples
    assert np.abs(samples.astype(int)).max() == pcm.peak
    return (samples / 32768).astype(np.float32), lead, tail


@pytest.mark.parametrize("name", CHAINS)
def test_chain_equals_sox(name: str, tmp_path: Path) -> None:
    ours, lead, tail = through(CHAINS[name], SOX / "input.flac", tmp_path)
    theirs = load(SOX / f"{name}.flac")
    assert abs(ours.size - theirs.size) <= 64
    size = min(ours.size, theirs.size)
    assert np.corrcoef(ours[:size], theirs[:size])[0, 1] > 0.99
    assert abs(level(ours[:size]) - level(theirs[:size])) < 0.5
    # Also where it is quiet, where compression does most of its work.
    for start in range(lead, size - tail, SAMPLE_RATE // 2):
        part = slice(start, start + SAMPLE_RATE // 2)
        if level(theirs[part]) > -60:
            assert abs(level(ours[part]) - level(theirs[part])) < 0.7, start


def test_padding_is_exact_silence(tmp_path: Path) -> None:
    ours, lead, tail = through(CHAINS["old"], SOX / "input.flac", tmp_path)
    assert (lead, tail) == (2 * SAMPLE_RATE, SAMPLE_RATE)
    assert not ours[:lead].any()
    assert not ours[-tail:].any()
    assert ours[lead:-tail].any()


def test_chain_leaves_silence_silent(tmp_path: Path) -> None:
    source = waveform(tmp_path / "silence", np.zeros(8000, np.float32))
    pcm, _, _ = run_chain(source.path, tmp_path / "out", 0, Chain())
    assert pcm.samples == 4 * SAMPLE_RATE
    assert pcm.peak <= 1


def test_naming_one_setting_turns_on_the_whole_chain() -> None:
    assert Chain.of(Settings()) is None
    assert Chain.of(Settings(norm_level=-3)) == Chain(8000, -3, DEFAULT_COMPAND)
    assert Chain.of(Settings(norm_level=0)) == Chain(8000, 0, DEFAULT_COMPAND)
    assert Chain.of(Settings(audio_rate=16_000)) == Chain(16_000, -0.5, DEFAULT_COMPAND)
    assert Chain.of(Settings(compand_params=OLD)) == Chain(8000, -0.5, OLD)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            OLD,
            "attacks=0.3:decays=1:points=-90/-90|-70/-50|-40/-15|0/0:soft-knee=0.01"
            ":gain=-7:volume=0:delay=0.15",
        ),
        (
            "0.1,0.2 6:-70,-60,-20",
            "attacks=0.1:decays=0.2:points=-70/-70|-60/-20:soft-knee=6:gain=0:volume=0:delay=0",
        ),
        (
            "0,0.5,0.1,0.2 -60,-30 3 -90",
            "attacks=0:decays=0.5:points=-60/-30:soft-knee=0.01:gain=3:volume=-90:delay=0",
        ),
    ],
)
def test_sox_syntax(text: str, expected: str) -> None:
    assert parse_compand(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.3,1",
        "0.3 -90,-90",
        "a,b -90,-90",
        "0.3,1 -90,x",
        "0.3,1 -40,-40,-70,-50 1",
        "0.3,1 nan",
        "0.3,1 -9,-9 1 2 3 4",
        "-1,1 -90,-90",
        "0.3,1 -90,-90 -7 0 99",
        "0.3,1 -90,-90 1,2",
        "0.3,1 -90,-90:afade=t=in",
        "0.3,1 -90,-90,5,5",
    ],
)
def test_other_syntax_is_one_clear_line(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^compand_params: .*sox") as caught:
        parse_compand(text)
    assert "\n" not in caught.value.message
    if text:
        with pytest.raises(SettingsError):
            Chain.of(Settings(compand_params=text))


@pytest.mark.parametrize("start", [-40.0, -30.0, -6.0])
def test_loudness_reaches_its_target(start: float, tmp_path: Path) -> None:
    audio = tone(3, 1000, 10 ** (start / 20))
    source = waveform(tmp_path / "pcm", audio)
    peak = normalise_loudness(source.path, round(source.peak * 32768))
    loudness = measure_loudness(source.path)
    assert loudness == pytest.approx(TARGET_LUFS, abs=0.3)
    samples = np.fromfile(source.path, "<i2")
    assert samples.size == audio.size
    assert abs(int(np.abs(samples.astype(int)).max()) - peak) <= 1


def test_loudness_never_clips(tmp_path: Path) -> None:
    audio = tone(5, 300, 0.002)
    audio[1000] = -0.9
    source = waveform(tmp_path / "pcm", audio)
    normalise_loudness(source.path, round(source.peak * 32768))
    samples = np.fromfile(source.path, "<i2").astype(np.float32) / 32768
    assert np.abs(samples).max() == pytest.approx(10 ** (CEILING_DB / 20), abs=0.001)
    assert np.corrcoef(samples, audio)[0, 1] > 0.9999


def test_loudness_leaves_silence_alone(tmp_path: Path) -> None:
    for number, audio in enumerate([np.zeros(SAMPLE_RATE, np.float32), tone(2, 500, 0.0001)]):
        source = waveform(tmp_path / str(number), audio)
        before = source.path.read_bytes()
        assert measure_loudness(source.path) is None
        assert normalise_loudness(source.path, round(source.peak * 32768)) <= 4
        assert source.path.read_bytes() == before


def test_loudness_of_a_clip_shorter_than_a_measuring_block(tmp_path: Path) -> None:
    source = waveform(tmp_path / "pcm", tone(0.2, 1000, 0.01))
    before = measure_loudness(source.path)
    assert before is not None
    normalise_loudness(source.path, round(source.peak * 32768))
    after = measure_loudness(source.path)
    assert after is not None
    assert after > before + 6
