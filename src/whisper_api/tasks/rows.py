"""Rows of the table of tasks, and the records that they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from whisper_api.tables import tasks
from whisper_api.tasks.record import ASKED, Status, TaskRecord

_HEAVY = ("plan", "result")
LIGHT = [column for column in tasks.c if column.name not in _HEAVY]
"""Columns of a record."""
_SAME = tuple(
    "owner created_at name audio source started_at finished_at duration processed eta attempts "
    "stalls run windows done segments model history_id callback_url error lane waiter".split()
)
"""Columns that are called as the record's fields are."""


def select_task(connection: sa.Connection, ident: str) -> TaskRecord:
    """The record of a task that is there."""
    row = connection.execute(sa.select(*LIGHT).where(tasks.c.id == ident)).one()
    return record_of(row._mapping)


def record_of(row: Mapping[Any, Any]) -> TaskRecord:
    """The record that a row holds."""
    return TaskRecord(
        id=row["id"],
        status=Status(row["status"]),
        asked=ASKED.restore(row["options"]),
        **{name: row[name] for name in _SAME},
    )


def row_of(record: TaskRecord) -> dict[str, Any]:
    """The row that holds a record."""
    return {
        "id": record.id,
        "status": record.status,
        "options": ASKED.plain(record.asked),
        **{name: getattr(record, name) for name in _SAME},
    }
