"""Decoding: every format, every limit, and workers that die without taking anything along."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.media import FORMATS, encode, make, tone, wav

from whisper_api.audio.decode import Decoder
from whisper_api.audio.libav import Pcm, decode_pcm
from whisper_api.audio.scratch import Scratch
from whisper_api.audio.slots import Job
from whisper_api.audio.worker import answer
from whisper_api.config import Settings
from whisper_api.errors import (
    AudioTooLong,
    AudioTooShort,
    CapacityError,
    DecoderCrashed,
    RequestError,
    SettingsError,
    ShuttingDown,
    UndecodableAudio,
)
from whisper_api.types import SAMPLE_RATE, AudioFile, Options, Waveform

CODECS = {"libmp3lame": "mp3", "libopus": "opus", "libopencore_amrnb": "amr_nb"}
"""libav's name of the codec, where it is not the encoder's."""
LIMITS: dict[str, Any] = {"max_duration_s": 60, "decode_memory_mb": 512, "decode_timeout_s": 20}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decode")


@pytest.fixture(scope="module")
def decoder(root: Path) -> Iterator[Decoder]:
    decoder = Decoder(Settings(data_dir=root, **LIMITS))
    decoder.start()
    yield decoder
    decoder.close()


@pytest.fixture
def scratch(root: Path) -> Iterator[Scratch]:
    with Scratch.create(root) as scratch:
        yield scratch


def own(**settings: Any) -> Decoder:
    return Decoder(Settings(**{**LIMITS, "decode_workers": 1, **settings}))


def on_disk(scratch: Scratch, data: bytes) -> AudioFile:
    path = scratch.unique("upload")
    path.write_bytes(data)
    return AudioFile(path, "x", len(data), "", "", "", "", None)


async def decode(decoder: Decoder, scratch: Scratch, data: bytes, **options: Any) -> Waveform:
    return await decoder.decode(on_disk(scratch, data), scratch, Options(**options))


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
    waveform = await decode(decoder, scratch, data)
    assert waveform.duration == pytest.approx(1.5, abs=0.12)
    assert dominant(waveform) == pytest.approx(440, abs=3)
    samples = waveform.read(0, waveform.samples)
    assert float(np.sqrt(np.mean(samples**2))) == pytest.approx(0.3 / 2**0.5, rel=0.35)
    assert waveform.peak == pytest.approx(float(np.abs(samples).max()), abs=0.001)
    assert waveform.damaged == 0


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


# --- workers that hang or die ---------------------------------------------------------------


async def hang(decoder: Decoder, scratch: Scratch, limit: float = 20) -> Job:
    """A job that waits for bytes that never come: its source is a pipe."""
    pipe = scratch.unique("pipe")
    os.mkfifo(pipe)
    job = Job({"op": "probe", "source": str(pipe)}, limit, light=True)
    decoder.start()
    decoder._queue.put(job)
    for _ in range(2000):
        if job.started:
            await asyncio.sleep(0.02)
            return job
        await asyncio.sleep(0.005)
    raise AssertionError("the job never began")


posix = pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes and signals")


@posix
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
async def test_a_killed_worker_costs_one_request(kind: signal.Signals, scratch: Scratch) -> None:
    decoder = own()
    try:
        job = await hang(decoder, scratch)
        (pid,) = decoder.pids
        started = time.monotonic()
        os.kill(pid, kind)
        assert await asyncio.wrap_future(job.future) is None
        assert time.monotonic() - started < 1
        with pytest.raises(UndecodableAudio) as caught:
            decoder._outcome(job, None)
        assert caught.value.code == "decoder_crashed"
        assert (await decode(decoder, scratch, make("wav", tone(1)))).duration == 1
        assert decoder.pids != [pid]
    finally:
        decoder.close()


@posix
async def test_a_hanging_file_is_ended_at_the_limit(scratch: Scratch) -> None:
    decoder = own()
    try:
        job = await hang(decoder, scratch, limit=0.5)
        assert await asyncio.wrap_future(job.future) is None
        with pytest.raises(UndecodableAudio, match=r"longer than this server allows") as caught:
            decoder._outcome(job, None)
        assert caught.value.code == "decode_timeout"
        assert (await decode(decoder, scratch, make("wav", tone(1)))).duration == 1
    finally:
        decoder.close()


@posix
async def test_cancelling_kills_the_work_before_it_returns(scratch: Scratch) -> None:
    decoder = own()
    try:
        pipe = scratch.unique("pipe")
        os.mkfifo(pipe)
        await decode(decoder, scratch, make("wav", tone(1)))
        (pid,) = decoder.pids
        task = asyncio.create_task(decoder.probe(pipe))
        await asyncio.sleep(0.2)
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 1
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert (await decode(decoder, scratch, make("wav", tone(1)))).duration == 1
    finally:
        decoder.close()


@posix
async def test_cancelled_while_waiting_never_runs(scratch: Scratch) -> None:
    decoder = own()
    try:
        await hang(decoder, scratch)
        waiting = asyncio.create_task(decode(decoder, scratch, make("wav", tone(1))))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert list(scratch.folder.glob("pcm*")) == []
    finally:
        decoder.close()


@posix
async def test_close_answers_everyone(scratch: Scratch) -> None:
    decoder = own()
    running = await hang(decoder, scratch)
    waiting = asyncio.create_task(decode(decoder, scratch, make("wav", tone(1))))
    await asyncio.sleep(0.05)
    pids = decoder.pids
    await asyncio.to_thread(decoder.close)
    with pytest.raises(ShuttingDown):
        await waiting
    assert await asyncio.wrap_future(running.future) is None
    with pytest.raises(ShuttingDown):
        decoder._outcome(running, None)
    with pytest.raises(ShuttingDown):
        await decode(decoder, scratch, make("wav", tone(1)))
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@posix
async def test_long_files_leave_a_slot_for_short_ones(scratch: Scratch) -> None:
    decoder = own(decode_workers=2)
    try:
        pipe = scratch.unique("pipe")
        os.mkfifo(pipe)
        decoder.start()
        for _ in range(3):
            decoder._queue.put(Job({"op": "probe", "source": str(pipe)}, 20, light=False))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        assert (await decode(decoder, scratch, make("wav", tone(1)))).duration == 1
        assert time.monotonic() - started < 5
    finally:
        decoder.close()


async def test_workers_are_replaced_after_their_files(scratch: Scratch) -> None:
    decoder = own(decode_recycle=2)
    try:
        seen = []
        for _ in range(4):
            await decode(decoder, scratch, make("wav", tone(0.2)))
            for _ in range(1000):
                if decoder.pids:
                    break
                await asyncio.sleep(0.005)
            seen += decoder.pids
        assert len(set(seen)) >= 2
    finally:
        decoder.close()


async def test_a_worker_that_cannot_start_is_our_fault(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(scratch.path("no-python")))
    decoder = own()
    try:
        with pytest.raises(DecoderCrashed):
            await decode(decoder, scratch, make("wav", tone(1)))
    finally:
        decoder.close()


def of_process(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_workers_are_limited_and_know_no_secrets(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHISPER_API_API_KEYS", "secret-key")
    decoder = own(decode_memory_mb=512)
    try:
        await decode(decoder, scratch, make("wav", tone(1)))
        (pid,) = decoder.pids
        limits = of_process(pid, "limits").decode()
        assert f"Max address space         {512 << 20}" in limits
        assert "Max core file size        0" in limits
        cpu = next(line.split()[3] for line in limits.splitlines() if line.startswith("Max cpu"))
        assert 0 < int(cpu) < 200
        assert b"secret-key" not in of_process(pid, "environ")
    finally:
        decoder.close()


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (MemoryError(), {"error": "UndecodableAudio", "code": "decode_memory"}),
        (OSError(errno.ENOSPC, "full"), {"error": "storage_full"}),
        (OSError(errno.EIO, "broken"), {"error": "UndecodableAudio", "code": "undecodable_audio"}),
        (IndexError("x"), {"error": "UndecodableAudio", "detail": "IndexError: x"}),
        (AudioTooLong("long"), {"error": "AudioTooLong", "message": "long"}),
    ],
)
def test_whatever_goes_wrong_is_a_plain_answer(error: Exception, reply: dict[str, str]) -> None:
    def job(request: dict[str, Any]) -> dict[str, Any]:
        raise error

    given = answer({"decode": job}, {"op": "decode"})
    assert reply.items() <= given.items()


async def test_a_full_disk_is_not_the_callers_fault() -> None:
    decoder = own()
    with pytest.raises(CapacityError, match="disk is full"):
        decoder._outcome(Job({}, 1, light=True), {"error": "storage_full"})


CHILD = """
import sys, time
from pathlib import Path
from whisper_api.audio.decode import Decoder
from whisper_api.config import Settings
decoder = Decoder(Settings(data_dir=Path(sys.argv[1])))
decoder.start()
while len(decoder.pids) < 2 or not all(slot._worker for slot in decoder._slots):
    time.sleep(0.01)
print(*decoder.pids, flush=True)
time.sleep(60)
"""


@posix
async def test_workers_die_with_their_parent(root: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(root), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    pids = [int(pid) for pid in (await child.stdout.readline()).split()]
    assert len(pids) == 2
    child.kill()
    await child.wait()
    for pid in pids:
        for _ in range(200):
            if not alive(pid):
                break
            await asyncio.sleep(0.02)
        assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # An orphan that nobody collects stays as a zombie; it is dead all the same.
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


async def test_the_event_loop_goes_on_meanwhile(decoder: Decoder, scratch: Scratch) -> None:
    longest, done = 0.0, asyncio.Event()

    async def tick() -> None:
        nonlocal longest
        while not done.is_set():
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - before)

    data = make("mp3", tone(50))
    ticking = asyncio.create_task(tick())
    await asyncio.gather(*(decode(decoder, scratch, data) for _ in range(4)))
    done.set()
    await ticking
    assert longest < 0.25
