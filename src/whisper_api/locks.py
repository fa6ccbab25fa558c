"""Files that processes share: locks that end with their process, and values made once."""

from __future__ import annotations

import os
import secrets
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


def write_once(path: Path, text: str) -> str:
    """What ``path`` holds; ``text`` where nobody has written it yet. Only this user may read it.

    Raises:
        OSError: the folder cannot be written.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}-{secrets.token_hex(6)}.tmp")
        draft.touch(mode=0o600)
        draft.write_text(text, "utf-8")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was first
        finally:
            draft.unlink()
    return path.read_text("utf-8")


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
