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

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Add the seconds of the block, failed or not, to one of ``PARTS``."""
        started = perf_counter()
        try:
            yield
        finally:
            seconds = perf_counter() - started
            with self._lock:
                self._seconds[part] += seconds

    def read(self) -> Mapping[str, float]:
        """The seconds so far."""
        with self._lock:
            return dict(self._seconds)


ENGINE_CLOCK = PartClock()
"""Of all engines, loaded now or before."""
