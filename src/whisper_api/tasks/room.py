"""Whether this process should take more work, by the audio that its engine has before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from whisper_api.engines.base import DEFAULT_BATCH, batch_size_of
from whisper_api.tasks.claims import Kind
from whisper_api.tasks.live import Parts
from whisper_api.tasks.runner import Runner
from whisper_api.types import WINDOW_SECONDS, Lane

BATCHES_AHEAD = 2
"""Full batches of each replica, the one that runs included, that make more work unnecessary: the
next piece gets ready while the last of them runs."""


@dataclass(frozen=True, slots=True)
class Room:
    """Called from threads, with what DBOS runs here: so many pieces."""

    parts: Parts
    runner: Runner
    takers: Callable[[], int]  #: processes that take work, as far as known

    def __call__(self, kind: Kind, taken: int) -> bool:
        """Whether to take one more; as many as there are slots where nobody else would."""
        if self.runner.leaving:
            return False
        beginning = max(0, taken - self.runner.busy)
        if kind == "requests":
            return self._ahead(Lane.INTERACTIVE) + WINDOW_SECONDS * beginning < self.enough
        if self.takers() < 2:
            return True
        lanes = (Lane.TASK,) if kind == "tasks" else (Lane.TASK, Lane.INTERACTIVE)
        # How much audio the one that begins brings is not known yet.
        return not beginning and self._ahead(*lanes) < self.enough

    @property
    def enough(self) -> float:
        """Seconds of audio in ``BATCHES_AHEAD`` of all replicas."""
        settings = self.parts.settings
        windows = [
            engine.info.replicas * batch_size_of(engine.info, settings)
            for engine in self.parts.pool.loaded()
        ]
        alone = settings.batch_size or DEFAULT_BATCH
        return float(BATCHES_AHEAD * WINDOW_SECONDS * max(alone, sum(windows)))

    def _ahead(self, *lanes: Lane) -> float:
        """Seconds of audio that were taken and are not done."""
        queued = self.parts.scheduler.state().by_lane
        return sum(queued[lane.value] for lane in lanes) + self.runner.unread(*lanes)
