"""What a decode process does: find out what a file is, and turn it into PCM on disk.

Runs in killable child processes only (``decode``), so that a hostile file costs one request.
libav sees a nameless byte stream, a list of allowed demuxers and no protocols: playlists and
concat scripts cannot make it read anything else.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from whisper_api.audio.media import DEMUXERS
from whisper_api.audio.preprocess import LEAD, TAIL, OldChain, loudness_gain, run_chain, write_gain
from whisper_api.errors import AudioTooLong, AudioTooShort, UndecodableAudio
from whisper_api.types import SAMPLE_RATE

SHORTEST = 0.1
"""Seconds; OpenAI's minimum."""
_BAD_PACKETS = 200
"""Packets that may fail before a file counts as broken."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What libav finds in a file."""

    container: str
    codec: str
    duration: float | None  #: seconds the container claims
    sample_rate: int
    channels: int


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """One file to decode into ``target`` (s16le, mono, 16 kHz)."""

    source: Path
    target: Path
    max_seconds: float
    chain: OldChain | None = None
    loudness: bool = False


@dataclass(frozen=True, slots=True)
class DecodeResult:
    """Samples written, artificial silence included, and the largest absolute one (0..1)."""

    samples: int
    peak: float
    lead: int = 0
    tail: int = 0


class _Nameless(io.RawIOBase):
    """A file without a name, so that libav can judge by content only."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def limit_process(memory_mb: int) -> None:
    """Child start-up: cap memory, forbid core dumps, end with the parent (where possible)."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes
        import signal

        size = memory_mb * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def probe_file(path: Path) -> Probe:
    """What ``path`` holds.

    Raises:
        UndecodableAudio: nothing that the allowed demuxers know, or no sound in it.
    """
    with path.open("rb") as file, _open(file) as container:
        stream = _audio_stream(container)
        codec = stream.codec_context
        return Probe(
            container=container.format.name,
            codec=codec.name,
            duration=_claimed(container, stream),
            sample_rate=codec.sample_rate or 0,
            channels=codec.channels or 0,
        )


def decode_file(job: DecodeJob) -> DecodeResult:
    """Decode, resample and preprocess one file.

    Raises:
        UndecodableAudio, AudioTooShort, AudioTooLong.
    """
    rate = job.chain.rate if job.chain is not None else SAMPLE_RATE
    first = job.target.with_name(job.target.name + ".1")
    plain = job.chain is None and not job.loudness
    samples, peak = _to_pcm(job, job.target if plain else first, rate)
    if samples == 0:
        raise UndecodableAudio("The audio file holds no sound that could be decoded.")
    if samples < SHORTEST * rate:
        raise AudioTooShort(
            f"The audio is too short: {samples / rate:.3f} seconds; "
            f"at least {SHORTEST} seconds are needed."
        )
    if plain:
        return DecodeResult(samples, peak)
    try:
        if job.chain is not None:
            written, peak = run_chain(job.chain, first, job.target, peak)
            return DecodeResult(written, peak, LEAD, TAIL)
        gain = loudness_gain(first, peak)
        write_gain(first, job.target, gain)
        return DecodeResult(samples, min(1.0, peak * gain))
    finally:
        first.unlink(missing_ok=True)


def _open(file: BinaryIO) -> InputContainer:
    options = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "none"}
    try:
        return av.open(_Nameless(file), mode="r", options=options, metadata_errors="ignore")
    except (av.error.FFmpegError, ValueError, OSError, EOFError) as error:
        raise UndecodableAudio from error


def _audio_stream(container: InputContainer) -> AudioStream:
    if not container.streams.audio:
        raise UndecodableAudio("The file holds no audio stream.")
    stream = container.streams.audio[0]
    rate = stream.codec_context.sample_rate
    if rate and not 1_000 <= rate <= 768_000:
        raise UndecodableAudio(f"A sample rate of {rate} Hz is not supported (1 to 768 kHz are).")
    return stream


def _claimed(container: InputContainer, stream: AudioStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        seconds = container.duration / 1_000_000
    else:
        return None
    return seconds if 0 <= seconds < 1e9 else None


def _to_pcm(job: DecodeJob, target: Path, rate: int) -> tuple[int, float]:
    """Pass one: the file as mono s16 at ``rate``; samples written and their peak."""
    limit = int(job.max_seconds * rate)
    samples, peak = 0, 0
    with job.source.open("rb") as file, _open(file) as container, target.open("wb") as out:
        stream = _audio_stream(container)
        for block in _resampled(_frames(container, stream), rate):
            samples += block.size
            if samples > limit:
                raise AudioTooLong(
                    f"The audio is longer than this server allows ({job.max_seconds:.0f} seconds)."
                )
            peak = max(peak, int(block.max()), -int(block.min()))
            out.write(block.tobytes())
    return samples, min(1.0, peak / 32768)


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Decoded frames; packets that cannot be decoded are passed over, as players do."""
    bad = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            yield from packet.decode()
        except EOFError:
            return
        except (av.error.FFmpegError, ValueError) as error:
            bad += 1
            if bad > _BAD_PACKETS:
                raise UndecodableAudio from error


def _resampled(
    frames: Iterator[AudioFrame], rate: int
) -> Iterator[np.ndarray[Any, np.dtype[np.int16]]]:
    """Mono s16 blocks at ``rate``; a stream may change its own format on the way."""
    resampler, shape = None, None
    try:
        for frame in frames:
            now = (frame.format.name, frame.layout.name, frame.sample_rate)
            if resampler is None or now != shape:
                if resampler is not None:
                    yield from _blocks(resampler, None)
                resampler = AudioResampler(format="s16", layout="mono", rate=rate)
                shape = now
            frame.pts = None
            yield from _blocks(resampler, frame)
        if resampler is not None:
            yield from _blocks(resampler, None)
    except (av.error.FFmpegError, ValueError) as error:
        raise UndecodableAudio from error


def _blocks(
    resampler: AudioResampler, frame: AudioFrame | None
) -> Iterator[np.ndarray[Any, np.dtype[np.int16]]]:
    for out in resampler.resample(frame):
        if out.samples:
            yield np.frombuffer(memoryview(out.planes[0])[: 2 * out.samples], "<i2")
