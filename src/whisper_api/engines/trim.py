"""Memory that was needed for a moment, given back to the system."""

from __future__ import annotations

import ctypes
import sys


def trim() -> None:
    """Give back what is free: glibc keeps what trials and conversions have used, for small in the
    size of a model and more. Other systems' allocators do so by themselves or cannot be told."""
    if sys.platform == "linux":
        give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if give_back is not None:  # musl has none
            give_back(0)
