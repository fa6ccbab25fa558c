"""Uploads that come in parts and survive both ends (the storage of tus 1.0).

Each upload is two files: its bytes, and a small JSON file that says how many of them are safely
on disk. Bytes behind that mark are from a write that was cut off and are dropped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from whisper_api.audio.media import display_name
from whisper_api.audio.uploads import DISK_FULL, too_large
from whisper_api.config import Settings
from whisper_api.errors import ChecksumMismatch, Conflict, NotFound, Overloaded, StorageFull
from whisper_api.locks import try_lock
from whisper_api.types import Caller

_ID = re.compile(r"upload_[0-9a-f]{32}")
SAFE_BYTES = 16 << 20
"""Bytes after which a running write is put safely on disk."""
CHECKSUMS: dict[str, Callable[[], Any]] = {
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
}
"""Names of tus's checksum extension; sha1 is the one that every server must know."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload as its JSON file has it."""

    id: str
    owner: str
    length: int  #: bytes announced
    offset: int  #: bytes safely on disk
    name: str  #: the caller's file name, for display
    metadata: str  #: the header Upload-Metadata as it came
    created: float  #: Unix seconds
    expires: float  #: Unix seconds; moves on with each byte

    @property
    def complete(self) -> bool:
        """Whether all bytes are here."""
        return self.offset == self.length


class UploadStore:
    """The uploads of one data folder; its methods block, so call them from a thread."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        """Nothing is created before the first upload."""
        self._settings = settings
        self._folder = settings.data_dir / "uploads"
        self._clock = clock

    def create(self, caller: Caller, length: int, name: str | None, metadata: str = "") -> Upload:
        """Begin an upload of ``length`` bytes.

        Raises:
            FileTooLarge: more than the size limit.
            Overloaded: the caller has too many already.
            StorageFull: no room.
        """
        if length > self._settings.max_file_bytes:
            raise too_large(self._settings.max_file_bytes)
        mine = sum(upload.owner == caller.key for upload in self._all())
        if mine >= self._settings.max_pending_uploads:
            raise Overloaded(
                f"There are {mine} uploads already; finish or delete some.",
                retry_after=60,
                code="too_many_uploads",
            )
        now = self._clock()
        ident = f"upload_{secrets.token_hex(16)}"
        upload = Upload(
            ident, caller.key, length, 0, display_name(name), metadata, now, self._expiry(now)
        )
        with _disk_errors():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path(upload.id).touch(mode=0o600)
            self._save(upload)
        return upload

    def get(self, ident: str, caller: Caller) -> Upload:
        """An upload of the caller's.

        Raises:
            NotFound: there is none, it has expired, or it is another's.
        """
        upload = self._load(ident) if _ID.fullmatch(ident) else None
        if upload is None or not caller.may_see(upload.owner) or upload.expires < self._clock():
            raise _missing(ident)
        return upload

    def path(self, ident: str) -> Path:
        """Where an upload's bytes are."""
        return self._folder / f"{ident}.bin"

    def append(
        self, ident: str, caller: Caller, offset: int, checksum: tuple[str, bytes] | None = None
    ) -> Append:
        """A writer at ``offset``, which must be the upload's own; close it.

        Raises:
            NotFound: as ``get``.
            Conflict: another offset (``offset_conflict``), or another request writes just now
                (``upload_busy``).
        """
        self.get(ident, caller)
        handle = try_lock(self.path(ident))
        if handle is None:
            if not self.path(ident).exists():
                raise _missing(ident)
            raise Conflict("Another request writes to this upload.", code="upload_busy")
        upload = self._load(ident)  # once more: it may have changed before the lock
        if upload is None or offset != upload.offset:
            os.close(handle)
            if upload is None:
                raise _missing(ident)
            raise Conflict(
                f"The upload is at offset {upload.offset}, not {offset}.",
                param="Upload-Offset",
                code="offset_conflict",
            )
        return Append(self, upload, handle, checksum)

    def remove(self, ident: str, caller: Caller) -> None:
        """Delete an upload, also while another request or process writes to it.

        Raises:
            NotFound: as ``get``.
        """
        self._delete(self.get(ident, caller).id)

    def sweep(self) -> int:
        """Delete what has expired or was deleted by half; the number of uploads deleted."""
        now = self._clock()
        gone = [
            upload
            for upload in self._all()
            if upload.expires < now or not self.path(upload.id).exists()
        ]
        for upload in gone:
            self._delete(upload.id)
        return len(gone)

    def keep(self, upload: Upload, offset: int) -> Upload:
        """Note that ``offset`` bytes are safe; the expiry moves on.

        Raises:
            NotFound: it was deleted meanwhile.
        """
        grown = replace(upload, offset=offset, expires=self._expiry(self._clock()))
        try:
            self._save(grown)
            # A deletion takes the bytes first: either it is seen here, or it sees what was saved.
            there = self.path(upload.id).exists()
        except FileNotFoundError:  # it took the draft
            there = False
        if not there:
            self._delete(upload.id)
            raise _missing(upload.id)
        return grown

    def _expiry(self, now: float) -> float:
        return now + 3600 * self._settings.upload_expiry_hours

    def _all(self) -> Iterator[Upload]:
        for path in self._folder.glob("upload_*.json"):
            upload = self._load(path.stem)
            if upload is not None:
                yield upload

    def _load(self, ident: str) -> Upload | None:
        try:
            return Upload(**json.loads((self._folder / f"{ident}.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _save(self, upload: Upload) -> None:
        target = self._folder / f"{upload.id}.json"
        draft = target.with_suffix(".tmp")
        with draft.open("w", encoding="utf-8") as file:
            json.dump(asdict(upload), file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
        sync_folder(self._folder)

    def _delete(self, ident: str) -> None:
        for ending in (".bin", ".json", ".tmp"):
            (self._folder / f"{ident}{ending}").unlink(missing_ok=True)


class Append:
    """Writes one request's bytes; they count from time to time and at the end."""

    def __init__(
        self, store: UploadStore, upload: Upload, handle: int, checksum: tuple[str, bytes] | None
    ) -> None:
        """``handle`` is open on the bytes and locked; ``checksum`` is a name and the digest."""
        self.upload = upload
        self._store = store
        self._file = os.fdopen(handle, "r+b")
        self._at = upload.offset
        self._wanted = checksum
        self._hash = CHECKSUMS[checksum[0]]() if checksum else None

    def write(self, data: bytes) -> None:
        """Append ``data``.

        Raises:
            FileTooLarge: more bytes than the upload announced.
            NotFound: it was deleted meanwhile.
            StorageFull: no room; what came before counts.
        """
        if self._at + len(data) > self.upload.length:
            raise too_large(self.upload.length)
        with _disk_errors():
            self._file.write(data)
        self._at += len(data)
        if self._hash is not None:
            self._hash.update(data)
        elif self._at - self.upload.offset >= SAFE_BYTES:
            self._keep()

    def finish(self) -> Upload:
        """Put what was written safely on disk; bytes with a checksum count only here.

        Raises:
            ChecksumMismatch: they are others; they do not count.
            NotFound: it was deleted meanwhile.
            StorageFull: no room.
        """
        if self._hash is not None and self._wanted and self._hash.digest() != self._wanted[1]:
            raise ChecksumMismatch
        self._keep()
        return self.upload

    def __enter__(self) -> Append:
        """Drop what was never safe, and stand behind what is."""
        self._file.truncate(self.upload.offset)
        self._file.seek(self.upload.offset)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go; bytes after the last safe mark are dropped by the next writer."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _keep(self) -> None:
        with _disk_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            self.upload = self._store.keep(self.upload, self._at)


def _missing(ident: str) -> NotFound:
    return NotFound(f"There is no upload {ident[:60]!r}.")


def sync_folder(folder: Path) -> None:
    """Put a folder's entries safely on disk, where the system has such a thing."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise StorageFull from error
        raise
