"""Short requests that pass a batch of long ones between two of its steps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from unittest import mock

import numpy as np
import pytest
from tests.waiting import PATIENCE_S, until

from whisper_api.config import Settings
from whisper_api.engine_calls import Job
from whisper_api.engines.base import Decoded, DecodeParams, WindowItem
from whisper_api.engines.fake import FakeEngine, FakeOptions
from whisper_api.engines.steps import between_steps, step
from whisper_api.engines.timing import PartClock
from whisper_api.errors import EngineError, EngineOutOfMemory, ShuttingDown
from whisper_api.passing import LENT_PART, LENT_SECONDS, PASSING_WINDOWS, Host, Passing
from whisper_api.scheduler import Scheduler, Ticket
from whisper_api.types import Audio, Lane

PARAMS = DecodeParams("en")
LONG, SHORT = 3600.0, 3.0


class Stepping(FakeEngine):
    """Batches of several long windows go step by step until ``go_on`` is set."""

    def __init__(self, passing: str = "steps") -> None:
        spare = int(passing == "spare")
        super().__init__(FakeOptions(steps=int(passing == "steps"), spare=spare))
        self.go_on, self.held = threading.Event(), threading.Event()
        self.refuses = 0  # so many calls for short windows run out of memory
        self.done: list[tuple[str, ...]] = []

    def decode(self, items: Sequence[WindowItem]) -> list[Decoded]:
        keys = tuple(item.key for item in items)
        if keys[0].startswith("long"):
            self.held.set()
            while not self.go_on.wait(0.001):
                step()
        elif self.refuses:
            self.refuses -= 1
            raise EngineOutOfMemory("no room")
        result = super().decode(items)
        self.done.append(keys)
        return result


@contextmanager
def working(engine: Stepping) -> Iterator[tuple[Scheduler, Callable[..., Ticket]]]:
    """A scheduler and what lets a request of so many seconds in."""
    scheduler = Scheduler(Settings(batch_size=8, max_queued_seconds=100_000))

    def admit(seconds: float, lane: Lane = Lane.INTERACTIVE) -> Ticket:
        ticket = scheduler.admit(lane, seconds)
        ticket.bind(engine)
        return ticket

    try:
        yield scheduler, admit
    finally:
        engine.go_on.set()


def silence() -> Audio:
    return np.zeros(1600, np.float32)


def broken() -> Audio:
    raise MemoryError


def ask(
    ticket: Ticket, name: str, count: int, load: Callable[[], Audio] = silence
) -> list[asyncio.Task[Decoded]]:
    return [
        asyncio.ensure_future(ticket.decode(f"{name} {n}", load, 1.0, PARAMS, n))
        for n in range(count)
    ]


async def held(engine: Stepping) -> None:
    assert await asyncio.to_thread(engine.held.wait, PATIENCE_S)


@asynccontextmanager
async def held_up(
    engine: Stepping,
) -> AsyncIterator[tuple[Scheduler, Callable[..., Ticket], list[asyncio.Task[Decoded]]]]:
    """As ``working``, with a batch of a long file in the engine, which ends well in the end."""
    with working(engine) as (scheduler, admit):
        long = ask(admit(LONG), "long", 8)
        await held(engine)
        yield scheduler, admit, long
        engine.go_on.set()
        await asyncio.gather(*long)
        await scheduler.close()


@pytest.mark.parametrize("passing", ["steps", "spare"])
async def test_a_clip_passes_a_batch_that_runs(passing: str) -> None:
    engine = Stepping(passing)
    async with held_up(engine) as (scheduler, admit, long):
        await asyncio.wait_for(asyncio.gather(*ask(admit(SHORT), "short", 1)), PATIENCE_S)
        assert not any(task.done() for task in long)
        assert scheduler.state().running_batches == 1
    assert engine.done == [("short 0",), tuple(f"long {n}" for n in range(8))]


@pytest.mark.parametrize("passing", ["steps", "spare"])
async def test_few_pass_at_once_and_all_of_them_pass(passing: str) -> None:
    engine = Stepping(passing)
    async with held_up(engine) as (_, admit, long):
        clips = [admit(SHORT) for _ in range(2 * PASSING_WINDOWS)]
        short = [task for n, clip in enumerate(clips) for task in ask(clip, f"short {n}", 1)]
        await asyncio.wait_for(asyncio.gather(*short), PATIENCE_S)
        assert not any(task.done() for task in long)
        assert all(len(keys) <= PASSING_WINDOWS for keys in engine.done)
        assert len(engine.done) < len(clips)  # those that came together share a batch


async def test_long_requests_pass_nobody() -> None:
    engine = Stepping()
    async with held_up(engine) as (_, admit, _long):
        other = ask(admit(LONG), "other", 1)
        assert not (await asyncio.wait(other, timeout=0.05))[0]
        engine.go_on.set()
        await asyncio.gather(*other)
    assert [len(keys) for keys in engine.done] == [8, 1]


async def test_a_batch_that_began_with_a_short_request_takes_no_long_windows() -> None:
    """Nobody could pass it, and the short one would wait for all of them."""
    engine = Stepping()
    engine.go_on.set()
    with working(engine) as (scheduler, admit):
        file, clip = admit(LONG), admit(SHORT)
        await asyncio.gather(*ask(file, "long", 4), *ask(clip, "short", 1))
        assert ("short 0",) in engine.done
        await scheduler.close()


@pytest.mark.parametrize("passing", ["steps", "spare"])
async def test_what_does_not_fit_beside_a_batch_runs_after_it(passing: str) -> None:
    engine = Stepping(passing)
    engine.refuses = 1
    async with held_up(engine) as (_, admit, _long):
        clip, late = admit(SHORT), admit(SHORT)
        short = ask(clip, "short", 1)
        await until(lambda: not engine.refuses)
        # Nor does anybody else pass for a while.
        assert not (await asyncio.wait([*short, *ask(late, "late", 1)], timeout=0.05))[0]
        engine.go_on.set()
        await asyncio.gather(*short)
        assert engine.done[:2] == [tuple(f"long {n}" for n in range(8)), ("short 0",)]


async def test_a_batch_whose_callers_are_gone_ends_at_its_next_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = Stepping()
    with working(engine) as (scheduler, admit):
        file = admit(LONG)
        long = ask(file, "long", 8)
        await held(engine)
        file.close()
        await asyncio.gather(*long, return_exceptions=True)
        await until(lambda: not scheduler.state().running_batches)
        assert not engine.done
        assert not caplog.records
        await scheduler.close()


@pytest.mark.parametrize("passing", ["steps", "spare"])
async def test_audio_that_cannot_be_read_fails_alone(passing: str) -> None:
    async with held_up(Stepping(passing)) as (_, admit, long):
        clip = admit(SHORT)
        with pytest.raises(EngineError, match="memory is short"):
            await ask(clip, "bad", 1, broken)[0]
        await asyncio.wait_for(asyncio.gather(*ask(clip, "short", 1)), PATIENCE_S)
        assert not any(task.done() for task in long)


@pytest.mark.parametrize("passing", ["steps", "spare"])
async def test_the_log_tells_of_an_engine_that_fails_on_a_guest(
    passing: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Stepping(passing)
    async with held_up(engine) as (_, admit, _long):
        failing = mock.patch.object(engine, "decode", side_effect=EngineError("no such kernel"))
        with failing, pytest.raises(EngineError, match="no such kernel"):
            await asyncio.wait_for(asyncio.gather(*ask(admit(SHORT), "bad", 1)), PATIENCE_S)
        told = [record.getMessage() for record in caplog.records]
        assert told == ["engine failed on a batch of 1 windows: no such kernel"]


@pytest.mark.parametrize("passing", ["steps", "spare"])
async def test_whatever_a_guest_raises_only_the_guest_has_it(passing: str) -> None:
    engine = Stepping(passing)
    async with held_up(engine) as (scheduler, admit, long):
        clip = admit(SHORT)
        broken_engine = mock.patch("whisper_api.batching.compute", side_effect=ZeroDivisionError)
        with broken_engine, pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(asyncio.gather(*ask(clip, "bad", 1)), PATIENCE_S)
        await asyncio.wait_for(asyncio.gather(*ask(clip, "short", 1)), PATIENCE_S)
        engine.go_on.set()
        await asyncio.gather(*long)
        assert scheduler.state().running_batches == 0


@pytest.mark.parametrize("passing", ["steps", "spare"])
async def test_a_clip_passes_the_batch_that_began_before_it_in_the_same_turn(passing: str) -> None:
    engine = Stepping(passing)
    with working(engine) as (scheduler, admit):
        file, clip = admit(LONG), admit(SHORT)
        assert clip._share is not None
        clip._share.virtual = 1e9  # its turn comes after that of the file
        long, short = ask(file, "long", 8), ask(clip, "short", 1)
        await asyncio.wait_for(asyncio.gather(*short), PATIENCE_S)
        assert not any(task.done() for task in long)
        engine.go_on.set()
        await asyncio.gather(*long)
        await scheduler.close()


@pytest.mark.parametrize("passing", ["steps", "spare"])
async def test_tasks_pass_tasks_alone(passing: str) -> None:
    engine = Stepping(passing)
    async with held_up(engine) as (_, admit, long):
        task = admit(SHORT, Lane.TASK)
        short = ask(task, "short", 1)
        assert not (await asyncio.wait(short, timeout=0.05))[0]
        engine.go_on.set()
        await asyncio.gather(*long, *short)
        engine.go_on.clear()
        engine.held.clear()
        more = ask(admit(LONG, Lane.TASK), "long", 8)
        await held(engine)
        await asyncio.wait_for(asyncio.gather(*ask(task, "short", 1)), PATIENCE_S)
        assert not any(one.done() for one in more)
        engine.go_on.set()
        await asyncio.gather(*more)


async def test_what_nobody_waited_for_does_not_count_as_done() -> None:
    engine = Stepping()
    with working(engine) as (scheduler, admit):
        file = admit(LONG)
        long = ask(file, "long", 8)
        await held(engine)
        file.close()
        await asyncio.gather(*long, return_exceptions=True)
        await until(lambda: not scheduler.state().running_batches)
        assert [runner.rtf for runner in scheduler._runners.values()] == [None]
        await scheduler.close()


async def test_a_server_that_stops_answers_those_who_wait_to_pass() -> None:
    engine = Stepping(passing="")
    with working(engine) as (scheduler, admit):
        file, clip = admit(LONG), admit(SHORT)
        long = ask(file, "long", 8)
        await held(engine)
        short = ask(clip, "short", 1)
        closing = asyncio.create_task(scheduler.close())
        with pytest.raises(ShuttingDown):
            await short[0]
        engine.go_on.set()
        await closing
        await asyncio.gather(*long, return_exceptions=True)


async def test_a_batch_waits_at_its_steps_for_what_passes_beside() -> None:
    passing = Passing(lambda *_: None, lambda _: None, inline=False)
    host = Host([], passing, Lane.INTERACTIVE)
    host.jobs = [Job("k", np.zeros(1, np.float32).copy, 1.0, PARAMS, asyncio.Future())]
    await asyncio.to_thread(host)
    passing.lane = Lane.TASK
    passing.begin_beside()
    await asyncio.to_thread(host)  # a lower lane's is nothing to wait for
    passing.lane = Lane.REALTIME
    passing.begin_beside()
    stepping = asyncio.ensure_future(asyncio.to_thread(host))
    assert not (await asyncio.wait([stepping], timeout=0.05))[0]
    passing.nobody.set()
    await asyncio.wait_for(stepping, PATIENCE_S)
    assert host.lent >= 0.05


def test_a_batch_lets_others_pass_for_a_part_of_its_time() -> None:
    host = Host([], None, Lane.INTERACTIVE, since=0.0)
    host.lent = LENT_SECONDS
    assert host.affords(0.0)
    host.lent = LENT_SECONDS + LENT_PART * 100 + 0.01
    assert not host.affords(100.0)
    assert host.affords(101.0)


def test_steps_are_those_of_the_thread_and_of_the_innermost_call() -> None:
    said: list[str] = []
    step()
    with between_steps(lambda: said.append("outer")):
        step()
        with between_steps(None):
            step()
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
        step()
    step()
    assert said == ["outer", "outer"]


def test_time_that_others_passed_in_is_not_that_of_the_part() -> None:
    clock = PartClock()
    with clock.time("decode"):
        clock.lend(1000.0)
    with clock.time("encode"):
        pass
    found = clock.read()
    assert found["decode"] < -900
    assert found["encode"] >= 0
