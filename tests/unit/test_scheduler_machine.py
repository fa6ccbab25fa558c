"""The scheduler's promises under any order of events: a state machine with a clock of its own and
an engine that answers only when it is told to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from whisper_api.config import Settings
from whisper_api.engines.base import Decoded, DecodeParams, WindowItem
from whisper_api.engines.fake import FakeEngine, FakeOptions
from whisper_api.errors import EngineError, EngineOutOfMemory, Overloaded, ShuttingDown
from whisper_api.scheduler import Scheduler, Ticket
from whisper_api.types import Audio, Lane

MOST_SECONDS = 300.0
MOST_REQUESTS = 6
BATCH = 4
LANES = list(Lane)


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
    """Holds each batch until it is told how it ends."""

    def __init__(self, replicas: int) -> None:
        super().__init__(FakeOptions(replicas=replicas))
        self.running: list[tuple[Sequence[WindowItem], threading.Event, list[Exception]]] = []
        self.keys: list[str] = []
        self._guard = threading.Lock()

    def decode(self, items: Sequence[WindowItem]) -> list[Decoded]:
        go_on, error = threading.Event(), list[Exception]()
        with self._guard:
            self.running.append((items, go_on, error))
        assert go_on.wait(30)
        if error:
            raise error[0]
        self.keys += [item.key for item in items]
        return super().decode(items)


class SchedulerMachine(RuleBasedStateMachine):
    """Requests come, ask, leave; batches end well, badly, or out of memory; time goes on."""

    @initialize(replicas=st.integers(1, 2))
    def start(self, replicas: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        chosen = Settings(
            batch_size=BATCH,
            max_queued_seconds=MOST_SECONDS,
            max_concurrent_requests=MOST_REQUESTS,
            max_batch_seconds=2,
        )
        self.scheduler = Scheduler(chosen, clock=lambda: self.now)
        self.engine = Engine(replicas)
        self.requests: list[Request] = []
        self.count = 0
        self.closed = False
        self.lanes: dict[str, Lane] = {}  # of each window
        self.told: set[str] = set()  # windows of batches that were looked at
        self.halves = False
        self.halved: set[str] = set()

    def turn(self, work: Callable[[], Any] = lambda: None) -> Any:
        """Run ``work`` on the loop and let everything settle that can."""

        async def settle() -> Any:
            result = work()
            await settle_only()
            return result

        result = self.loop.run_until_complete(settle())
        self.wait_for_threads()
        self.loop.run_until_complete(settle_only())
        return result

    def wait_for_threads(self) -> None:
        """Until each batch that the scheduler runs is held by the engine."""
        for _ in range(3000):
            if self.scheduler.state().running_batches == len(self.engine.running):
                return
            self.loop.run_until_complete(asyncio.sleep(0.001))
        raise AssertionError("a batch was lost between the scheduler and the engine")

    def alive(self) -> list[Request]:
        return [request for request in self.requests if not request.left]

    # --- what may happen ------------------------------------------------------------------------

    @precondition(lambda self: not self.closed)
    @rule(lane=st.sampled_from(LANES), seconds=st.sampled_from([3.0, 30.0, 90.0, 250.0]))
    def come(self, lane: Lane, seconds: float) -> None:
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

    @precondition(lambda self: self.alive() and not self.closed)
    @rule(data=st.data(), windows=st.integers(1, 6), prompted=st.booleans())
    def ask(self, data: st.DataObject, windows: int, prompted: bool) -> None:
        request = data.draw(st.sampled_from(self.alive()))
        params = DecodeParams("en", prompt=(1, 2) if prompted else ())

        def submit() -> None:
            for _ in range(windows):
                key = f"w{self.count}"
                self.count += 1
                work = request.ticket.decode(key, silence, 1.0, params, self.count)
                self.lanes[key] = request.ticket.lane
                request.windows[key] = asyncio.ensure_future(work)

        self.turn(submit)

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.alive()))
        request.left = True
        self.turn(request.ticket.close)

    @precondition(lambda self: self.engine.running)
    @rule(data=st.data(), how=st.sampled_from(["good", "good", "good", "error", "memory"]))
    def end_batch(self, data: st.DataObject, how: str) -> None:
        batch = data.draw(st.sampled_from(self.engine.running))
        items, go_on, error = batch
        if how == "error":
            error.append(EngineError("broken"))
        elif how == "memory":
            error.append(EngineOutOfMemory())
        self.now += 0.5 * len(items)
        self.halves = how == "memory"
        self.engine.running.remove(batch)
        keys = {item.key for item in items}
        if how == "memory" and len(keys) > 1:
            self.halved |= keys  # answered together, once both halves are done
        go_on.set()
        self.turn()
        if not keys & self.halved:
            for request in self.alive():
                assert all(task.done() for key, task in request.windows.items() if key in keys)

    @rule(seconds=st.sampled_from([0.1, 5.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.closed and not self.engine.running)
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
        for items, _, _ in self.engine.running:
            assert 1 <= len(items) <= BATCH
            assert len({item.params.batch_key for item in items}) == 1

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
        running = {item.key for items, _, _ in self.engine.running for item in items}
        running |= self.halved
        waiting = {
            key
            for request in self.alive()
            for key, task in request.windows.items()
            if not task.done() and key not in running
        }
        assert not waiting or len(self.engine.running) == self.engine.info.replicas

    @invariant()
    def a_batch_is_of_the_highest_lane_that_waits(self) -> None:
        running = {item.key for items, _, _ in self.engine.running for item in items}
        fresh = running - self.told
        self.told |= running
        if not self.halves and fresh:
            waiting = [
                LANES.index(self.lanes[key])
                for request in self.alive()
                for key, task in request.windows.items()
                if not task.done() and key not in running
            ]
            worst = max(LANES.index(self.lanes[key]) for key in fresh)
            assert all(rank >= worst for rank in waiting)
        self.halves = False

    @invariant()
    def answers_go_to_those_who_asked(self) -> None:
        for request in self.alive():
            for task in request.windows.values():
                if task.done() and not task.cancelled() and task.exception() is None:
                    assert isinstance(task.result(), Decoded)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        for _, go_on, _ in self.engine.running:
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


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
