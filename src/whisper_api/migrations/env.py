"""Alembic's entry: runs the revisions on the connection, and in the transaction, it is given."""

from __future__ import annotations

from alembic import context

from whisper_api.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite has transactional DDL; only its Python driver used to lack it.
    transactional_ddl=True,
)
context.run_migrations()
