"""The only place that opens a caller's bytes: PyAV behind two locks, in the decode worker.

libav can read playlists and scripts that name other files or URLs. Two locks keep it to the
bytes it was given: only the containers of ``media.DEMUXERS`` are allowed, and no
protocol is, because it reads from a file object whose name is ours.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from whisper_api.audio.envelope import PeakMeter
from whisper_api.audio.media import DEMUXERS, mime_of
from whisper_api.audio.probe import Probe
from whisper_api.errors import AudioTooLong, AudioTooShort, UndecodableAudio

_OPTIONS = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "none"}
_LEAST_SECONDS = 0.1
MEASURE_SECONDS = 5.0
"""Longest time that counting a file's packets takes: about ten hours of audio."""
OPUS_RATE = 48_000
OPUS_BITS = 40_000
"""Bits per second of transcoded audio: speech loses nothing that one hears."""
Samples = NDArray[np.int16]
_NO_AUDIO = "The file holds no audio that could be decoded."


@dataclass(slots=True)
class Pcm:
    """What a pass over the audio has written so far."""

    samples: int = 0
    peak: int = 0  #: largest absolute 16-bit sample
    damaged: int = 0  #: packets that could not be decoded and were left out


def probe(path: Path) -> Probe:
    """Container, codec and claimed duration of the first audio stream.

    Raises:
        UndecodableAudio: not audio, broken, or a format this server does not read.
    """
    with _opened(path) as (container, stream, head):
        context = stream.codec_context
        brand = container.metadata.get("major_brand", "")
        return Probe(
            container=container.format.name,
            codec=context.codec.canonical_name,
            mime=mime_of(container.format.name, brand, head),
            duration=_claimed(container, stream),
            rate=context.rate or 0,
            channels=context.channels or 0,
            video=any(not _is_cover(item.disposition) for item in container.streams.video),
        )


def measure(path: Path, most: float) -> float:
    """Seconds of the first audio stream by its packets, without decoding them.

    Counting ends behind ``most`` seconds of audio, or after ``MEASURE_SECONDS`` of work: it is so
    much at least then.

    Raises:
        UndecodableAudio: not audio, broken, or a format this server does not read.
    """
    total, last, until = 0.0, None, time.monotonic() + MEASURE_SECONDS
    with _opened(path) as (container, stream, _):
        try:
            for packet in container.demux(stream):
                unit = float(packet.time_base or 0)
                if packet.duration:
                    total += packet.duration * unit
                elif packet.pts is not None and last is not None:
                    total += max(0.0, (packet.pts - last) * unit)
                last = packet.pts if packet.pts is not None else last
                if total > most or time.monotonic() > until:
                    break
        except av.error.InvalidDataError:
            pass  # as decoding: what came before it counts
    return round(total, 3)


def decode_pcm(
    path: Path, target: Path, rate: int, max_seconds: float, meter: PeakMeter | None = None
) -> Pcm:
    """Write the first audio stream to ``target`` as 16-bit mono at ``rate``; bounded memory.

    ``meter`` sees every sample. Packets that cannot be decoded are left out and counted, as
    players do.

    Raises:
        AudioTooShort: under 0.1 s.
        AudioTooLong: over ``max_seconds``, noticed while decoding.
        UndecodableAudio: no sample came out, or more was broken than whole.
    """
    pcm = Pcm()

    def expect(samples: float) -> None:
        # One frame of a file with a rate of 1 Hz may stand for a day: it must not be built.
        if pcm.samples + samples > (max_seconds + 1) * rate:
            raise too_long(max_seconds)

    with _opened(path) as (container, stream, _), target.open("wb") as out:
        whole = 0
        for frame in _mono(_frames(container, stream, pcm), rate, expect):
            whole += 1
            block = np.frombuffer(memoryview(frame.planes[0])[: 2 * frame.samples], "<i2")
            write_block(out, block, pcm)
            if meter is not None:
                meter.add(block.copy())
            if pcm.samples > max_seconds * rate:
                raise too_long(max_seconds)
    if not pcm.samples or pcm.damaged > whole:
        raise UndecodableAudio(_NO_AUDIO)
    if pcm.samples < _LEAST_SECONDS * rate:
        raise AudioTooShort
    return pcm


def transcode(path: Path, target: Path, max_seconds: float) -> None:
    """Write the first audio stream to ``target`` as Opus in WebM, which every browser plays.

    Raises:
        AudioTooLong: over ``max_seconds``, noticed on the way.
        UndecodableAudio: no sample came out.
    """
    pcm = Pcm()

    def expect(samples: float) -> None:
        if pcm.samples + samples > (max_seconds + 1) * OPUS_RATE:
            raise too_long(max_seconds)

    with _opened(path) as (container, stream, _), av.open(str(target), "w", "webm") as sink:
        opus = sink.add_stream("libopus", rate=OPUS_RATE, layout="mono")
        assert isinstance(opus, AudioStream)
        opus.bit_rate = OPUS_BITS
        for frame in _mono(_frames(container, stream, pcm), OPUS_RATE, expect):
            frame.pts, frame.time_base = pcm.samples, Fraction(1, OPUS_RATE)
            pcm.samples += frame.samples
            sink.mux(opus.encode(frame))
        sink.mux(opus.encode(None))
    if not pcm.samples:
        raise UndecodableAudio(_NO_AUDIO)


def write_block(out: BinaryIO, block: Samples, pcm: Pcm) -> None:
    """Append 16-bit samples to a file and to the books."""
    if not block.size:
        return
    out.write(block.tobytes())
    pcm.samples += block.size
    pcm.peak = max(pcm.peak, int(block.max()), -int(block.min()))


def too_long(max_seconds: float) -> AudioTooLong:
    """The error for audio over the duration limit, with the limit in it."""
    hours, rest = divmod(round(max_seconds), 3600)
    text = f"{hours} h {rest // 60} min" if hours else f"{max_seconds:g} seconds"
    return AudioTooLong(f"The audio is longer than this server allows ({text}).")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, AudioStream, bytes]]:
    with path.open("rb", buffering=0) as raw:
        assert isinstance(raw, io.FileIO)
        head = raw.read(64)
        raw.seek(0)
        # libav judges playlists by the name as well; the caller's must never reach it.
        raw.name = "input"
        source = io.BufferedReader(raw, 1 << 16)
        with av.open(
            source, mode="r", options=dict(_OPTIONS), metadata_errors="replace"
        ) as container:
            stream = container.streams.best("audio")
            if not isinstance(stream, AudioStream):
                raise UndecodableAudio("The file holds no audio stream.")
            yield container, stream, head


def _frames(container: InputContainer, stream: AudioStream, pcm: Pcm) -> Iterator[AudioFrame]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.InvalidDataError:
            # The rest of the file is unreadable; what came before it still counts.
            pcm.damaged += 1
            return
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            pcm.damaged += 1
            continue
        yield from (frame for frame in frames if isinstance(frame, AudioFrame))


def _mono(
    frames: Iterator[AudioFrame], rate: int, expect: Callable[[float], None]
) -> Iterator[AudioFrame]:
    """The frames as 16-bit mono at ``rate``; a stream may change its shape on the way."""
    resampler: AudioResampler | None = None
    shape: tuple[object, ...] = ()
    for frame in frames:
        if not frame.samples or not frame.sample_rate:
            continue
        expect(frame.samples * rate / frame.sample_rate)
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or now != shape:
            if resampler is not None:
                yield from resampler.resample(None)
            resampler, shape = AudioResampler(format="s16", layout="mono", rate=rate), now
        frame.pts = None
        yield from resampler.resample(frame)
    if resampler is not None:
        yield from resampler.resample(None)


def _claimed(container: InputContainer, stream: AudioStream) -> float | None:
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration:
        seconds = container.duration / 1_000_000
    else:
        return None
    return seconds if seconds > 0 else None


def _is_cover(disposition: object) -> bool:
    return "attached_pic" in str(disposition)
