"""Locks on files: held as long as the handle is open, gone with the process however it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def try_lock(path: Path, *, ours: bool = False) -> int | None:
    """An open handle that holds the lock of an existing file; None when another process has it.

    Close the handle to let go. Where the file system has no locks, ``ours`` still succeeds and
    every other counts as held.
    """
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        _lock(handle)
    except OSError:
        if ours:
            return handle
        os.close(handle)
        return None
    return handle


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
