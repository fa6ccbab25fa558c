"""Threads for audio: long work beside short work."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable

import pytest
from tests.waiting import PATIENCE_S, until

from whisper_api.audio import effort as module
from whisper_api.audio.effort import LIGHT_SECONDS, Effort


def niceness(_: Callable[[], bool]) -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
@pytest.mark.parametrize("seconds", [1.0, LIGHT_SECONDS + 1])
async def test_no_thread_holds_the_interpreter_at_a_lower_priority(seconds: float) -> None:
    effort = Effort(1)
    try:
        assert await effort.run(seconds, niceness) == niceness(lambda: False)
    finally:
        effort.close()


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize(("pause", "passed"), [(PATIENCE_S, 1), (0.001, 3)])
async def test_long_work_pauses_between_its_steps_once_short_work_begins(
    pause: float, passed: int, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", pause)
    effort, steps, go_on = Effort(1), list[bool](), threading.Semaphore(0)

    def work(cancelled: Callable[[], bool]) -> None:
        for _ in range(3):
            steps.append(cancelled())
            assert go_on.acquire(timeout=PATIENCE_S)

    try:
        long = asyncio.create_task(effort.run(LIGHT_SECONDS + 1, work))
        await until(lambda: steps == [False])
        if runs:
            await effort.run(1.0, lambda cancelled: None)
        else:
            effort.expect(1.0)
        effort.expect(LIGHT_SECONDS + 1)  # that is nothing to pause for
        go_on.release(3)
        if passed > 1:
            await long
        assert steps == [False] * passed
        long.cancel()  # whoever leaves is not kept by a pause
        await until(lambda: len(steps) == 3)
        assert steps == [False] * passed + [True] * (3 - passed)
    finally:
        effort.close()
