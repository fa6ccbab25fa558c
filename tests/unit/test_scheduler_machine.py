"""The scheduler's promises under any order of events: a state machine with a clock of its own and
an engine that answers only when it is told to."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from whisper_api.batching import SHORT_SECONDS
from whisper_api.config import Settings
from whisper_api.engines.base import Decoded, DecodeParams, WindowItem
from whisper_api.engines.fake import FakeEngine, FakeOptions
from whisper_api.engines.steps import step
from whisper_api.errors import EngineError, EngineOutOfMemory, Overloaded, ShuttingDown
from whisper_api.fairness import FairQueue
from whisper_api.passing import Abandoned
from whisper_api.scheduler import Scheduler, Ticket
from whisper_api.types import Audio, Lane

MOST_SECONDS = 300.0
MOST_REQUESTS = 6
BATCH = 4
LANES = list(Lane)
TASK_SHARE = 0.25
WAGE = TASK_SHARE / (1 - TASK_SHARE)
"""Seconds that tasks earn for each second of interactive audio that passes them."""

Batch = tuple[Sequence[WindowItem], threading.Event, list[Exception], int]
"""Windows in the engine, what lets them go on, how they shall fail, and the thread."""


def silence() -> Audio:
    return np.zeros(160, np.float32)


async def settle_only() -> None:
    """Let callbacks run that are due."""
    for _ in range(6):
        await asyncio.sleep(0)


class Request:
    """One admitted request and what became of its windows."""

    def __init__(self, ticket: Ticket, seconds: float) -> None:
        self.ticket = ticket
        self.seconds = seconds
        self.windows: dict[str, asyncio.Task[Decoded]] = {}
        self.left = False


class Engine(FakeEngine):
    """Holds each batch until it is told how it ends, and perhaps lets others pass meanwhile."""

    def __init__(self, replicas: int, passing: str) -> None:
        steps, spare = int(passing == "steps"), int(passing == "spare")
        super().__init__(FakeOptions(replicas=replicas, steps=steps, spare=spare))
        self.running: list[Batch] = []
        self.keys: list[str] = []
        self._guard = threading.Lock()

    def decode(self, items: Sequence[WindowItem]) -> list[Decoded]:
        go_on, error = threading.Event(), list[Exception]()
        with self._guard:
            batch = (items, go_on, error, threading.get_ident())
            self.running.append(batch)
        try:
            self._wait(go_on)
        except Abandoned:
            with self._guard, suppress(ValueError):  # the test is over
                self.running.remove(batch)
            raise
        if error:
            raise error[0]
        self.keys += [item.key for item in items]
        return super().decode(items)

    def _wait(self, go_on: threading.Event) -> None:
        until = time.monotonic() + 120
        while not go_on.wait(0.001):
            assert time.monotonic() < until
            if self.info.in_steps:
                step()


class SchedulerMachine(RuleBasedStateMachine):
    """Requests come, ask, leave; batches end well, badly, or out of memory; time goes on."""

    @initialize(replicas=st.integers(1, 2), passing=st.sampled_from(["", "steps", "spare"]))
    def start(self, replicas: int, passing: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        chosen = Settings(
            batch_size=BATCH,
            max_queued_seconds=MOST_SECONDS,
            max_concurrent_requests=MOST_REQUESTS,
            max_batch_seconds=2,
            task_share=TASK_SHARE,
        )
        # Replicas that idle for short requests do so by real time: ``test_reserve``.
        # How long a batch lets others pass goes by real time, too: ``test_passing``.
        self.patched = ExitStack()
        self.patched.enter_context(mock.patch("whisper_api.batching.IDLE_SECONDS", 0.0))
        self.patched.enter_context(mock.patch("whisper_api.passing.LENT_SECONDS", 1e9))
        self.scheduler = Scheduler(chosen, clock=lambda: self.now)
        self.engine = Engine(replicas, passing)
        self.guests: set[str] = set()  # windows that passed a batch
        taken = FairQueue.take_short

        def take_short(queue: FairQueue[Any], most: int) -> list[Any]:
            jobs = taken(queue, most)
            self.guests |= {job.key for job in jobs}
            return jobs

        self.patched.enter_context(mock.patch.object(FairQueue, "take_short", take_short))
        self.requests: list[Request] = []
        self.count = 0
        self.closed = False
        self.stopping = False  # nothing new is let in, the shortest go first
        self.passed = 0.0  # seconds of interactive audio served while tasks waited
        self.let_in = 0.0  # seconds of tasks served while interactive requests waited
        self.owed = 0.0  # what tasks have earned since they wait without a break
        self.lanes: dict[str, Lane] = {}  # of each window
        self.told: set[str] = set()  # windows of batches that were looked at
        self.halved: set[str] = set()

    def turn(self, work: Callable[[], Any] = lambda: None) -> Any:
        """Run ``work`` on the loop and let everything settle that can."""

        async def settle() -> Any:
            result = work()
            await settle_only()
            return result

        result = self.loop.run_until_complete(settle())
        self.wait_for_threads()
        return result

    def wait_for_threads(self) -> None:
        """Until each batch that the scheduler runs is held by the engine, and it starts no more,
        nor is anybody about to pass."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if self.all_held():
                self.loop.run_until_complete(settle_only())
                if self.all_held():
                    return
            self.loop.run_until_complete(asyncio.sleep(0.001))
        raise AssertionError("a batch was lost between the scheduler and the engine")

    def all_held(self) -> bool:
        if self.engine.info.in_steps:
            runners = self.scheduler._runners.values()
            ends = any(not self.wanted(batch) for batch in self.on_top())
            if ends or any(self.about_to_pass(runner) for runner in runners):
                return False
        return self.scheduler.state().running_batches == len(self.engine.running)

    def about_to_pass(self, runner: Any) -> bool:
        hosts = [b for b in self.on_top() if not self.passes(b) and self.has_long(b)]
        return any(runner._passing.over(self.lanes[b[0][0].key]) for b in hosts)

    def wanted(self, batch: Batch) -> bool:
        """Whether somebody waits for it; else it ends at its next step."""
        keys = {item.key for item in batch[0]}
        return any(
            not task.done() and key in keys for r in self.alive() for key, task in r.windows.items()
        )

    def on_top(self) -> list[Batch]:
        """Batches that can end: none runs in their thread beside them."""
        return list({batch[3]: batch for batch in self.engine.running}.values())

    def passes(self, batch: Batch) -> bool:
        """Whether it runs in another one's thread."""
        place = self.engine.running.index(batch)
        return any(other[3] == batch[3] for other in self.engine.running[:place])

    def alive(self) -> list[Request]:
        return [request for request in self.requests if not request.left]

    # --- what may happen ------------------------------------------------------------------------

    @precondition(lambda self: not self.closed and not self.stopping)
    @rule(
        lane=st.sampled_from(LANES),
        seconds=st.sampled_from([3.0, 30.0, 90.0, 250.0]),
        windows=st.integers(0, 12),
    )
    def come(self, lane: Lane, seconds: float, windows: int) -> None:
        queued = self.scheduler.queued_seconds
        full = queued > 0 and queued + seconds > MOST_SECONDS
        if full or len(self.alive()) >= MOST_REQUESTS:
            with pytest.raises(Overloaded) as refused:
                self.turn(lambda: self.scheduler.admit(lane, seconds))
            assert 1 <= refused.value.retry_after <= 120
            return
        ticket = self.turn(lambda: self.scheduler.admit(lane, seconds))
        self.turn(lambda: ticket.bind(self.engine))
        self.requests.append(Request(ticket, seconds))
        self.turn(lambda: self.submit(self.requests[-1], windows, DecodeParams("en")))

    def submit(self, request: Request, windows: int, params: DecodeParams) -> None:
        for _ in range(windows):
            key = f"w{self.count}"
            self.count += 1
            work = request.ticket.decode(key, silence, 1.0, params, self.count)
            self.lanes[key] = request.ticket.lane
            request.windows[key] = asyncio.ensure_future(work)

    @precondition(lambda self: self.alive() and not self.closed)
    @rule(data=st.data(), windows=st.integers(1, 6), prompted=st.booleans())
    def ask(self, data: st.DataObject, windows: int, prompted: bool) -> None:
        request = data.draw(st.sampled_from(self.alive()))
        params = DecodeParams("en", prompt=(1, 2) if prompted else ())

        self.turn(lambda: self.submit(request, windows, params))

    @precondition(lambda self: len(self.alive()) > 2)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.alive()))
        request.left = True
        self.turn(request.ticket.close)

    @precondition(lambda self: self.engine.running)
    @rule(data=st.data(), how=st.sampled_from(["good", "good", "good", "error", "memory"]))
    def end_batch(self, data: st.DataObject, how: str) -> None:
        self.end_one(data.draw(st.sampled_from(self.on_top())), how)

    def end_one(self, batch: Batch, how: str) -> None:
        items, go_on, error, _ = batch
        passes = any(item.key in self.guests for item in items)
        if how == "error":
            error.append(EngineError("broken"))
        elif how == "memory":
            error.append(EngineOutOfMemory())
        self.now += 0.5 * len(items)
        self.engine.running.remove(batch)
        keys = {item.key for item in items}
        if how == "memory" and (len(keys) > 1 or passes):
            self.halved |= keys  # answered together, once both halves are done, or all again
        go_on.set()
        self.turn()
        if not keys & self.halved:
            for request in self.alive():
                assert all(task.done() for key, task in request.windows.items() if key in keys)

    @precondition(lambda self: self.engine.running and not self.closed)
    @rule(turns=st.integers(1, 12), fed=st.sampled_from([None, *LANES]))
    def batches_end_well(self, turns: int, fed: Lane | None) -> None:
        """One after the other, while the requests of a lane go on asking."""
        for _ in range(turns):
            for request in self.alive():
                if request.ticket.lane is fed:
                    self.turn(partial(self.submit, request, 2, DecodeParams("en")))
                    self.batches_are_of_those_whose_turn_it_is()
            if self.engine.running:
                self.end_one(self.on_top()[0], "good")
                self.batches_are_of_those_whose_turn_it_is()

    @precondition(lambda self: self.alive())
    @rule(seconds=st.sampled_from([0.1, 5.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), seconds=st.sampled_from([1.0, 30.0]))
    def settle_some(self, data: st.DataObject, seconds: float) -> None:
        request = data.draw(st.sampled_from(self.alive()))
        request.ticket.settle(seconds)

    @precondition(lambda self: not self.stopping and len(self.alive()) > 2)
    @rule()
    def stop_admitting(self) -> None:
        self.stopping = True
        self.scheduler.stop_admitting()
        with pytest.raises(ShuttingDown):
            self.scheduler.admit()

    @precondition(lambda self: not self.closed and not self.engine.running and self.count > 20)
    @rule()
    def close(self) -> None:
        self.closed = True
        self.loop.run_until_complete(self.scheduler.close())
        self.turn()
        for request in self.alive():
            for task in request.windows.values():
                assert task.done()
        with pytest.raises(ShuttingDown):
            self.scheduler.admit()

    # --- what always holds ----------------------------------------------------------------------

    @invariant()
    def admission_is_bounded(self) -> None:
        assert len(self.scheduler.places()) == len(self.alive()) <= MOST_REQUESTS
        largest = max((request.seconds for request in self.alive()), default=0.0)
        assert self.scheduler.queued_seconds <= max(MOST_SECONDS, largest)

    @invariant()
    def batches_are_small_and_of_one_kind(self) -> None:
        for items, *_ in self.engine.running:
            assert 1 <= len(items) <= BATCH
            assert len({item.params.batch_key for item in items}) == 1

    @invariant()
    def only_short_ones_pass_only_long_ones(self) -> None:
        info, kinds = self.engine.info, [self.has_long(batch) for batch in self.engine.running]
        assert len(kinds) <= info.replicas * (1 + info.in_steps) + info.spare
        assert kinds.count(True) <= info.replicas
        guests = [] if info.spare else [b for b in self.engine.running if self.passes(b)]
        assert len(kinds) - len(guests) <= info.replicas + info.spare
        for guest in guests:
            assert info.in_steps
            assert not self.has_long(guest)
            (host,) = [b for b in self.engine.running if b[3] == guest[3] and b is not guest]
            assert self.has_long(host)

    def has_long(self, batch: Batch) -> bool:
        return any(self.is_long(item.key) for item in batch[0])

    def is_long(self, key: str) -> bool:
        return any(key in r.windows and r.seconds > SHORT_SECONDS for r in self.requests)

    @invariant()
    def no_window_is_decoded_twice(self) -> None:
        assert len(self.engine.keys) == len(set(self.engine.keys))

    @invariant()
    def who_left_has_no_work_waiting(self) -> None:
        for request in self.requests:
            if request.left:
                assert all(task.done() for task in request.windows.values())

    @invariant()
    def nothing_idles_while_work_waits(self) -> None:
        """Each window that is not answered runs, or all of the engine is busy."""
        if self.closed:
            return
        running = {item.key for items, *_ in self.engine.running for item in items}
        waiting = self.waiting(running | self.halved)
        assert not waiting or len(self.engine.running) >= self.engine.info.replicas

    def waiting(self, running: set[str]) -> list[tuple[str, Request]]:
        """Windows that are neither done nor in ``running``, and whose they are."""
        return [
            (key, request)
            for request in self.alive()
            for key, task in request.windows.items()
            if not task.done() and key not in running
        ]

    @invariant()
    def batches_are_of_those_whose_turn_it_is(self) -> None:
        batches = [{item.key for item in items} for items, *_ in self.engine.running]
        running = {key for batch in batches for key in batch}
        fresh = [batch for batch in batches if not batch & self.told]
        self.told |= running
        waiting = self.waiting(running | self.halved)  # second halves have had their turn
        for batch in fresh:
            self.check_turn(batch, waiting)
        # Who passes does so beside the lanes' order.
        self.count_shares([batch for batch in fresh if not batch & self.guests], waiting)

    def check_turn(self, batch: set[str], waiting: list[tuple[str, Request]]) -> None:
        lanes = {self.lanes[key] for key in batch}
        assert len(lanes) == 1
        lane = lanes.pop()
        above = {request.ticket.lane for _, request in waiting} & set(LANES[: LANES.index(lane)])
        # Only tasks may go before a higher lane, before interactive requests and by their claim.
        assert not above or (lane is Lane.TASK and above == {Lane.INTERACTIVE})
        if self.stopping:
            assert not above
            served = [r for r in self.requests if batch & r.windows.keys()]
            rest = [r.ticket.seconds for _, r in waiting if r.ticket.lane is lane]
            assert min(r.ticket.seconds for r in served) <= min(rest, default=float("inf"))

    def count_shares(self, batches: list[set[str]], waiting: list[tuple[str, Request]]) -> None:
        """Neither lane gets more of the other's part than one batch too much."""
        wait = {request.ticket.lane for _, request in waiting}
        for batch in batches:
            lane = self.lanes[min(batch)]
            if lane is Lane.INTERACTIVE:
                self.passed += len(batch)  # each window is a second
                self.owed += WAGE * len(batch) if Lane.TASK in wait else 0
            elif lane is Lane.TASK:
                self.owed = 0.0
                self.let_in += len(batch) if Lane.INTERACTIVE in wait else 0
        if Lane.TASK not in wait or self.stopping:
            self.owed = 0.0
        assert self.let_in <= WAGE * self.passed + 1e-9
        # A window's worth, and what the batches of one turn may add before tasks are looked at.
        assert self.owed < 1 + WAGE * BATCH * self.engine.info.replicas

    @invariant()
    def answers_go_to_those_who_asked(self) -> None:
        for request in self.alive():
            for task in request.windows.values():
                if task.done() and not task.cancelled() and task.exception() is None:
                    assert isinstance(task.result(), Decoded)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        for _, go_on, *_ in self.engine.running:
            go_on.set()
        self.engine.running.clear()

        async def end() -> None:
            tasks = [task for request in self.requests for task in request.windows.values()]
            for request in self.alive():
                request.ticket.close()
            await self.scheduler.close()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.loop.run_until_complete(asyncio.wait_for(end(), 30))
        self.loop.close()
        self.patched.close()


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
