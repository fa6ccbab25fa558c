"""Stored audio, transcripts with full-text search, and tasks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

FTS = """
CREATE VIRTUAL TABLE transcripts_fts USING fts5(
  words, content='transcripts', content_rowid='seq', tokenize='unicode61 remove_diacritics 0');
CREATE TRIGGER transcripts_fts_insert AFTER INSERT ON transcripts BEGIN
  INSERT INTO transcripts_fts(rowid, words) VALUES (new.seq, new.words);
END;
CREATE TRIGGER transcripts_fts_delete AFTER DELETE ON transcripts BEGIN
  INSERT INTO transcripts_fts(transcripts_fts, rowid, words)
  VALUES ('delete', old.seq, old.words);
END;
CREATE TRIGGER transcripts_fts_update AFTER UPDATE OF words ON transcripts BEGIN
  INSERT INTO transcripts_fts(transcripts_fts, rowid, words)
  VALUES ('delete', old.seq, old.words);
  INSERT INTO transcripts_fts(rowid, words) VALUES (new.seq, new.words);
END
"""


def upgrade() -> None:
    """Make the tables."""
    _audio()
    _transcripts()
    _tasks()
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        # Made once for each row: a search would otherwise make it anew for every row it looks at.
        op.execute(
            "ALTER TABLE transcripts ADD COLUMN words_vector tsvector GENERATED ALWAYS AS "
            "(array_to_tsvector(string_to_array(words, ' '))) STORED"
        )
        op.execute("CREATE INDEX ix_transcripts_words ON transcripts USING gin (words_vector)")
    elif _has_fts5(connection):
        for statement in _statements(FTS):
            connection.exec_driver_sql(statement)


def _audio() -> None:
    op.create_table(
        "audio",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mime", sa.Text, nullable=False),
        sa.Column("container", sa.Text, nullable=False),
        sa.Column("codec", sa.Text, nullable=False),
        sa.Column("duration", sa.Double),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("envelope", sa.LargeBinary),
    )
    op.create_table(
        "audio_holds",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, sa.ForeignKey("audio.digest"), nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
    )
    op.create_index("ix_audio_holds_digest", "audio_holds", ["digest"])


def _transcripts() -> None:
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "transcripts",
        sa.Column("seq", number, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("task_id", sa.Text),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("duration", sa.Double, nullable=False),
        sa.Column("audio", sa.Text, sa.ForeignKey("audio.digest")),
        sa.Column("digest", sa.Text),
        sa.Column("preview", sa.Text, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("timings", sa.JSON, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("words", sa.Text, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("original", sa.LargeBinary),
    )
    op.create_index("ix_transcripts_created_at", "transcripts", ["created_at"])
    op.create_index("ix_transcripts_task_id", "transcripts", ["task_id"])
    op.create_index("ix_transcripts_audio", "transcripts", ["audio"])


def _tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("duration", sa.Double),
        sa.Column("processed", sa.Double, nullable=False, server_default="0"),
        sa.Column("eta", sa.Double),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("model", sa.Text),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("audio", sa.Text, sa.ForeignKey("audio.digest")),
        sa.Column("history_id", sa.Text),
        sa.Column("callback_url", sa.Text),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("error", sa.JSON),
    )
    op.create_index("ix_tasks_created_at", "tasks", ["created_at"])
    op.create_index("ix_tasks_audio", "tasks", ["audio"])


def _has_fts5(connection: sa.Connection) -> bool:
    found = connection.exec_driver_sql(
        "SELECT 1 FROM pragma_compile_options WHERE compile_options = 'ENABLE_FTS5'"
    )
    return found.first() is not None


def _statements(script: str) -> list[str]:
    """The script's statements; a trigger's body holds semicolons of its own."""
    parts = script.strip().split(";\nCREATE ")
    return [parts[0], *("CREATE " + part for part in parts[1:])]
