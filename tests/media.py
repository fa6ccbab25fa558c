"""Audio files made on the fly: every format the server promises, and broken ones."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from numpy.typing import NDArray

from whisper_api.types import SAMPLE_RATE, Audio, Waveform

FORMATS: dict[str, tuple[str, str, str, int]] = {
    "wav": ("wav", "pcm_s16le", "wav", 16_000),
    "wav-24": ("wav", "pcm_s24le", "wav", 48_000),
    "wav-mulaw": ("wav", "pcm_mulaw", "wav", 8_000),
    "mp3": ("mp3", "libmp3lame", "mp3", 44_100),
    "mp2": ("mp2", "mp2", "mpga", 44_100),
    "m4a": ("ipod", "aac", "m4a", 44_100),
    "m4a-alac": ("ipod", "alac", "m4a", 44_100),
    "mp4": ("mp4", "aac", "mp4", 48_000),
    "mov": ("mov", "aac", "mov", 48_000),
    "3gp": ("3gp", "libopencore_amrnb", "3gp", 8_000),
    "ogg-opus": ("ogg", "libopus", "ogg", 48_000),
    "ogg-vorbis": ("ogg", "vorbis", "oga", 44_100),
    "ogg-flac": ("ogg", "flac", "ogg", 44_100),
    "flac": ("flac", "flac", "flac", 44_100),
    "webm": ("webm", "libopus", "webm", 48_000),
    "mka": ("matroska", "aac", "mka", 44_100),
    "aac": ("adts", "aac", "aac", 44_100),
    "amr": ("amr", "libopencore_amrnb", "amr", 8_000),
    "wma": ("asf", "wmav2", "wma", 44_100),
    "aiff": ("aiff", "pcm_s16be", "aiff", 44_100),
    "caf": ("caf", "pcm_s16le", "caf", 44_100),
    "au": ("au", "pcm_s16be", "au", 44_100),
    "ac3": ("ac3", "ac3", "ac3", 48_000),
    "ts": ("mpegts", "aac", "ts", 48_000),
    "avi": ("avi", "libmp3lame", "avi", 44_100),
    "w64": ("w64", "pcm_s16le", "w64", 16_000),
}
"""Name -> container, codec, file ending, samples per second."""


def tone(seconds: float, hertz: float = 440.0, level: float = 0.3) -> Audio:
    """A sine wave."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (level * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def make(name: str, audio: Audio) -> bytes:
    """``audio`` in one of ``FORMATS``."""
    container, codec, _, rate = FORMATS[name]
    return encode(audio, container, codec, rate=rate)


def recorded(audio: Audio) -> bytes:
    """``audio`` as browsers record it: WebM that does not say how long it is."""
    return encode(audio, "webm", "libopus", rate=48_000, options={"live": "1"})


def claiming(audio: Audio, seconds: float) -> bytes:
    """``audio`` in WebM whose head claims another length."""
    data = encode(audio, "webm", "libopus", rate=48_000)
    at = data.index(b"\x44\x89\x88") + 3  # Duration, eight bytes: milliseconds
    return data[:at] + struct.pack(">d", 1000 * seconds) + data[at + 8 :]


def encode(
    audio: Audio,
    container: str,
    codec: str,
    *,
    rate: int = SAMPLE_RATE,
    channels: int = 1,
    video: bool = False,
    metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """16 kHz mono ``audio`` as a whole file of libav's ``container`` and ``codec``."""
    target = io.BytesIO()
    with av.open(target, "w", format=container, options=options or {}) as out:
        out.metadata.update(metadata or {})
        picture = out.add_stream("mpeg4", rate=5) if video else None
        stream = out.add_stream(codec, rate=rate, layout="stereo" if channels == 2 else "mono")
        assert isinstance(stream, AudioStream)
        if codec == "wmav2":
            stream.bit_rate = 64_000
        if codec == "vorbis":
            stream.codec_context.layout = "stereo"
            stream.codec_context.options = {"strict": "experimental"}
        if picture is not None:
            _show(out, picture, round(5 * audio.size / SAMPLE_RATE))
        _play(out, stream, audio, rate)
    return target.getvalue()


def _play(out: OutputContainer, stream: AudioStream, audio: Audio, rate: int) -> None:
    context = stream.codec_context
    context.open(strict=False)
    resampler = av.AudioResampler(
        format=context.format, layout=context.layout, rate=rate, frame_size=context.frame_size
    )
    frame = AudioFrame.from_ndarray(audio[None, :], format="flt", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), 0
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        out.mux(stream.encode(piece))
    out.mux(stream.encode(None))


def _show(out: OutputContainer, stream: av.VideoStream, count: int) -> None:
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    for index in range(count):
        picture = np.full((64, 64, 3), index % 256, np.uint8)
        out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    out.mux(stream.encode(None))


def wav(samples: NDArray[np.int16], rate: int = SAMPLE_RATE) -> bytes:
    """A plain wav file, also with rates that no encoder would take."""
    data = samples.astype("<i2").tobytes()
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16),
        *(b"data", len(data)),
    )
    return head + data


def waveform(path: Path, audio: Audio, *, lead: int = 0, tail: int = 0) -> Waveform:
    """``audio`` as decoded PCM on disk."""
    pcm = np.clip(np.rint(audio * 32768), -32768, 32767).astype("<i2")
    path.write_bytes(pcm.tobytes())
    peak = float(np.abs(pcm.astype(np.int32)).max()) / 32768 if pcm.size else 0.0
    return Waveform(path, pcm.size, lead, tail, peak)
