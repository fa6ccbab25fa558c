"""Several machines: requests that wait for a task, parts of long recordings, workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns and the table of parts; older processes go on beside them."""
    op.add_column("tasks", sa.Column("lane", sa.Text, nullable=False, server_default="task"))
    op.add_column("tasks", sa.Column("waiter", sa.Text))
    op.add_column("tasks", sa.Column("result", sa.LargeBinary))
    op.add_column("executors", sa.Column("role", sa.Text, nullable=False, server_default="all"))
    op.add_column("executors", sa.Column("steps", sa.Text, nullable=False, server_default="1"))
    for name in ("locks", "drain"):
        column = sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false())
        op.add_column("executors", column)
    op.add_column("executors", sa.Column("about", sa.JSON))
    task = sa.ForeignKey("tasks.id", ondelete="CASCADE")
    op.create_table(
        "task_parts",
        sa.Column("task_id", sa.Text, task, primary_key=True),
        sa.Column("first", sa.Integer, primary_key=True),
        sa.Column("stop", sa.Integer, nullable=False),
        sa.Column("failed", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("executor", sa.Text),
        sa.Column("content", sa.LargeBinary),
    )
