"""The database of records: one engine, transactions in threads, errors with names.

SQLite in the data folder unless ``database_url`` names PostgreSQL. Work is a function of a
connection that runs whole in one transaction: ``await database.run(work)``.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError, DisconnectionError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from whisper_api.config import Settings
from whisper_api.errors import DatabaseUnavailable, InvalidOption, SettingsError, StorageFull

log = logging.getLogger(__name__)
T = TypeVar("T")

THREADS = 4
LOCK_SECONDS = 15
"""How long a SQLite write waits for another one."""
CONNECTING: Mapping[str, int] = {"connect_timeout": 5, "tcp_user_timeout": 10_000}
"""How PostgreSQL is connected to. With the kernel's own patience (a quarter of an hour) a database
host that is lost without a word would hold every thread, though another one has its address."""
_MIGRATION_LOCK = 7_405_042
"""Key of the PostgreSQL lock under which one process at a time migrates."""
_DISK_FULL = "53100"
_READ_ONLY = "25006"  # what a standby says until it has taken over

_migrating = threading.Lock()


def address(settings: Settings) -> sa.URL:
    """The database's URL with the driver in use.

    Raises:
        SettingsError: ``database_url`` cannot be read, or its driver is not installed.
    """
    given = settings.database_url.get_secret_value()
    if not given:
        return sa.URL.create("sqlite", database=str(settings.data_dir / "records.sqlite"))
    try:
        url = sa.make_url(given)
    except sa.exc.ArgumentError as error:
        raise SettingsError("database_url: not a database address") from error
    if url.get_backend_name() == "sqlite":
        return url
    if find_spec("psycopg") is None:
        raise SettingsError(
            "database_url: PostgreSQL needs the extra 'postgres': "
            "pip install 'whisper-api-server[postgres]'"
        )
    return url.set(drivername="postgresql+psycopg")


class Database:
    """Connections are made when the first work comes; thread-safe."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is opened yet.

        Raises:
            SettingsError: as ``address``.
        """
        self.url = address(settings)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine = self._make_engine()
        self._threads = ThreadPoolExecutor(THREADS, "database")

    async def run(self, work: Callable[[sa.Connection], T], *, write: bool = True) -> T:
        """``work(connection)`` in a thread, in one transaction; rolled back when it raises.

        Once begun it runs to its end, even when the caller is cancelled.

        Raises:
            DatabaseUnavailable: it does not answer, or stayed locked.
            StorageFull: no room.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: self.work(work, write=write))

    def work(self, work: Callable[[sa.Connection], T], *, write: bool = True) -> T:
        """As ``run``, for callers in a thread of their own."""
        with self.transaction(write=write) as connection:
            return work(connection)

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[sa.Connection]:
        """One transaction; ``write=False`` lets others write meanwhile. It blocks.

        Raises:
            DatabaseUnavailable, StorageFull: as ``run``.
        """
        with named_errors(), self._engine.connect() as connection:
            chosen = connection.execution_options(read_only=not write)
            with chosen.begin():
                yield chosen

    async def healthy(self) -> bool:
        """Whether the database answers."""
        try:
            await self.run(lambda connection: connection.execute(sa.select(1)), write=False)
        except (DatabaseUnavailable, StorageFull):
            return False
        return True

    def migrate(self, revision: str = "head") -> None:
        """Bring the tables to this version's state; processes that start together take turns.

        An older ``revision`` is for tests.

        Raises:
            SettingsError: a newer version of this server made the database.
            DatabaseUnavailable, StorageFull: as ``run``.
        """
        if self.is_sqlite and self.url.database:
            _make_file(Path(self.url.database))
        with _migrating, self.transaction() as connection:
            if not self.is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            _upgrade(connection, revision)

    def close(self) -> None:
        """Let work in progress end and close the connections; idempotent."""
        self._threads.shutdown(wait=True)
        self._engine.dispose()

    def _make_engine(self) -> sa.Engine:
        if self.is_sqlite:
            engine = sa.create_engine(
                self.url, hide_parameters=True, connect_args={"timeout": LOCK_SECONDS}
            )
            sa.event.listen(engine, "connect", _set_up_sqlite)
            sa.event.listen(engine, "begin", _begin_sqlite)
            return engine
        return sa.create_engine(
            self.url,
            hide_parameters=True,
            pool_pre_ping=True,
            connect_args=dict(CONNECTING),
        )


@contextmanager
def named_errors() -> Iterator[None]:
    """Turn the drivers' errors into ours; the original stays their cause.

    Raises:
        DatabaseUnavailable, StorageFull: as ``Database.run``.
        InvalidOption: a value that the database cannot hold.
    """
    try:
        yield
    except (PoolTimeout, DisconnectionError) as error:
        raise DatabaseUnavailable(retry_after=5) from error
    except IntegrityError:
        raise
    except DataError as error:
        # PostgreSQL takes no NUL in a text, and no number beyond its column.
        raise InvalidOption("A value holds what no database can store.") from error
    except DBAPIError as error:
        if _is_full(error.orig):
            raise StorageFull from error
        if _is_away(error):
            log.warning("the database does not answer: %s", error.orig)
            raise DatabaseUnavailable(retry_after=5) from error
        raise


def _is_full(error: BaseException | None) -> bool:
    return (
        getattr(error, "sqlite_errorname", None) == "SQLITE_FULL"
        or getattr(error, "sqlstate", None) == _DISK_FULL
    )


def _is_away(error: DBAPIError) -> bool:
    """Locked, unreachable, unreadable or damaged; not a mistake in our own SQL."""
    if isinstance(error.orig, sqlite3.Error):
        name = getattr(error.orig, "sqlite_errorname", "")
        return name != "SQLITE_ERROR" and isinstance(error.orig, sqlite3.DatabaseError)
    away = (sa.exc.OperationalError, sa.exc.InterfaceError)
    read_only = getattr(error.orig, "sqlstate", None) == _READ_ONLY
    return read_only or error.connection_invalidated or isinstance(error, away)


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself: ``_begin_sqlite`` does.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that turns from reading to writing fails at once when another one wrote
    # meanwhile; one that says so from the start waits for its turn.
    reading = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _make_file(path: Path) -> None:
    """An empty database that only this user may read, unless there is one."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise DatabaseUnavailable(f"The database cannot be made: {error.strerror}.") from error


def _upgrade(connection: sa.Connection, revision: str) -> None:
    # Before the import, which says what it loads.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    folder = str(resources.files("whisper_api") / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise SettingsError(
            "The database was made by a newer version of this server; install that version, or "
            "restore a backup."
        ) from error
