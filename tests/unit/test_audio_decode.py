"""Decoding: every format, every limit, and workers that die without taking anything along."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.intake import LIMITS, decode, on_disk, own
from tests.media import FORMATS, claiming, encode, make, recorded, tone, wav

from whisper_api.audio.decode import Decoder
from whisper_api.audio.libav import Pcm, decode_pcm, measure
from whisper_api.audio.scratch import Scratch
from whisper_api.errors import (
    AudioTooLong,
    AudioTooShort,
    RequestError,
    SettingsError,
    UndecodableAudio,
)
from whisper_api.types import SAMPLE_RATE, Waveform

CODECS = {"libmp3lame": "mp3", "libopus": "opus", "libopencore_amrnb": "amr_nb"}
"""libav's name of the codec, where it is not the encoder's."""


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return LIMITS


def dominant(waveform: Waveform) -> float:
    samples = waveform.read(waveform.lead, waveform.samples - waveform.tail)
    spectrum = np.abs(np.fft.rfft(samples))
    return float(spectrum.argmax()) * SAMPLE_RATE / samples.size


@pytest.mark.parametrize("name", FORMATS)
async def test_every_format(name: str, decoder: Decoder, scratch: Scratch) -> None:
    data = make(name, tone(1.5))
    probe = await decoder.probe(on_disk(scratch, data).path)
    assert probe.codec == CODECS.get(FORMATS[name][1], FORMATS[name][1])
    assert probe.mime.startswith(("audio/", "video/"))
    assert probe.rate == FORMATS[name][3]
    assert probe.duration is None or probe.duration == pytest.approx(1.5, abs=0.2)
    assert await decoder.measure(on_disk(scratch, data).path, 1) == pytest.approx(1.5, abs=0.1)
    waveform = await decode(decoder, scratch, data)
    assert waveform.duration == pytest.approx(1.5, abs=0.12)
    assert dominant(waveform) == pytest.approx(440, abs=3)
    samples = waveform.read(0, waveform.samples)
    assert float(np.sqrt(np.mean(samples**2))) == pytest.approx(0.3 / 2**0.5, rel=0.35)
    assert waveform.peak == pytest.approx(float(np.abs(samples).max()), abs=0.001)
    assert waveform.damaged == 0


async def test_a_length_that_is_not_claimed_or_not_true_is_measured(
    decoder: Decoder, scratch: Scratch
) -> None:
    cut = recorded(tone(2))[:-900]
    for data, seconds in ((recorded(tone(3)), 3), (claiming(tone(4), 1), 4), (cut, 1.8)):
        file = on_disk(scratch, data)
        claimed = (await decoder.probe(file.path)).duration
        assert claimed is None or claimed < seconds - 1
        assert await decoder.measure(file.path, file.size) == pytest.approx(seconds, abs=0.3)
    assert await decoder.measure(on_disk(scratch, b"RIFF" * 50).path, 200) is None


async def test_measuring_ends_behind_the_longest_audio_that_is_let_in(root: Path) -> None:
    with Scratch.create(root) as scratch:
        file = on_disk(scratch, recorded(tone(20)))
        assert 5 < measure(file.path, 5) < 6
        assert measure(file.path, 1000) == pytest.approx(20, abs=0.1)


async def test_sound_of_a_video(decoder: Decoder, scratch: Scratch) -> None:
    data = encode(tone(2), "mp4", "aac", rate=48_000, video=True)
    probe = await decoder.probe(on_disk(scratch, data).path)
    assert probe.video
    assert dominant(await decode(decoder, scratch, data)) == pytest.approx(440, abs=2)


async def test_stereo_is_mixed(decoder: Decoder, scratch: Scratch) -> None:
    waveform = await decode(decoder, scratch, encode(tone(1), "wav", "pcm_s16le", channels=2))
    assert waveform.samples == SAMPLE_RATE
    assert dominant(waveform) == pytest.approx(440, abs=2)


async def test_lossless_samples_come_back_unchanged(decoder: Decoder, scratch: Scratch) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32767, 5 * SAMPLE_RATE).astype(np.int16)
    waveform = await decode(decoder, scratch, wav(samples))
    assert waveform.samples == samples.size
    back = waveform.read(0, samples.size)
    assert np.array_equal(back, samples.astype(np.float32) / 32768)


async def test_tags_in_an_old_code_page(decoder: Decoder, scratch: Scratch) -> None:
    tagged = encode(tone(0.5), "wav", "pcm_s16le", metadata={"title": "Title"})
    data = tagged.replace(b"Title", "Песня".encode("cp1251"))
    assert data != tagged
    assert (await decode(decoder, scratch, data)).duration == pytest.approx(0.5, abs=0.01)


async def test_old_chain_pads_and_keeps_the_duration(root: Path, scratch: Scratch) -> None:
    decoder = own(audio_rate=8000)
    try:
        waveform = await decode(decoder, scratch, make("wav", tone(1.5)))
    finally:
        decoder.close()
    assert (waveform.lead, waveform.tail) == (2 * SAMPLE_RATE, SAMPLE_RATE)
    assert waveform.duration == pytest.approx(1.5, abs=0.002)
    assert waveform.seconds(waveform.lead + SAMPLE_RATE) == 1.0
    assert dominant(waveform) == pytest.approx(440, abs=3)
    assert list(scratch.folder.glob("*.first")) == []


async def test_loudness_only_when_asked(decoder: Decoder, scratch: Scratch) -> None:
    quiet = make("wav", tone(2, level=0.01))
    assert (await decode(decoder, scratch, quiet)).peak == pytest.approx(0.01, abs=0.001)
    loud = await decode(decoder, scratch, quiet, loudness=True)
    assert loud.peak == pytest.approx(0.14, abs=0.03)
    assert loud.samples == 2 * SAMPLE_RATE


def test_wrong_compand_is_told_at_the_start(root: Path) -> None:
    with pytest.raises(SettingsError, match="compand_params"):
        own(compand_params="nonsense")


@pytest.mark.parametrize(
    ("samples", "rate", "error"),
    [
        (0, SAMPLE_RATE, UndecodableAudio),
        (1599, SAMPLE_RATE, AudioTooShort),
        (61 * SAMPLE_RATE, SAMPLE_RATE, AudioTooLong),
        (50_000, 1, AudioTooLong),
        (500_000, 8, AudioTooLong),
        (1000, 0, UndecodableAudio),
    ],
)
async def test_length_limits(
    samples: int, rate: int, error: type[RequestError], decoder: Decoder, scratch: Scratch
) -> None:
    with pytest.raises(error) as caught:
        await decode(decoder, scratch, wav(np.zeros(samples, np.int16), rate))
    if error is AudioTooLong:
        assert "60 seconds" in caught.value.message
    assert sum(path.stat().st_size for path in scratch.folder.glob("pcm*")) < 70 * SAMPLE_RATE * 2


async def test_a_tenth_of_a_second_is_enough(decoder: Decoder, scratch: Scratch) -> None:
    data = wav(np.zeros(1600, np.int16))
    assert (await decode(decoder, scratch, data)).samples == 1600


async def test_a_small_file_of_much_silence(decoder: Decoder, scratch: Scratch) -> None:
    silence = np.zeros(600 * SAMPLE_RATE, np.float32)
    data = encode(silence, "flac", "flac")
    assert len(data) < 150_000
    with pytest.raises(AudioTooLong):
        await decode(decoder, scratch, data)


async def test_damage_in_the_middle_is_counted(decoder: Decoder, scratch: Scratch) -> None:
    data = bytearray(make("mp3", tone(10)))
    data[30_000:36_000] = os.urandom(6_000)
    waveform = await decode(decoder, scratch, bytes(data))
    assert waveform.duration > 8
    assert waveform.damaged > 0


def test_more_broken_than_whole_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").write_bytes(make("wav", tone(1)))
    from whisper_api.audio import libav

    real = libav._frames

    def mostly_broken(container: Any, stream: Any, pcm: Pcm) -> Any:
        yield from real(container, stream, pcm)
        pcm.damaged = 1000

    monkeypatch.setattr(libav, "_frames", mostly_broken)
    with pytest.raises(UndecodableAudio):
        decode_pcm(tmp_path / "in", tmp_path / "out", SAMPLE_RATE, 60)
