"""Files by key, on a local folder or an object store (fsspec); whole or not at all.

Locally a file is written beside its place, synced and renamed; object stores are atomic by
themselves. All methods block: call them from threads.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from whisper_api.config import Settings
from whisper_api.errors import (
    DatabaseUnavailable,
    NotFound,
    SettingsError,
    StorageFull,
    WhisperApiError,
)

log = logging.getLogger(__name__)

_KEY = re.compile(r"[0-9a-f]{64}(\.[a-z0-9]{1,12})?")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PART = ".part"
_S3 = {"s3", "s3a"}
S3_TRIES = 3
S3_CONNECT_S = 3
S3_SILENCE_S = 10
"""Seconds without a byte of an answer after which a try has failed. Tasks try again and again."""
_FLAT = {"s3", "s3a", "gs", "gcs", "abfs", "az"}
"""Object stores, which have buckets but no folders."""
GONE = "The audio is no longer stored."


class Store(Protocol):
    """Where files lie. A key is a sha256 in hex, with an ending for what was derived from it."""

    def put(self, key: str, source: Path) -> None:
        """Store a copy of ``source``; a file that is there already stays.

        Raises:
            StorageFull: no room.
            StorageUnavailable: the store does not answer.
        """

    def fetch(self, key: str, target: Path) -> None:
        """Put the file at ``target``, which does not exist yet; do not write into it.

        Raises:
            NotFound: it is not there.
            StorageFull, StorageUnavailable: as ``put``.
        """

    def open(self, key: str) -> BinaryIO:
        """The file for reading, seekable.

        Raises:
            NotFound, StorageUnavailable: as ``fetch``.
        """

    def size(self, key: str) -> int | None:
        """Bytes of the file, None where there is none."""

    def remove(self, key: str) -> None:
        """Remove the file and all derived from it; missing ones are fine."""

    def listing(self) -> Iterator[tuple[str, float]]:
        """Every key with the Unix time of its writing (0 where the store does not say)."""


class StorageUnavailable(DatabaseUnavailable):
    """The store of audio files does not answer; try again later."""

    default_code = "storage_unavailable"


def open_store(settings: Settings) -> Store:
    """The store that ``storage_url`` names; nothing is contacted yet.

    Raises:
        SettingsError: the address cannot be read, or its extra is not installed.
    """
    url = settings.storage_url.get_secret_value()
    if "://" not in url:
        return FolderStore(Path(url) if url else settings.audio_dir)
    import fsspec

    try:
        # Other processes change the store as well, so no listing may be remembered.
        system, root = fsspec.core.url_to_fs(url, use_listings_cache=False, **_patience(url))
    except ImportError as error:
        raise SettingsError(
            "storage_url: this kind of store needs an extra: pip install 'whisper-api-server[s3]'"
        ) from error
    except ValueError as error:
        raise SettingsError(f"storage_url: {error}") from error
    return ObjectStore(system, root)


def _patience(url: str) -> dict[str, object]:
    """Options by which a store that does not answer is given up while a caller still waits.

    s3fs tries five times what botocore tries five times: minutes, where nothing answers.
    """
    if url.partition("://")[0] not in _S3:
        return {}
    retries = {"mode": "standard", "total_max_attempts": S3_TRIES}
    limits = {"connect_timeout": S3_CONNECT_S, "read_timeout": S3_SILENCE_S, "retries": retries}
    return {"config_kwargs": limits}


class FolderStore:
    """Files under a local folder, in a subfolder for each first two digits."""

    def __init__(self, root: Path) -> None:
        """``root`` is made when the first file comes."""
        self._root = root

    def put(self, key: str, source: Path, *, link: bool = True) -> None:
        """As ``Store.put``; a ``link`` costs no room on the same file system."""
        target = self._path(key)
        if target.exists():
            return
        part = target.with_name(f"{target.name}.{secrets.token_hex(6)}{_PART}")
        with _named_errors():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                (_link_or_copy if link else shutil.copyfile)(source, part)
                _sync(part)
                os.replace(part, target)
                _sync(target.parent)
            finally:
                part.unlink(missing_ok=True)

    def fetch(self, key: str, target: Path) -> None:
        """As ``Store.fetch``; a hard link where that can be."""
        with _named_errors():
            _link_or_copy(self._path(key), target)

    def open(self, key: str) -> BinaryIO:
        """As ``Store.open``."""
        with _named_errors():
            return self._path(key).open("rb")

    def size(self, key: str) -> int | None:
        """As ``Store.size``."""
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            return None

    def remove(self, key: str) -> None:
        """As ``Store.remove``."""
        path = self._path(key)
        for derived in path.parent.glob(f"{path.name}*"):
            derived.unlink(missing_ok=True)

    def listing(self) -> Iterator[tuple[str, float]]:
        """As ``Store.listing``; halves that a crash left behind for an hour are removed."""
        for path in sorted(self._root.glob("??/*")):
            with suppress(FileNotFoundError):
                written = path.stat().st_mtime
                if path.name.endswith(_PART):
                    if written < time.time() - 3600:
                        path.unlink()
                elif _KEY.fullmatch(path.name):
                    yield path.name, written

    def copy(self, key: str, other: FolderStore) -> None:
        """Put a true copy of a file into another folder; one that went meanwhile is left out.

        Raises:
            StorageFull, StorageUnavailable: as ``Store.put``.
        """
        with suppress(NotFound):
            other.put(key, self._path(key), link=False)

    def _path(self, key: str) -> Path:
        return self._root / _checked(key)[:2] / key


class ObjectStore:
    """Files of any file system that fsspec knows, ``s3://`` before all."""

    def __init__(self, system: object, root: str) -> None:
        """``system`` is fsspec's; ``root`` a path in it."""
        from fsspec import AbstractFileSystem

        self._system = cast("AbstractFileSystem", system)
        self._root = root.rstrip("/")
        if hasattr(system, "retries"):
            system.retries = 1  # of s3fs, around those of botocore
        protocol = self._system.protocol
        self._flat = bool(_FLAT & set([protocol] if isinstance(protocol, str) else protocol))

    def put(self, key: str, source: Path) -> None:
        """As ``Store.put``."""
        with _named_errors():
            if self._system.exists(self._path(key)):
                return
            try:
                self._system.put_file(str(source), self._path(key))
            except FileNotFoundError as error:
                if self._flat:
                    # A bucket whose name is wrong must not be made.
                    raise StorageUnavailable("The bucket of audio files is missing.") from error
                self._system.makedirs(self._path(key).rpartition("/")[0], exist_ok=True)
                self._system.put_file(str(source), self._path(key))

    def fetch(self, key: str, target: Path) -> None:
        """As ``Store.fetch``."""
        with _named_errors():
            self._system.get_file(self._path(key), str(target))

    def open(self, key: str) -> BinaryIO:
        """As ``Store.open``; reads the parts that are asked for."""
        with _named_errors():
            return cast("BinaryIO", self._system.open(self._path(key), "rb"))

    def size(self, key: str) -> int | None:
        """As ``Store.size``."""
        with _named_errors():
            try:
                return int(self._system.size(self._path(key)))
            except FileNotFoundError:
                return None

    def remove(self, key: str) -> None:
        """As ``Store.remove``."""
        with _named_errors():
            for path in self._system.glob(f"{self._path(key)}*"):
                with suppress(FileNotFoundError):
                    self._system.rm_file(path)

    def listing(self) -> Iterator[tuple[str, float]]:
        """As ``Store.listing``."""
        with _named_errors():
            found = self._system.find(self._root, detail=True)
        for path, entry in found.items():
            name = path.rpartition("/")[2]
            if _KEY.fullmatch(name):
                written = entry.get("LastModified") or entry.get("created")
                if isinstance(written, datetime):
                    written = written.timestamp()
                yield name, written if isinstance(written, float) else 0.0

    def _path(self, key: str) -> str:
        return f"{self._root}/{_checked(key)[:2]}/{key}"


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except WhisperApiError:
        raise
    except FileNotFoundError as error:
        raise NotFound(GONE) from error
    except OSError as error:
        if error.errno in DISK_FULL:
            raise StorageFull from error
        log.warning("the store of audio files failed: %s", error)
        raise StorageUnavailable(retry_after=5) from error
    except Exception as error:
        # Each object store has exceptions of its own.
        log.warning("the store of audio files failed: %s: %s", type(error).__name__, error)
        raise StorageUnavailable(retry_after=5) from error


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise NotFound(GONE)
    return key


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _sync(path: Path) -> None:
    """Flush a file or a folder to the disk, where the system can."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
