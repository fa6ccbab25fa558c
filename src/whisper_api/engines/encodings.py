"""Encoder outputs kept between detection, decoding, the fallback ladder and alignment."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

Encoding = NDArray[Any]
"""One window's encoder output: ``[1, frames / 2, d_model]``, float32 or float16."""


class Encodings:
    """A small, thread-safe memory of encoder outputs; the least recently used leave first."""

    def __init__(self, max_bytes: int) -> None:
        """Hold ``max_bytes`` at most (but always the newest one)."""
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, Encoding] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> Encoding | None:
        """What was kept for ``key``."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: str, encoding: Encoding) -> None:
        """Keep one more; older ones leave while there is too much."""
        with self._lock:
            self._drop(key)
            self._kept[key] = encoding
            self._bytes += encoding.nbytes
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                self._drop(next(iter(self._kept)))

    def release(self, keys: Iterable[str]) -> None:
        """Forget these; unknown keys are ignored."""
        with self._lock:
            for key in keys:
                self._drop(key)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def _drop(self, key: str) -> None:
        old = self._kept.pop(key, None)
        if old is not None:
            self._bytes -= old.nbytes
