"""The scheduler with the fake engine: admission, batching, order, failure, cancellation."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from tests.waiting import PATIENCE_S, until

from whisper_api.calm import CALM_GAPS, CALM_LEAST, CALM_SECONDS
from whisper_api.config import Settings
from whisper_api.engines.base import Decoded, DecodeParams, WindowItem
from whisper_api.engines.fake import MARKER_SAMPLES, FakeEngine, FakeOptions, make_marker
from whisper_api.errors import EngineError, EngineOutOfMemory, Overloaded, ShuttingDown
from whisper_api.fitting import Fitting
from whisper_api.scheduler import UNMEASURED_RTF, Scheduler, Ticket
from whisper_api.types import Audio, Lane

PARAMS = DecodeParams(language="en")
Hook = Callable[[Sequence[WindowItem]], None]


def audio(number: int) -> Callable[[], Audio]:
    def load() -> Audio:
        samples = np.zeros(16_000, np.float32)
        samples[4000 : 4000 + MARKER_SAMPLES] = make_marker(number)
        return samples

    return load


async def decode(ticket: Ticket, number: int, params: DecodeParams = PARAMS) -> Decoded:
    return await ticket.decode(f"k{number}", audio(number), 1.0, params)


async def turns() -> None:
    """Let everything happen that is due."""
    for _ in range(10):
        await asyncio.sleep(0)


def hold(wait: Callable[..., object], *args: object, **named: object) -> Hook:
    """A hook that waits in every decode call."""

    def hook(items: Sequence[WindowItem]) -> None:
        wait(*args, **named)

    return hook


def texts(results: list[Decoded]) -> list[str]:
    return [result.text.strip() for result in results]


async def test_windows_of_two_requests_share_a_batch() -> None:
    scheduler, engine = Scheduler(Settings(batch_size=8)), FakeEngine()
    async with scheduler.admit() as a, scheduler.admit() as b:
        a.bind(engine)
        b.bind(engine)
        await decode(a, 0)  # the first call measures
        results = await asyncio.gather(*(decode((a, b)[n % 2], n) for n in range(6)))
    assert texts(results) == [f"marker-{n:04d}" for n in range(6)]
    assert [call.size for call in engine.calls] == [1, 6]
    await scheduler.close()


async def test_different_keys_do_not_share_a_batch() -> None:
    scheduler, engine = Scheduler(Settings()), FakeEngine()
    prompted = DecodeParams(language="en", prompt=(1, 2, 3))
    russian = DecodeParams(language="ru")
    async with scheduler.admit() as ticket:
        ticket.bind(engine)
        await asyncio.gather(
            decode(ticket, 1, prompted), decode(ticket, 2), decode(ticket, 3, russian)
        )
    assert sorted(call.size for call in engine.calls) == [1, 2]
    await scheduler.close()


async def test_engine_error_fails_one_batch_and_the_loop_lives() -> None:
    scheduler = Scheduler(Settings(batch_size=1))
    engine = FakeEngine(FakeOptions(fail_on=frozenset({2})))
    async with scheduler.admit() as ticket:
        ticket.bind(engine)
        results = await asyncio.gather(
            *(decode(ticket, n) for n in range(4)), return_exceptions=True
        )
    assert sum(isinstance(result, EngineError) for result in results) == 1
    assert sum(isinstance(result, Decoded) for result in results) == 3
    await scheduler.close()


async def test_unexpected_error_is_an_engine_error() -> None:
    def explode(items: object) -> None:
        raise ZeroDivisionError

    scheduler, engine = Scheduler(Settings()), FakeEngine(on_decode=explode)
    async with scheduler.admit() as ticket:
        ticket.bind(engine)
        with pytest.raises(EngineError, match="unexpectedly"):
            await decode(ticket, 1)
    await scheduler.close()


async def test_out_of_memory_halves_the_batch_once() -> None:
    scheduler = Scheduler(Settings(batch_size=8))
    engine = FakeEngine(FakeOptions(oom_above=4))
    async with scheduler.admit() as ticket:
        ticket.bind(engine)
        results = await asyncio.gather(*(decode(ticket, n) for n in range(8)))
    assert texts(results) == [f"marker-{n:04d}" for n in range(8)]
    assert [call.size for call in engine.calls] == [8, 4, 4]
    await scheduler.close()


async def test_only_windows_that_do_not_fit_alone_are_refused() -> None:
    scheduler = Scheduler(Settings(batch_size=8))
    engine = FakeEngine(FakeOptions(oom_above=1))
    async with scheduler.admit() as ticket:
        ticket.bind(engine)
        results = await asyncio.gather(*(decode(ticket, n) for n in range(8)))
    assert texts(results) == [f"marker-{n:04d}" for n in range(8)]
    assert [call.size for call in engine.calls] == [8, 4, 2, *[1] * 8]
    await scheduler.close()

    scheduler, engine = Scheduler(Settings(batch_size=4)), FakeEngine(FakeOptions(oom_above=0))
    async with scheduler.admit() as ticket:
        ticket.bind(engine)
        failures = await asyncio.gather(
            *(decode(ticket, n) for n in range(4)), return_exceptions=True
        )
    assert all(isinstance(failure, EngineOutOfMemory) for failure in failures)
    await scheduler.close()


async def test_unreadable_audio_fails_alone() -> None:
    def missing() -> Audio:
        raise FileNotFoundError(2, "No such file")

    scheduler, engine = Scheduler(Settings()), FakeEngine()
    async with scheduler.admit() as ticket:
        ticket.bind(engine)
        bad, good = await asyncio.gather(
            ticket.decode("bad", missing, 1.0, PARAMS), decode(ticket, 7), return_exceptions=True
        )
    assert isinstance(bad, EngineError)
    assert isinstance(good, Decoded)
    await scheduler.close()


async def test_closed_ticket_withdraws_its_windows() -> None:
    release = threading.Event()
    scheduler = Scheduler(Settings(batch_size=1))
    engine = FakeEngine(on_decode=hold(release.wait, PATIENCE_S))
    ticket, other = scheduler.admit(seconds=5), scheduler.admit()
    ticket.bind(engine)
    other.bind(engine)
    work = [asyncio.create_task(decode(ticket, n)) for n in range(5)]
    await until(lambda: engine.calls)  # before that it could still be taken back
    ticket.close()
    last = asyncio.create_task(decode(other, 9))
    release.set()
    assert (await last).text.strip() == "marker-0009"
    results = await asyncio.gather(*work, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert len(engine.calls) == 2  # the one that ran, and the other request's
    assert scheduler.queued_seconds == 0
    other.close()
    await scheduler.close()


async def test_admission_by_audio_seconds() -> None:
    scheduler = Scheduler(Settings(max_queued_seconds=100))
    huge = scheduler.admit(seconds=1000)  # an empty queue takes any one file
    with pytest.raises(Overloaded) as refused:
        scheduler.admit(seconds=1)
    assert 1 <= refused.value.retry_after <= 120
    assert "100 seconds" in refused.value.message
    huge.close()
    scheduler.admit(seconds=60).resize(99)
    with pytest.raises(Overloaded):
        scheduler.admit(seconds=2)


async def test_admission_by_requests() -> None:
    scheduler = Scheduler(Settings(max_concurrent_requests=2))
    first = scheduler.admit()
    scheduler.admit()
    with pytest.raises(Overloaded, match="2 requests"):
        scheduler.admit()
    first.close()
    scheduler.admit()


async def test_retry_after_is_that_of_whoever_is_done_first() -> None:
    scheduler = Scheduler(Settings(max_concurrent_requests=7))
    for lane in (Lane.TASK, Lane.INTERACTIVE, Lane.REALTIME):
        for seconds in (300, 90):
            scheduler.admit(lane, seconds)
    scheduler.admit(Lane.INTERACTIVE, 80)
    with pytest.raises(Overloaded) as refused:
        scheduler.admit()
    first = min(place.eta_seconds for _, place in scheduler.places())
    assert refused.value.retry_after == math.ceil(first) == math.ceil(180 * UNMEASURED_RTF)


async def test_refusing_is_cheap_with_many_in_the_queue() -> None:
    """A refusal that looked at each pair of those that wait held the event loop for long."""
    scheduler = Scheduler(Settings(max_concurrent_requests=2000))
    for seconds in range(2000):
        scheduler.admit(seconds=seconds / 1000)
    started = time.thread_time()
    with pytest.raises(Overloaded):
        scheduler.admit()
    assert time.thread_time() - started < 0.1


async def test_short_clip_overtakes_a_long_file() -> None:
    gate = threading.Semaphore(0)
    scheduler = Scheduler(Settings(batch_size=1))
    engine = FakeEngine(on_decode=hold(gate.acquire, timeout=PATIENCE_S))
    order: list[str] = []
    long, short = scheduler.admit(), scheduler.admit()
    long.bind(engine)
    short.bind(engine)

    async def one(ticket: Ticket, name: str, number: int) -> None:
        await decode(ticket, number)
        order.append(name)

    work = [asyncio.create_task(one(long, "long", n)) for n in range(6)]
    await turns()
    work.append(asyncio.create_task(one(short, "short", 99)))
    await turns()
    gate.release(7)
    await asyncio.gather(*work)
    assert order.index("short") <= 2
    long.close()
    short.close()
    await scheduler.close()


async def test_no_long_batch_begins_before_a_clip_or_between_its_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("whisper_api.batching.IDLE_SECONDS", PATIENCE_S)
    monkeypatch.setattr("whisper_api.reserve.COMING_SECONDS", PATIENCE_S)
    gate, order = threading.Semaphore(0), list[str]()

    def note(items: Sequence[WindowItem]) -> None:
        order.append(items[0].key)
        assert gate.acquire(timeout=PATIENCE_S)

    scheduler = Scheduler(Settings(batch_size=1, max_batch_seconds=600))
    engine = FakeEngine(on_decode=note)
    async with scheduler.admit(seconds=3600) as long, scheduler.admit(seconds=3) as clip:
        long.bind(engine)
        work = [asyncio.create_task(decode(long, n)) for n in range(3)]
        await until(lambda: order)
        clip.bind(engine)  # its audio is decoded and heard through meanwhile
        gate.release(4)
        await work[0]
        await turns()
        await clip.detect("k9", audio(9), 1.0)
        await turns()
        await decode(clip, 9)
        clip.close()
        await asyncio.gather(*work)
    assert order == ["k0", "k9", "k1", "k2"]
    await scheduler.close()


def idle_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas idle for longer than any test is waited for."""
    monkeypatch.setattr("whisper_api.batching.IDLE_SECONDS", 10 * PATIENCE_S)
    monkeypatch.setattr("whisper_api.reserve.COMING_SECONDS", 10 * PATIENCE_S)


async def test_where_another_replica_is_free_long_batches_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    idle_for_ever(monkeypatch)
    scheduler = Scheduler(Settings(batch_size=1, max_batch_seconds=600))
    engine = FakeEngine(FakeOptions(replicas=2))
    async with scheduler.admit(seconds=3600) as long, scheduler.admit(seconds=3) as clip:
        clip.bind(engine)
        long.bind(engine)
        windows = asyncio.gather(*(decode(long, n) for n in range(3)))
        assert len(await asyncio.wait_for(windows, PATIENCE_S)) == 3
    await scheduler.close()


async def test_nobody_idles_for_a_request_that_turns_out_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    idle_for_ever(monkeypatch)
    scheduler, engine = Scheduler(Settings(max_batch_seconds=600)), FakeEngine()
    async with scheduler.admit(seconds=0) as long:
        long.bind(engine)
        long.resize(3600)
        assert (await asyncio.wait_for(decode(long, 0), PATIENCE_S)).text
    await scheduler.close()


async def test_idling_ends_with_the_long_request_that_was_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    idle_for_ever(monkeypatch)
    scheduler, engine = Scheduler(Settings(batch_size=1, max_batch_seconds=600)), FakeEngine()
    async with scheduler.admit(seconds=3) as clip:
        clip.bind(engine)
        reserve = scheduler._runner(engine)._reserve
        async with scheduler.admit(seconds=3600) as long:
            long.bind(engine)
            kept = asyncio.create_task(decode(long, 0))
            await until(lambda: reserve._since is not None)
            kept.cancel()
        await until(lambda: reserve._since is None)
    await scheduler.close()
    assert kept.cancelled()


async def test_a_clip_that_asks_for_nothing_keeps_no_long_batch_for_ever() -> None:
    scheduler, engine = Scheduler(Settings(batch_size=1)), FakeEngine()
    async with scheduler.admit(seconds=3) as clip, scheduler.admit(seconds=3600) as long:
        clip.bind(engine)
        long.bind(engine)
        results = await asyncio.gather(*(decode(long, n) for n in range(3)))
    assert len(results) == 3
    await scheduler.close()


class Timed:
    """A scheduler whose clock goes on two seconds for each window that the engine decodes."""

    def __init__(self, **settings: Any) -> None:
        self.now = 0.0
        chosen = Settings(**{"batch_size": 8, "max_batch_seconds": 4, **settings})
        self.scheduler = Scheduler(chosen, clock=lambda: self.now)
        self.engine = FakeEngine(on_decode=self._work)

    def _work(self, items: Sequence[WindowItem]) -> None:
        self.now += 2.0 * len(items)

    def ticket(self, seconds: float, lane: Lane = Lane.INTERACTIVE) -> Ticket:
        ticket = self.scheduler.admit(lane, seconds)
        ticket.bind(self.engine)
        return ticket

    async def sizes(self, ticket: Ticket, windows: int) -> list[int]:
        """Sizes of the batches that decode ``windows``."""
        before = len(self.engine.calls)
        await asyncio.gather(*(decode(ticket, n) for n in range(windows)))
        return [call.size for call in self.engine.calls[before:]]


async def test_long_requests_fill_batches_while_nobody_hurries() -> None:
    timed = Timed()
    async with timed.ticket(3600) as long, timed.ticket(3600) as other:
        assert await timed.sizes(long, 12) == [8, 4]
        assert await timed.sizes(other, 12) == [8, 4]
    assert timed.scheduler.real_time_factor == pytest.approx(2.0)
    await timed.scheduler.close()


async def test_batches_of_long_requests_are_bounded_by_time_while_short_ones_come() -> None:
    timed = Timed()
    async with timed.ticket(3600) as long:
        await timed.sizes(long, 1)
        for moment in (2.0, 12.0):
            timed.now = moment
            async with timed.ticket(3) as short:
                assert await timed.sizes(short, 1) == [1]
        assert await timed.sizes(long, 6) == [2, 2, 2]  # so another may in thirty
        timed.now = 12.0 + CALM_GAPS * 10 + 1
        assert await timed.sizes(long, 6) == [6]
    await timed.scheduler.close()


async def test_one_short_request_does_not_cost_a_long_one_its_batches_for_long() -> None:
    timed = Timed()
    async with timed.ticket(3600) as long:
        await timed.sizes(long, 1)
        for pause in (0.0, CALM_SECONDS + 1):  # those that come so rarely are each the first
            timed.now += pause
            async with timed.ticket(3) as short:
                await timed.sizes(short, 1)
            timed.now += CALM_LEAST
            assert await timed.sizes(long, 7) == [7]
    await timed.scheduler.close()


async def test_a_batch_never_has_less_than_one_window() -> None:
    timed = Timed(max_batch_seconds=0.1)
    async with timed.ticket(3600) as long, timed.ticket(3) as short:
        await timed.sizes(short, 1)
        assert await timed.sizes(long, 3) == [1, 1, 1]
    await timed.scheduler.close()


async def test_short_requests_together_fill_a_batch() -> None:
    timed = Timed()
    async with timed.ticket(3) as one, timed.ticket(3) as two:
        await timed.sizes(one, 1)
        await asyncio.gather(*(decode((one, two)[n % 2], n) for n in range(8)))
    assert [call.size for call in timed.engine.calls] == [1, 8]
    await timed.scheduler.close()


async def test_a_higher_lane_bounds_the_batches_of_lower_ones() -> None:
    timed = Timed()
    async with timed.ticket(3600, Lane.TASK) as task, timed.ticket(3600) as interactive:
        await timed.sizes(interactive, 1)
        assert await timed.sizes(task, 4) == [2, 2]
        # The task bounds nothing of the lane above.
        assert await timed.sizes(interactive, 4) == [4]
    await timed.scheduler.close()


async def test_memory_that_was_too_small_once_is_remembered_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("whisper_api.batching.Fitting", partial(Fitting, patience=4))
    scheduler = Scheduler(Settings(batch_size=8))
    engine = FakeEngine(FakeOptions(oom_above=4))
    async with scheduler.admit() as ticket:
        ticket.bind(engine)
        await asyncio.gather(*(decode(ticket, n) for n in range(8)))
        await asyncio.gather(*(decode(ticket, n) for n in range(8)))
        assert [call.size for call in engine.calls] == [8, 4, 4, 4, 4]
        engine.options = FakeOptions()  # there is room again
        for _ in range(12):
            await asyncio.gather(*(decode(ticket, n) for n in range(8)))
        assert engine.calls[-1].size == 8
    await scheduler.close()


async def test_places_count_those_before() -> None:
    scheduler = Scheduler(Settings())
    tickets = [scheduler.admit(Lane.INTERACTIVE, 100), scheduler.admit(Lane.TASK, 50)]
    tickets += [scheduler.admit(Lane.INTERACTIVE, 10), scheduler.admit(Lane.REALTIME, 5)]
    places = [place for _, place in scheduler.places()]
    assert [place.position for place in places] == [1, 3, 2, 0]
    speed = scheduler.real_time_factor
    # Realtime goes first; beside the long file the short one is done after 20 s of audio.
    assert [place.eta_seconds / speed for place in places] == pytest.approx([115, 165, 25, 5])
    assert scheduler.outlook(Lane.INTERACTIVE, 10)[0] == 3
    assert scheduler.outlook(Lane.INTERACTIVE, 10)[1] / speed == pytest.approx(35)


async def test_retry_after_is_when_there_will_be_room() -> None:
    scheduler = Scheduler(Settings(max_queued_seconds=100))
    scheduler.admit(seconds=100)
    with pytest.raises(Overloaded) as much:
        scheduler.admit(seconds=60)
    assert much.value.retry_after == pytest.approx(60 * scheduler.real_time_factor)
    crowded = Scheduler(Settings(max_concurrent_requests=2))
    crowded.admit(seconds=300)
    crowded.admit(seconds=10)
    with pytest.raises(Overloaded) as many:
        crowded.admit()
    assert many.value.retry_after == pytest.approx(20 * crowded.real_time_factor)


async def test_replicas_share_what_waits_evenly() -> None:
    # Eight windows in one batch on one core would leave the other idle.
    both = threading.Barrier(2, timeout=30)
    scheduler = Scheduler(Settings(batch_size=8))
    engine = FakeEngine(FakeOptions(replicas=2), on_decode=hold(both.wait))
    async with scheduler.admit() as ticket:
        ticket.bind(engine)
        results = await asyncio.gather(*(decode(ticket, n) for n in range(7)))
    assert texts(results) == [f"marker-{n:04d}" for n in range(7)]
    assert sorted(call.size for call in engine.calls) == [3, 4]
    await scheduler.close()


async def test_a_replica_that_comes_free_leaves_others_what_they_can_do_at_the_same_time() -> None:
    now = 0.0
    gates = {0: threading.Event(), 1: threading.Event()}
    both = threading.Barrier(2, timeout=30)

    def gate(items: Sequence[WindowItem]) -> None:
        number = int(items[0].key[1:])
        if number in gates:
            assert gates[number].wait(30)
        else:  # or the free replica would be done before the other one's first
            both.wait()

    scheduler = Scheduler(Settings(batch_size=8), clock=lambda: now)
    engine = FakeEngine(FakeOptions(replicas=2), on_decode=gate)
    async with scheduler.admit() as ticket:
        ticket.bind(engine)
        first = [asyncio.create_task(decode(ticket, n)) for n in range(2)]  # one on each replica
        await turns()
        rest = [asyncio.create_task(decode(ticket, n)) for n in range(2, 8)]
        await turns()
        now = 10.0  # a window takes ten seconds
        gates[0].set()
        await first[0]
        # The other one is about to end, too: half of the six are left to it.
        gates[1].set()
        await asyncio.gather(first[1], *rest)
    assert sorted(call.size for call in engine.calls) == [1, 1, 3, 3]
    await scheduler.close()


async def test_replicas_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=PATIENCE_S)
    scheduler = Scheduler(Settings(batch_size=1))
    engine = FakeEngine(FakeOptions(replicas=2), on_decode=hold(both.wait))
    async with scheduler.admit() as ticket:
        ticket.bind(engine)
        await asyncio.gather(decode(ticket, 1), decode(ticket, 2))
    assert [call.size for call in engine.calls] == [1, 1]
    assert not both.broken
    await scheduler.close()


async def test_close_drains_then_fails_the_rest() -> None:
    release = threading.Event()
    scheduler = Scheduler(Settings(batch_size=1))
    engine = FakeEngine(on_decode=hold(release.wait, PATIENCE_S))
    ticket = scheduler.admit()
    ticket.bind(engine)
    work = [asyncio.create_task(decode(ticket, n)) for n in range(3)]
    await until(lambda: engine.calls)
    closing = asyncio.create_task(scheduler.close(drain=0.05))
    results = await asyncio.gather(*work, return_exceptions=True)
    assert all(isinstance(result, ShuttingDown) for result in results)
    with pytest.raises(ShuttingDown):
        scheduler.admit()
    release.set()
    await closing


async def test_a_stopping_server_finishes_the_shortest_first() -> None:
    """In fair order the short request's ten windows would be done after the long one's ten."""
    gate = threading.Semaphore(0)
    scheduler = Scheduler(Settings(batch_size=1))
    engine = FakeEngine(on_decode=hold(gate.acquire, timeout=60))
    order: list[str] = []
    long, short, late = (scheduler.admit(seconds=s) for s in (3600, 10, 3))
    long.bind(engine)

    async def one(ticket: Ticket, name: str, number: int) -> None:
        await decode(ticket, number)
        order.append(name)
        ticket.settle(1)

    work = [asyncio.create_task(one(long, "long", n)) for n in range(20)]
    await turns()  # the first of them runs
    short.bind(engine)
    work += [asyncio.create_task(one(short, "short", n)) for n in range(10)]
    await turns()
    scheduler.stop_admitting()
    late.bind(engine)  # its audio was being decoded so far
    work += [asyncio.create_task(one(late, "late", n)) for n in range(3)]
    await turns()
    gate.release(len(work))
    await asyncio.gather(*work)
    assert order == ["long"] + ["late"] * 3 + ["short"] * 10 + ["long"] * 19
    for ticket in (long, short, late):
        ticket.close()
    await scheduler.close()


async def test_an_engine_that_is_first_used_while_the_server_stops_hastens_too() -> None:
    timed = Timed(max_batch_seconds=4)
    long = timed.scheduler.admit(seconds=3600)
    timed.scheduler.stop_admitting()
    long.bind(timed.engine)
    await timed.sizes(long, 1)
    # Batches stay short: who comes out of decoding must not wait for a large one.
    assert await timed.sizes(long, 4) == [2, 2]
    long.close()
    await timed.scheduler.close()


async def test_tasks_go_on_under_endless_interactive_load() -> None:
    timed = Timed(batch_size=1, task_share=0.1)
    done: list[str] = []

    async def one(ticket: Ticket, name: str, number: int) -> None:
        await decode(ticket, number)
        done.append(name)

    async with timed.ticket(3600, Lane.TASK) as task, timed.ticket(3600) as busy:
        work = [one(busy, "interactive", n) for n in range(100)]
        work += [one(task, "task", n) for n in range(5)]
        await asyncio.gather(*work)
    assert [n for n, name in enumerate(done) if name == "task"] == [9, 19, 29, 39, 49]
    await timed.scheduler.close()


async def test_state_counts_by_lane() -> None:
    scheduler = Scheduler(Settings())
    scheduler.admit(Lane.TASK, 30)
    ticket = scheduler.admit(Lane.INTERACTIVE, 10)
    ticket.settle(4)
    state = scheduler.state()
    assert state.by_lane == {"realtime": 0, "interactive": 6, "task": 30}
    assert state.queued_seconds == 36
    assert state.eta_seconds == pytest.approx(36 * state.real_time_factor)
    assert scheduler.eta(Lane.INTERACTIVE) < scheduler.eta(Lane.TASK)
