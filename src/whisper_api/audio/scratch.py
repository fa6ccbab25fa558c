"""Temporary files: one folder per request, gone when the request ends, swept after a crash.

Layout under the root: each process owns ``<pid>-<token>/`` with one folder per request, and
holds a lock on ``<pid>-<token>.lock`` for as long as it lives. A lock that can be taken
belongs to the dead; that stays true across containers that share the root, where process
numbers say nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import tempfile
import threading
from pathlib import Path
from types import TracebackType

from whisper_api.locks import try_lock

_OWNER = re.compile(r"\d+-[0-9a-f]{12}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Scratch:
    """One request's folder; every path in it disappears with ``close``."""

    def __init__(self, folder: Path) -> None:
        """``folder`` exists and belongs to this object alone."""
        self.folder = folder

    @classmethod
    def create(cls, root: Path) -> Scratch:
        """A new empty folder under ``root`` (made when missing), readable by this user only."""
        owned = _process_folder(root)
        owned.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(Path(tempfile.mkdtemp(prefix="request-", dir=owned)))

    def path(self, name: str) -> Path:
        """The path of a file in this folder; ``name`` is ours, never a caller's.

        Raises:
            ValueError: the name holds anything but letters, digits, ``.``, ``_`` and ``-``.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a scratch file name: {name!r}")
        return self.folder / name

    def unique(self, stem: str, suffix: str = "") -> Path:
        """A path in this folder that no other call gets."""
        return self.path(f"{stem}-{secrets.token_hex(6)}{suffix}")

    def close(self) -> None:
        """Remove the folder and all in it; calling it again does nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Scratch:
        """The folder itself; it is removed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the folder, whatever happened in the block."""
        self.close()

    async def __aenter__(self) -> Scratch:
        """As ``__enter__``; the removal then happens off the event loop."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the folder in a thread, also when the task is cancelled meanwhile."""
        try:
            await asyncio.shield(asyncio.to_thread(self.close))
        except asyncio.CancelledError:
            self.close()
            raise


def sweep(root: Path) -> int:
    """Remove what dead processes left under ``root``; the number of request folders removed.

    Folders of living processes, and files that this module did not make, are left alone.
    """
    removed = 0
    mine = _owners.get(_key(root))
    for lock in sorted(root.glob("*-*.lock")):
        if not _OWNER.fullmatch(lock.stem) or (mine and mine.lock == lock):
            continue
        handle = try_lock(lock)
        if handle is not None:
            removed += _remove_owner(root / lock.stem, lock)
            os.close(handle)
    return removed


def _remove_owner(folder: Path, lock: Path) -> int:
    requests = len(list(folder.glob("*"))) if folder.is_dir() else 0
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        lock.unlink()
    return requests


class _Owner:
    """This process's claim on one root; the open handle is the lock."""

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.pid = os.getpid()
        while True:
            name = f"{self.pid}-{secrets.token_hex(6)}"
            self.folder, self.lock = root / name, root / f"{name}.lock"
            os.close(os.open(self.lock, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            handle = try_lock(self.lock, ours=True)
            # A sweep between the creation and the lock may have taken the file away.
            if handle is not None and self.lock.exists():
                self.handle = handle
                return


_owners: dict[str, _Owner] = {}
_owners_guard = threading.Lock()


def _key(root: Path) -> str:
    return str(root.absolute())


def _process_folder(root: Path) -> Path:
    with _owners_guard:
        owner = _owners.get(_key(root))
        if owner is None or owner.pid != os.getpid() or not owner.lock.exists():
            owner = _owners[_key(root)] = _Owner(root)
        return owner.folder
