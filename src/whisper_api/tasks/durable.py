"""DBOS behind four calls: launch, enqueue, look, resume. All of them block.

DBOS is one for each process, and so is ``Durable``. It has threads of its own and never sees
the event loop: its steps are blocking calls (``workflow.Steps``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from whisper_api.config import Settings
from whisper_api.database import Database, named_errors
from whisper_api.errors import ServerError

if TYPE_CHECKING:
    from whisper_api.tasks.workflow import Steps

QUEUE = "tasks"
POLLING_SECONDS = 0.1
WAITING = frozenset({"ENQUEUED", "DELAYED"})
RUNNING = "PENDING"
"""DBOS's word for a workflow that some process has taken."""
_SPARE_THREADS = 4
_owner_guard = threading.Lock()
_owners: list[Durable] = []


@dataclass(frozen=True, slots=True)
class Flow:
    """DBOS's record of one run."""

    id: str
    status: str
    executor: str | None


class Durable:
    """The workflows of this process; nothing is imported or started before ``launch``."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """``database`` says where DBOS keeps its own tables: beside ours."""
        self._settings = settings
        self._database = database
        self._engine: sa.Engine | None = None

    def launch(self, executor: str, steps: Steps) -> None:
        """Start DBOS as ``executor``; its interrupted workflows go on at once.

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
                self._launch(executor, steps)
        except BaseException:
            self.close()
            raise

    def enqueue(self, ident: str, run: int) -> None:
        """Have some process do a task; doing it twice changes nothing.

        Raises:
            DatabaseUnavailable, StorageFull: it did not come to that.
        """
        from dbos import DBOS, SetWorkflowID

        from whisper_api.tasks.workflow import transcribe

        with named_errors(), SetWorkflowID(flow_id(ident, run)):
            DBOS.enqueue_workflow(QUEUE, transcribe, ident, run)

    def flows(self, ids: Sequence[str]) -> dict[str, Flow]:
        """What DBOS knows of these runs."""
        return {flow.id: flow for flow in _list(workflow_ids=list(ids))} if ids else {}

    def running_at(self, executors: Sequence[str]) -> list[Flow]:
        """Runs that these processes have taken and not finished."""
        return _list(executor_id=list(executors), status=RUNNING) if executors else []

    def resume(self, flow: str) -> None:
        """Have a run go on at its first unfinished step; whoever has it loses it."""
        from dbos import DBOS

        with named_errors():
            DBOS.resume_workflow(flow, queue_name=QUEUE)

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

            DBOS.destroy()
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None
            _owners.remove(self)

    def _launch(self, executor: str, steps: Steps) -> None:
        from dbos import DBOS

        from whisper_api.tasks import workflow

        workflow.use(steps)
        self._engine = _engine(self._database)
        DBOS(
            config={
                "name": "whisper-api",
                "system_database_engine": self._engine,
                "application_version": workflow.STEPS_VERSION,
                "executor_id": executor,
                "max_executor_threads": self._settings.task_concurrency + _SPARE_THREADS,
                "log_level": "WARNING",
                "console_log_level": "WARNING",
                "enable_otlp": False,
            }
        )
        _quiet()
        DBOS.launch()
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=self._settings.task_concurrency,
            polling_interval_sec=POLLING_SECONDS,
            on_conflict="always_update",
        )


def flow_id(ident: str, run: int) -> str:
    """DBOS's id for a run of a task."""
    return f"{ident}.{run}"


def _list(**wanted: Any) -> list[Flow]:
    from dbos import DBOS

    with named_errors():
        found = DBOS.list_workflows(**wanted, load_input=False, load_output=False)
    return [Flow(item.workflow_id, item.status, item.executor_id) for item in found]


def _engine(database: Database) -> sa.Engine:
    """An engine for DBOS's tables: a file beside ours, or the same PostgreSQL database."""
    if not database.is_sqlite:
        return sa.create_engine(database.url, pool_pre_ping=True, hide_parameters=True)
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
