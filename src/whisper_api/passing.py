"""How windows of short requests pass a batch of long ones that runs.

A batch cannot be stopped, but an engine that works in steps lets others pass between two of them
(``engines.steps``): the thread that runs it fetches a small batch of short requests from the queue,
runs that, and goes on where it was. So a clip waits for a step, not for a batch, and batches of
long recordings can stay large. A batch whose callers are all gone ends at its next step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Event
from time import perf_counter
from typing import Any, Protocol

from whisper_api.engines.timing import ENGINE_CLOCK
from whisper_api.errors import EngineError
from whisper_api.fairness import LANES
from whisper_api.types import Lane

PASSING_WINDOWS = 4
"""Windows that pass at once: their memory comes on top of that of the batch they pass."""
LENT_SECONDS, LENT_PART = 1.0, 0.75
"""How long a batch lets others pass: so many seconds, and then this part of its time, so that
endless short requests cannot keep it for ever."""
_PATIENCE = 1.0
"""Seconds that the queue is waited for, while the engine idles."""


class Abandoned(EngineError):
    """Nobody waits for the batch any more."""


class Wanted(Protocol):
    """Something that may have been cancelled."""

    @property
    def done(self) -> asyncio.Future[Any]:
        """Where its result is waited for."""
        ...


@dataclass(slots=True)
class Passing:
    """What the threads of one engine may see of its queue."""

    fetch: Callable[[Future[Sequence[Any] | None], Lane], object]
    """Called on the event loop; answers with a batch of short requests that may pass one of this
    lane now, or None."""
    run: Callable[[Sequence[Any]], None]
    """Runs such a batch in the calling thread and sees to its answers."""
    inline: bool = True  #: others pass in the thread of the batch; else beside it
    lane: Lane | None = None  #: of short requests that may pass those of the same or lower lanes
    beside: Lane | None = None  #: of who passes, or passed last, beside
    nobody: Event = field(default_factory=Event)  #: unset while somebody passes beside
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def over(self, lane: Lane) -> bool:
        """Whether somebody is likely to pass a batch of this lane."""
        waiting = self.lane
        return waiting is not None and is_over(waiting, lane)

    def begin_beside(self) -> None:
        """Somebody of the lane that waits passes beside."""
        self.beside = self.lane
        self.nobody.clear()

    def __post_init__(self) -> None:
        """Nobody passes yet."""
        self.nobody.set()

    def next(self, lane: Lane) -> Sequence[Any] | None:
        """What may pass a batch of this lane now; from any thread but the loop's."""
        asked: Future[Sequence[Any] | None] = Future()
        try:
            self.loop.call_soon_threadsafe(self.fetch, asked, lane)
            return asked.result(_PATIENCE)
        except TimeoutError:  # a busy or a stopped loop
            return None if asked.cancel() else asked.result()
        except RuntimeError:  # a closed one
            return None


@dataclass(slots=True)
class Host:
    """A batch that runs; called between its steps, in its thread."""

    jobs: Sequence[Wanted]  #: those in the engine now
    passing: Passing | None  #: None: nobody may pass it
    lane: Lane
    lent: float = 0.0  #: seconds that others had
    since: float = field(default_factory=perf_counter)

    def __call__(self) -> None:
        """Let others pass.

        Raises:
            Abandoned: all callers of the batch are gone.
        """
        if all(job.done.done() for job in self.jobs):
            raise Abandoned
        passing = self.passing
        if passing is None or not self.affords(started := perf_counter()):
            return
        if not passing.inline:
            if passing.beside is None or not is_over(passing.beside, self.lane):
                return
            passing.nobody.wait(_PATIENCE)  # what passes beside has the processor for itself
        elif passing.over(self.lane) and (batch := passing.next(self.lane)) is not None:
            passing.run(batch)
        took = perf_counter() - started
        self.lent += took
        ENGINE_CLOCK.lend(took)

    def affords(self, now: float) -> bool:
        """Whether it still lets others pass."""
        return self.lent <= LENT_SECONDS + LENT_PART * (now - self.since)


def is_over(lane: Lane, other: Lane) -> bool:
    """Whether ``lane`` is the same as ``other`` or a higher one."""
    return LANES.index(lane) <= LANES.index(other)
