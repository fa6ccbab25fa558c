"""A copy of all records and kept audio, made while the server runs.

For SQLite and a local folder; PostgreSQL and object stores have tools of their own.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from whisper_api.config import Settings
from whisper_api.database import address
from whisper_api.errors import ServerError, SettingsError, StorageFull
from whisper_api.storage import DISK_FULL, FolderStore, open_store

DATABASE = "records.sqlite"
AUDIO = "audio"


@dataclass(frozen=True, slots=True)
class Copied:
    """What a backup did."""

    audio: int  #: audio files that were copied
    same: int  #: audio files that an earlier backup had already
    gone: int  #: audio files of an earlier backup that are no longer kept


def back_up(settings: Settings, target: Path) -> Copied:
    """Copy records and audio to ``target``; what is there of an earlier backup is kept or mended.

    The database first: every record in the copy then finds its audio, unless it was deleted
    meanwhile.

    Raises:
        SettingsError: the database or the store is not local.
        StorageFull: no room.
        ServerError: something could not be read or written.
    """
    url, store = address(settings), open_store(settings)
    if url.get_backend_name() != "sqlite" or not url.database or not isinstance(store, FolderStore):
        raise SettingsError(
            "This makes copies of SQLite and a local folder only; use pg_dump and your object "
            "store's own tools."
        )
    if not Path(url.database).is_file():
        raise ServerError(f"There is no database at {url.database}.")
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        _copy_database(Path(url.database), target / DATABASE)
        return _copy_audio(store, FolderStore(target / AUDIO))
    except (OSError, sqlite3.Error) as error:
        full = getattr(error, "errno", None) in DISK_FULL
        if full or getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            raise StorageFull from error
        raise ServerError(f"The backup failed: {error}") from error


def _copy_database(source: Path, target: Path) -> None:
    """One consistent state, put in place whole."""
    part = target.with_suffix(".part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(part)) as copy:
        live.backup(copy)
        # A copy that stands alone has no journal beside it.
        copy.execute("PRAGMA journal_mode=DELETE")
    os.replace(part, target)


def _copy_audio(source: FolderStore, target: FolderStore) -> Copied:
    """Files are named by their content, so one that is there needs no second look."""
    wanted = [key for key, _ in source.listing() if "." not in key]
    there = {key for key, _ in target.listing()}
    for key in wanted:
        if key not in there:
            source.copy(key, target)
    gone = there - set(wanted)
    for key in gone:
        target.remove(key)
    return Copied(len(set(wanted) - there), len(there & set(wanted)), len(gone))
