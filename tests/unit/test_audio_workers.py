"""Decode workers that hang, die, are cancelled or replaced, and what they may not do."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.intake import LIMITS, decode, own
from tests.media import make, tone
from tests.waiting import until

from whisper_api.audio.decode import Decoder
from whisper_api.audio.scratch import Scratch
from whisper_api.audio.slots import Job, Reply, Worker
from whisper_api.audio.worker import answer
from whisper_api.errors import (
    AudioTooLong,
    CapacityError,
    DecoderCrashed,
    ShuttingDown,
    UndecodableAudio,
)


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return LIMITS


LONG_S = 300.0
"""A limit that no test waits for."""


async def hang(decoder: Decoder, scratch: Scratch, limit: float = LONG_S) -> Job:
    """A job that waits for bytes that never come: its source is a pipe."""
    pipe = scratch.unique("pipe")
    os.mkfifo(pipe)
    job = Job({"op": "probe", "source": str(pipe)}, limit, light=True)
    decoder.start()
    decoder._queue.put(job)
    await until(lambda: job.started)
    return job


async def opened(pipe: Path) -> int:
    """The writing end of a pipe, once a worker has begun to read it."""

    def look() -> list[int]:
        try:
            return [os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)]
        except OSError as error:
            if error.errno != errno.ENXIO:  # nobody reads yet
                raise
            return []

    (end,) = await until(look)
    return int(end)


posix = pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes and signals")


@posix
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
async def test_a_killed_worker_costs_one_request(kind: signal.Signals, scratch: Scratch) -> None:
    decoder = own()
    try:
        job = await hang(decoder, scratch)
        (pid,) = decoder.pids
        os.kill(pid, kind)
        assert await asyncio.wait_for(asyncio.wrap_future(job.future), LONG_S / 2) is None
        with pytest.raises(UndecodableAudio) as caught:
            decoder._outcome(job, None)
        assert caught.value.code == "decoder_crashed"
        assert (await decode(decoder, scratch, make("wav", tone(1)))).duration == 1
        assert decoder.pids != [pid]
    finally:
        decoder.close()


@posix
async def test_a_worker_killed_after_its_answer_is_not_given_the_next_file(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers may leave, and limits end, at the very moment at which the answer is there."""
    plain, asked = Worker.ask, list[Worker]()

    def late(self: Worker, job: Job) -> Reply | None:
        asked.append(self)
        reply = plain(self, job)
        with monkeypatch.context() as slowly:  # a killed process is alive for some time
            slowly.setattr(Worker, "kill", lambda self: None)
            job.abort("cancelled")
        return reply

    monkeypatch.setattr(Worker, "ask", late)
    decoder = own()
    try:
        for _ in range(2):
            assert (await decode(decoder, scratch, make("wav", tone(0.2)))).duration == 0.2
        assert asked[0] is not asked[1]
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
        end = await opened(pipe)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        os.close(end)
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
        request = {"op": "probe", "source": str(pipe)}
        long = [Job(request, LONG_S, light=False) for _ in range(3)]
        for job in long:
            decoder._queue.put(job)
        await until(lambda: any(job.started for job in long))
        assert (await decode(decoder, scratch, make("wav", tone(1)))).duration == 1
        assert not any(job.future.done() for job in long)
    finally:
        decoder.close()


async def test_workers_are_replaced_after_their_files(scratch: Scratch) -> None:
    decoder = own(decode_recycle=2)
    try:
        seen = []
        for _ in range(4):
            await decode(decoder, scratch, make("wav", tone(0.2)))
            seen += await until(lambda: decoder.pids)
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
time.sleep(600)
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
    await until(lambda: not any(map(alive, pids)))


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
            # Of this thread alone, so that a busy machine does not count.
            before = time.thread_time()
            await asyncio.sleep(0.001)
            longest = max(longest, time.thread_time() - before)

    data = make("mp3", tone(50))
    ticking = asyncio.create_task(tick())
    await asyncio.gather(*(decode(decoder, scratch, data) for _ in range(4)))
    done.set()
    await ticking
    assert longest < 0.25
