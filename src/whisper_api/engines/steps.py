"""Where an engine's call may be left for a moment, so that another one goes in between.

Engines that work in many small steps call ``step`` between two of them, while they hold nothing
that another call of the same engine would need. Who runs an engine says what happens there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_HERE = threading.local()


@contextmanager
def between_steps(call: Callable[[], None] | None) -> Iterator[None]:
    """Within, each ``step`` of this thread calls ``call``, which may use the engine and may raise;
    None: nothing happens there."""
    before = getattr(_HERE, "call", None)
    _HERE.call = call
    try:
        yield
    finally:
        _HERE.call = before


def step() -> None:
    """One step of an engine ends here and the next one begins."""
    call: Callable[[], None] | None = getattr(_HERE, "call", None)
    if call is not None:
        call()
