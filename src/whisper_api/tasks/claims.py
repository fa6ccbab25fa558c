"""Takes work from the queues of a shared database: one piece at a time, while there is room.

DBOS by itself asks for each queue many times a second, whether there is work or not, and takes
as many pieces as a fixed number allows, so that one process has four files and the next one
none. Here a thread for each queue sleeps until somebody says that there is work (``NOTIFY``) and
this process has room for more; then DBOS claims one piece, in its own transaction, and runs it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from whisper_api.database import CONNECTING, Database
from whisper_api.tasks.session_lock import TCP

if TYPE_CHECKING:
    from dbos import DBOS

log = logging.getLogger(__name__)

Kind = Literal["requests", "tasks", "parts"]
HasRoom = Callable[[Kind, int], bool]
"""Whether this process should take one more of a kind; it has taken so many of all kinds."""

CHANNEL = "whisper_api_work"
LOOK_S = 0.05
"""Seconds between looks whether there is room, while there is work."""
SETTLE_S = 0.02
"""After which a piece that was taken counts as such."""
PATIENCE_S = 30.0
"""After so long without room one more piece is taken, so that short ones do not wait until a
long one ends."""
LISTEN_S = 0.5
"""Seconds between looks whether the listener is to stop."""
RETRY_S = 1.0
"""Seconds before the next try where the database is away."""


def announce(connection: sa.Connection, queue: str) -> None:
    """Tell all processes that there is work in ``queue``, or in any where it is empty, once the
    transaction has ended."""
    connection.execute(sa.select(sa.func.pg_notify(CHANNEL, queue)))


class Claims:
    """The threads that take work; made after DBOS was launched, ended by ``close``."""

    def __init__(self, database: Database, dbos: DBOS, has_room: HasRoom) -> None:
        """``has_room`` is asked from threads."""
        self.dbos = dbos
        self.has_room = has_room
        self.stop = threading.Event()
        self.taking = threading.Lock()
        self._queues: dict[str, _Queue] = {}
        self._threads: list[threading.Thread] = []
        self._engine = sa.create_engine(
            database.url,
            poolclass=NullPool,
            hide_parameters=True,
            isolation_level="AUTOCOMMIT",
            connect_args={**CONNECTING, **TCP},
        )
        self._start(_Listener(self).run, "work-listener")

    def take(self, name: str, kind: Kind, most: int, every: float) -> None:
        """Take from a queue from now on, at most so many at the same time.

        ``every``: seconds after which it is looked at although nobody has said anything.
        """
        queue = self._queues[name] = _Queue(self, name, kind, most, every)
        self._start(queue.run, f"work-{name}")

    def close(self) -> None:
        """Take nothing more; a look that has begun is waited for."""
        self.stop.set()
        self.ring()
        for thread in self._threads:
            thread.join(10)
        self._engine.dispose()

    def _start(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def ring(self, name: str | None = None) -> None:
        """Have one queue looked at, or all of them."""
        for queue in tuple(self._queues.values()):
            if name in (None, queue.name):
                queue.bell.set()

    @contextlib.contextmanager
    def listening(self) -> Iterator[Any]:
        """A connection of the driver's that hears of new work."""
        with self._engine.connect() as connection:
            connection.exec_driver_sql(f"LISTEN {CHANNEL}")
            yield connection.connection.driver_connection


class _Listener:
    """Hears of new work; the log says once that it does not, and once that it does again."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._deaf = False

    def run(self) -> None:
        """Listen until told to stop."""
        stop = self._claims.stop
        while not stop.is_set():
            try:
                with self._claims.listening() as driver:
                    self._tell(None)
                    self._claims.ring()  # for what was said while nobody listened
                    self._hear(driver)
            except Exception as error:  # the driver's own come as they are
                self._tell(error)
                stop.wait(RETRY_S)

    def _hear(self, driver: Any) -> None:
        while not self._claims.stop.is_set():
            for told in driver.notifies(timeout=LISTEN_S, stop_after=1):
                self._claims.ring(told.payload or None)

    def _tell(self, error: Exception | None) -> None:
        if self._deaf == (error is not None):
            return
        self._deaf = error is not None
        if error is None:
            log.info("new work is heard of again")
        else:
            kind = type(error).__name__
            log.warning("new work is not heard of, only looked for now and then: %s", kind)


class _Queue:
    """One queue and the thread that takes from it."""

    def __init__(self, claims: Claims, name: str, kind: Kind, most: int, every: float) -> None:
        from dbos import DBOS

        self.name = name
        self.bell = threading.Event()
        self.bell.set()  # for what is there already
        self._claims = claims
        self._kind = kind
        self._most = most
        self._every = every
        found = DBOS.retrieve_queue(name)
        assert found is not None
        self._queue = found
        self._full_since: float | None = None

    def run(self) -> None:
        """Look whenever there may be work and there is room, until told to stop."""
        stop = self._claims.stop
        while not stop.is_set():
            if not self.bell.is_set():
                self.bell.wait(self._every)
                self.bell.set()
            elif not self._claims.taking.acquire(timeout=LOOK_S):
                continue
            else:
                try:
                    wait = self._turn()
                finally:
                    self._claims.taking.release()
                stop.wait(wait)

    def _turn(self) -> float:
        """Take a piece if there is room; seconds until the next try."""
        running = self._claims.dbos._active_workflows_set.count_for_queue(self.name)
        if running >= self._most:
            self._full_since = None
            return LOOK_S
        if not self._has_room():
            return LOOK_S
        self._full_since = None
        self.bell.clear()
        try:
            found = self._take(running)
        except Exception as error:
            log.warning("queue %s: no work can be taken: %s", self.name, type(error).__name__)
            self.bell.set()
            return RETRY_S
        if found:
            self.bell.set()  # there may be more
            self._claims.stop.wait(SETTLE_S)
        return 0.0

    def _has_room(self) -> bool:
        taken = len(self._claims.dbos._active_workflows_set.activeList())
        if self._claims.has_room(self._kind, taken):
            return True
        now = time.monotonic()
        if self._full_since is None:
            self._full_since = now
        return now - self._full_since >= PATIENCE_S

    def _take(self, running: int) -> bool:
        """Claim one piece and run it; False where there is none."""
        from dbos._utils import GlobalParams, generate_uuid

        self._queue._worker_concurrency = running + 1
        owner = generate_uuid()
        found, _ = self._claims.dbos._sys_db.start_queued_workflows(
            self._queue,
            GlobalParams.executor_id,
            GlobalParams.app_version,
            None,
            running,
            owner_xid=owner,
        )
        for ident in found:
            self._run(ident, owner)
        return bool(found)

    def _run(self, ident: str, owner: str) -> None:
        """Run what was claimed; nobody else would, while this process lives."""
        from dbos._core import execute_dequeued_workflow

        while not self._claims.stop.is_set():
            with contextlib.suppress(sa.exc.DBAPIError):
                status = self._claims.dbos._sys_db.get_workflow_status(ident)
                if status is not None:
                    execute_dequeued_workflow(self._claims.dbos, status, owner)
                return
            self._claims.stop.wait(RETRY_S)
