"""Where the engines of this process spend their time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

PARTS = ("features", "encode", "decode", "align")


class PartClock:
    """Seconds of work by part, since the process started; of threads side by side each counts."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._lock = threading.Lock()
        self._here = threading.local()

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Add the seconds of the block, failed or not, to one of ``PARTS``."""
        started = perf_counter() - self._lent()
        try:
            yield
        finally:
            seconds = perf_counter() - self._lent() - started
            with self._lock:
                self._seconds[part] += seconds

    def lend(self, seconds: float) -> None:
        """So much of this thread's time was not that of the blocks it is in: others passed."""
        self._here.lent = self._lent() + seconds

    def _lent(self) -> float:
        return float(getattr(self._here, "lent", 0.0))

    def read(self) -> Mapping[str, float]:
        """The seconds so far."""
        with self._lock:
            return dict(self._seconds)


ENGINE_CLOCK = PartClock()
"""Of all engines, loaded now or before."""
