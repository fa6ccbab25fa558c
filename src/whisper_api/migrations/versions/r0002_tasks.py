"""What a running task saves, webhook messages, and the processes that run tasks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables and add the columns."""
    for name in ("stalls", "run", "done", "segments"):
        op.add_column("tasks", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_tasks_status", "tasks", ["status"])
    op.add_column("tasks", sa.Column("windows", sa.Integer))
    op.add_column("tasks", sa.Column("plan", sa.LargeBinary))
    task = sa.ForeignKey("tasks.id", ondelete="CASCADE")
    op.create_table(
        "task_batches",
        sa.Column("task_id", sa.Text, task, primary_key=True),
        sa.Column("first", sa.Integer, primary_key=True),
        sa.Column("stop", sa.Integer, nullable=False),
        sa.Column("first_segment", sa.Integer, nullable=False),
        sa.Column("segments", sa.Integer, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "executors",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("seen_at", sa.Double, nullable=False),
    )
    _deliveries()


def _deliveries() -> None:
    task = sa.ForeignKey("tasks.id", ondelete="CASCADE")
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("task_id", sa.Text, task, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("next_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.Column("response_status", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("payload", sa.Text, nullable=False),
    )
    op.create_index("ix_deliveries_task_id", "deliveries", ["task_id"])
    op.create_index("ix_deliveries_next_at", "deliveries", ["next_at"])
