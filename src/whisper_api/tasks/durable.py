"""DBOS behind four calls: launch, enqueue, look, resume. All of them block.

DBOS is one for each process, and so is ``Durable``. It has threads of its own and never sees
the event loop: its steps are blocking calls (``workflow.Steps``).
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from whisper_api.config import Settings
from whisper_api.database import CONNECTING, Database, named_errors
from whisper_api.errors import ServerError, WhisperApiError
from whisper_api.tasks.claims import Claims, HasRoom, Kind, announce

if TYPE_CHECKING:
    from whisper_api.tasks.workflow import Steps

STEPS_VERSION = "2"
"""The sequence of steps in ``workflow``."""
QUEUE = "tasks"
"""Tasks on one machine, and those of version 1 anywhere."""
POLLING_SECONDS = 0.1
TASKS_LESS_OFTEN = 5
"""How much less often than for requests a process looks for tasks."""
WAITING = frozenset({"ENQUEUED", "DELAYED"})
RUNNING = "PENDING"
"""DBOS's word for a workflow that some process has taken."""
MOST_PARTS = 16
"""Parts of long recordings in one process: as many as its batches hold, and no more than this."""
_SPARE_THREADS = 4
_NOTHING = "nothing"
"""A queue without work: on a shared database DBOS takes none by itself, see ``claims``."""
_owner_guard = threading.Lock()
_owners: list[Durable] = []


@dataclass(frozen=True, slots=True)
class Flow:
    """DBOS's record of one run."""

    id: str
    status: str
    executor: str | None
    queue: str | None = None
    version: str | None = None


class Durable:
    """The workflows of this process; nothing is imported or started before ``launch``."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """``database`` says where DBOS keeps its own tables: beside ours."""
        self._settings = settings
        self._database = database
        self._engine: sa.Engine | None = None
        self._claims: Claims | None = None
        self._listens: set[str] = set()

    def launch(
        self,
        executor: str,
        steps: Steps,
        has_room: HasRoom,
        models: Sequence[str] = (),
    ) -> None:
        """Start DBOS as ``executor``; its interrupted workflows go on at once.

        On a shared database it takes work for ``models`` while it ``has_room``, without any model
        no work at all.

        Raises:
            ServerError: another application in this process has it.
            DatabaseUnavailable, StorageFull: its tables cannot be had.
        """
        with _owner_guard:
            if _owners:
                raise ServerError("Another application in this process runs tasks.")
            _owners.append(self)
        try:
            with named_errors():
                self._launch(executor, steps, has_room, models)
        except BaseException:
            self.close()
            raise

    def enqueue(self, ident: str, run: int, queue: str = QUEUE, priority: int = 1) -> None:
        """Have some process do a task; doing it twice changes nothing.

        Raises:
            DatabaseUnavailable, StorageFull: it did not come to that.
        """
        _enqueue("transcribe", flow_id(ident, run), queue, priority, ident, run)
        self._announce(queue)

    def enqueue_part(self, ident: str, run: int, first: int, queue: str, priority: int) -> None:
        """The same for a part of a task, known by its first window."""
        _enqueue("part", f"{flow_id(ident, run)}.{first}", queue, priority, ident, run, first)
        self._announce(queue)

    def listen(self, model: str) -> None:
        """Take work for ``model`` as well, from now on."""
        if model in self._listens:
            return
        most: dict[Kind, int] = {
            "requests": self._settings.interactive_concurrency,
            "tasks": self._settings.task_concurrency,
            "parts": MOST_PARTS,
        }
        for kind, limit in most.items():
            self._take(queue_of(kind, model), kind, limit)
        self._listens.add(model)

    def flows(self, ids: Sequence[str]) -> dict[str, Flow]:
        """What DBOS knows of these runs."""
        return {flow.id: flow for flow in _list(workflow_ids=list(ids))} if ids else {}

    def running_at(self, executors: Sequence[str]) -> list[Flow]:
        """Runs that these processes have taken and not finished."""
        return _list(executor_id=list(executors), status=RUNNING) if executors else []

    def resume(self, flow: Flow) -> None:
        """Have a run go on at its first unfinished step; whoever has it loses it."""
        from dbos import DBOS

        with named_errors():
            DBOS.resume_workflow(flow.id, queue_name=flow.queue or QUEUE)
        self._announce(flow.queue or QUEUE)

    def give_back(self, executor: str) -> None:
        """Have others go on with what ``executor`` has taken, at once."""
        for flow in self.running_at([executor]):
            self.resume(flow)
        self._announce("")  # what DBOS has handed back at its launch

    def forget(self, flows: Sequence[str]) -> None:
        """Drop the records of runs that are over."""
        from dbos import DBOS

        with named_errors():
            DBOS.delete_workflows(list(flows))

    def over(self, before: str, most: int = 500) -> list[str]:
        """Ids of runs that ended before an ISO time."""
        ended = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
        return [flow.id for flow in _list(status=ended, completed_before=before, limit=most)]

    def close(self) -> None:
        """Stop; runs in progress stay as they are and go on at the next launch. Idempotent."""
        with _owner_guard:
            if self not in _owners:
                return
            from dbos import DBOS

            if self._claims is not None:
                self._claims.close()
                self._claims = None
            DBOS.destroy()
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None
            self._listens.clear()
            _owners.remove(self)

    def _launch(
        self, executor: str, steps: Steps, has_room: HasRoom, models: Sequence[str]
    ) -> None:
        from dbos import DBOS
        from dbos._dbos import _get_dbos_instance

        from whisper_api.tasks import workflow

        workflow.use(steps)
        self._engine = _engine(self._database)
        settings = self._settings
        threads = settings.task_concurrency + MOST_PARTS + settings.interactive_concurrency
        DBOS(
            config={
                "name": "whisper-api",
                "system_database_engine": self._engine,
                "application_version": STEPS_VERSION,
                "executor_id": executor,
                "max_executor_threads": threads + _SPARE_THREADS,
                "log_level": "WARNING",
                "console_log_level": "WARNING",
                "enable_otlp": False,
            }
        )
        _quiet()
        shared = not self._database.is_sqlite
        if shared:
            DBOS.listen_queues([_NOTHING])
        DBOS.launch()
        if not shared:
            self._register(QUEUE, settings.task_concurrency, POLLING_SECONDS)
        elif models:
            self._claims = Claims(self._database, _get_dbos_instance(), has_room)
            self._take(QUEUE, "tasks", settings.task_concurrency)
            for model in models:
                self.listen(model)

    def _take(self, name: str, kind: Kind, most: int) -> None:
        """Take work from a queue of a shared database."""
        assert self._claims is not None
        every = self._settings.queue_poll_s * (1 if kind == "requests" else TASKS_LESS_OFTEN)
        with named_errors():
            self._register(name, most, every)
            self._claims.take(name, kind, most, every)

    def _register(self, name: str, most: int, every: float) -> None:
        from dbos import DBOS

        DBOS.register_queue(
            name,
            worker_concurrency=most,
            polling_interval_sec=every,
            on_conflict="always_update",
        )

    def _announce(self, queue: str) -> None:
        """Say that there is work; who does not hear of it looks by itself after a while."""
        if self._database.is_sqlite:
            return
        with contextlib.suppress(WhisperApiError):
            self._database.work(lambda connection: announce(connection, queue))


def queue_of(kind: str, model: str) -> str:
    """The queue of a model's ``tasks``, ``requests`` or ``parts`` on a shared database."""
    return f"{kind}:{model}"


def flow_id(ident: str, run: int) -> str:
    """DBOS's id for a run of a task."""
    return f"{ident}.{run}"


def _enqueue(workflow: str, ident: str, queue: str, priority: int, *given: Any) -> None:
    from dbos import DBOS

    def enqueue() -> None:
        DBOS.enqueue_workflow_with_options(
            {
                "workflow_name": workflow,
                "queue_name": queue,
                "workflow_id": ident,
                "app_version": STEPS_VERSION,
                "priority": priority,
            },
            *given,
        )

    with named_errors():
        # The caller may work for a step, in which DBOS lets nothing be enqueued.
        contextvars.Context().run(enqueue)


def _list(**wanted: Any) -> list[Flow]:
    from dbos import DBOS

    with named_errors():
        found = DBOS.list_workflows(**wanted, load_input=False, load_output=False)
    return [
        Flow(item.workflow_id, item.status, item.executor_id, item.queue_name, item.app_version)
        for item in found
    ]


def _engine(database: Database) -> sa.Engine:
    """An engine for DBOS's tables: a file beside ours, or the same PostgreSQL database."""
    if not database.is_sqlite:
        return sa.create_engine(
            database.url, pool_pre_ping=True, hide_parameters=True, connect_args=dict(CONNECTING)
        )
    place = database.url.database or ""
    path = Path(f"{place.removesuffix('.sqlite')}.steps.sqlite")
    path.touch(mode=0o600)
    url = database.url.set(database=str(path))
    engine = sa.create_engine(url, hide_parameters=True)

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("busy_timeout=30000", "foreign_keys=ON", "journal_mode=WAL"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


class _NoTracebacks(logging.Filter):
    """DBOS logs what it cannot do with whole tracebacks; our own lines say the same."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = None
        return True


def _quiet() -> None:
    logger = logging.getLogger("dbos")
    if not any(isinstance(item, _NoTracebacks) for item in logger.filters):
        logger.addFilter(_NoTracebacks())
