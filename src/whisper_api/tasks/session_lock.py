"""A lock that PostgreSQL holds for as long as one connection of this process lives.

It is how others notice within seconds that a process has died: its sockets close, PostgreSQL
ends the session and the lock is free. For a host that is lost without a word both ends keep the
connection alive by TCP. A pooler that hands out connections by transaction (PgBouncer) breaks
this: use its session mode, or none.
"""

from __future__ import annotations

import contextlib
import logging
import zlib

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from whisper_api.database import CONNECTING, Database, named_errors

log = logging.getLogger(__name__)

SPACE = 7_405_043
"""First half of the keys of all these locks."""
TCP = {"keepalives": 1, "keepalives_idle": 3, "keepalives_interval": 2, "keepalives_count": 2}
"""Notice a lost host within 10 s."""
_SERVER_TCP = {
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "8000",
}


def key_of(name: str) -> int:
    """The second half of the key of ``name``'s lock: a signed number of 32 bits."""
    number = zlib.crc32(name.encode())
    return number - (1 << 32) if number >= 1 << 31 else number


class SessionLock:
    """At most one lock, on a connection of its own. All methods block."""

    def __init__(self, database: Database) -> None:
        """Nothing is opened yet; ``database`` is PostgreSQL."""
        self._engine = sa.create_engine(
            database.url,
            poolclass=NullPool,
            hide_parameters=True,
            isolation_level="AUTOCOMMIT",
            connect_args={**CONNECTING, **TCP},
        )
        self._connection: sa.Connection | None = None
        self._name = ""

    def take(self, name: str) -> bool:
        """Take the lock of ``name``; False when another session has it.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        self.drop()
        with named_errors():
            connection = self._engine.connect()
            try:
                for setting, value in _SERVER_TCP.items():
                    connection.exec_driver_sql(f"SET {setting} = {value}")
                wanted = sa.select(sa.func.pg_try_advisory_lock(SPACE, key_of(name)))
                taken = bool(connection.execute(wanted).scalar_one())
            except BaseException:
                connection.close()
                raise
        if not taken:
            connection.close()
            return False
        self._connection, self._name = connection, name
        return True

    def held(self) -> bool:
        """Whether the connection, and with it the lock, is still there."""
        if self._connection is None:
            return False
        try:
            self._connection.execute(sa.select(1))
        except sa.exc.DBAPIError as error:
            log.warning("the connection that shows others this process is lost: %s", error.orig)
            self.drop()
            return False
        return True

    def drop(self) -> None:
        """Let go; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sa.exc.DBAPIError):
                connection.close()


def is_free(connection: sa.Connection, name: str) -> bool:
    """Whether no session holds the lock of ``name``; it is kept from others until the
    transaction ends."""
    wanted = sa.select(sa.func.pg_try_advisory_xact_lock(SPACE, key_of(name)))
    return bool(connection.execute(wanted).scalar_one())
