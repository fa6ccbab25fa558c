"""Files of this machine: opened only where they truly lie in an allowed folder, and copied."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

from whisper_api.audio.media import display_name
from whisper_api.audio.uploads import DISK_FULL, PORTION, UploadWriter
from whisper_api.errors import NotFound, PathRefused, StorageFull


def copy_inside(file_path: str, roots: tuple[Path, ...], writer: UploadWriter) -> None:
    """Copy a file that truly lies in one of ``roots``, links and ``..`` resolved.

    Raises:
        PathRefused: it does not; whether such a path exists elsewhere is not told.
    """
    try:
        real = Path(file_path).resolve(strict=True)
        allowed = [root.resolve() for root in roots]
    except (OSError, ValueError, RuntimeError) as error:
        raise PathRefused from error
    if not _within(real, allowed):
        raise PathRefused
    writer.name = display_name(real.name)
    with _open_regular(real) as file:
        # A folder on the way may have become a link since it was looked at.
        if not _within(_opened_path(file, real), allowed):
            raise PathRefused
        _copy(file, writer)


def copy_own(path: Path, writer: UploadWriter) -> None:
    """Copy a regular file that the process's owner named.

    Raises:
        PathRefused: it cannot be read, or is a folder, device or pipe.
    """
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise PathRefused(f"{path} cannot be read.", param="file") from error
    with _open_regular(real) as file:
        _copy(file, writer)


def link_and_hash(path: Path, target: Path) -> str:
    """Put a file of our own at ``target``, hard-linked where that can be; its sha256 in hex.

    Raises:
        NotFound: it is gone.
        StorageFull: it had to be copied, and there is no room.
    """
    try:
        try:
            os.link(path, target)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(path, target)
        with target.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise NotFound("The upload was removed meanwhile.", param="audio_id") from error
    except OSError as error:
        if error.errno in DISK_FULL:
            raise StorageFull from error
        raise


def _within(path: Path, roots: list[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


def _opened_path(file: BinaryIO, path: Path) -> Path:
    """Where an open file lies, as the system tells it; elsewhere, where its path leads now."""
    try:
        return Path(os.readlink(f"/proc/self/fd/{file.fileno()}"))
    except OSError:
        now = path.resolve(strict=True)
        same = os.path.samestat(os.fstat(file.fileno()), now.stat())
        return now if same else Path("changed")


def _open_regular(path: Path) -> BinaryIO:
    """A regular file for reading; links, devices and pipes are refused without waiting on them."""
    names = ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_NOCTTY", "O_CLOEXEC")
    flags = os.O_RDONLY
    for name in names:
        flags |= getattr(os, name, 0)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        raise PathRefused(f"The file cannot be read ({error.strerror}).") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise PathRefused("The path is not a regular file.")
    return os.fdopen(handle, "rb")


def _copy(file: BinaryIO, writer: UploadWriter) -> None:
    while data := file.read(PORTION):
        writer.write(data)
