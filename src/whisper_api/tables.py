"""The tables as the newest migration leaves them.

Times are Unix seconds, durations seconds. ``owner`` is ``Caller.key`` of whoever left the row.
Large columns stand last: SQLite then reads lists of rows without them.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

audio = sa.Table(
    "audio",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),  # sha256 of the bytes, hex
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("mime", sa.Text, nullable=False),
    sa.Column("container", sa.Text, nullable=False),
    sa.Column("codec", sa.Text, nullable=False),
    sa.Column("duration", sa.Double),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("envelope", sa.LargeBinary),  # transcript_codec.ENVELOPE
)
"""One row for each stored file; rows elsewhere that name its digest keep it."""

audio_holds = sa.Table(
    "audio_holds",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("digest", sa.ForeignKey("audio.digest"), nullable=False, index=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),  # what the caller called the file
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("until", sa.Double, nullable=False),
)
"""Keeps audio until another row refers to it; the id of a finished upload is one, too."""

transcripts = sa.Table(
    "transcripts",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False, index=True),
    sa.Column("updated_at", sa.Double),
    sa.Column("name", sa.Text, nullable=False),  # what the caller called the file
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),  # sync, task or import
    sa.Column("task_id", sa.Text, index=True),
    sa.Column("task", sa.Text, nullable=False),  # transcribe or translate
    sa.Column("language", sa.Text, nullable=False),  # ISO code
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("duration", sa.Double, nullable=False),
    sa.Column("audio", sa.ForeignKey("audio.digest"), index=True),
    sa.Column("digest", sa.Text),  # of the audio, also where that is not kept
    sa.Column("preview", sa.Text, nullable=False),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("timings", sa.JSON, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("words", sa.Text, nullable=False),  # search.index_words
    sa.Column("content", sa.LargeBinary, nullable=False),  # transcript_codec.TRANSCRIPT
    sa.Column("original", sa.LargeBinary),  # as ``content``, before the first edit
)

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, index=True),
    sa.Column("created_at", sa.Double, nullable=False, index=True),
    sa.Column("started_at", sa.Double),
    sa.Column("finished_at", sa.Double),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("duration", sa.Double),
    sa.Column("processed", sa.Double, nullable=False, server_default="0"),
    sa.Column("eta", sa.Double),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("model", sa.Text),
    sa.Column("source", sa.Text, nullable=False),  # upload, url, base64, path or audio
    sa.Column("audio", sa.ForeignKey("audio.digest"), index=True),
    sa.Column("history_id", sa.Text),
    sa.Column("callback_url", sa.Text),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("error", sa.JSON),
    sa.Column("stalls", sa.Integer, nullable=False, server_default="0"),
    sa.Column("run", sa.Integer, nullable=False, server_default="0"),
    sa.Column("windows", sa.Integer),
    sa.Column("done", sa.Integer, nullable=False, server_default="0"),
    sa.Column("segments", sa.Integer, nullable=False, server_default="0"),
    sa.Column("lane", sa.Text, nullable=False, server_default="task"),
    sa.Column("waiter", sa.Text),  # the process whose request waits; the task ends with it
    sa.Column("plan", sa.LargeBinary),  # tasks.record.PLANNED
    sa.Column("result", sa.LargeBinary),  # transcript_codec.TRANSCRIPT, for the waiter
)
"""Fields and their meaning: ``tasks.record.TaskRecord``."""

task_batches = sa.Table(
    "task_batches",
    metadata,
    sa.Column("task_id", sa.ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("first", sa.Integer, primary_key=True),  # index of the first window
    sa.Column("stop", sa.Integer, nullable=False),  # one past the last
    sa.Column("first_segment", sa.Integer, nullable=False),
    sa.Column("segments", sa.Integer, nullable=False),  # how many
    sa.Column("content", sa.LargeBinary, nullable=False),  # tasks.record.BATCH
)
"""What an unfinished task has decoded so far."""

task_parts = sa.Table(
    "task_parts",
    metadata,
    sa.Column("task_id", sa.ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("first", sa.Integer, primary_key=True),  # index of the first window
    sa.Column("stop", sa.Integer, nullable=False),  # one past the last
    sa.Column("failed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("executor", sa.Text),  # who decoded it
    sa.Column("content", sa.LargeBinary),  # tasks.record.BATCH, segments counted from 0
)
"""Parts of a long recording, which several processes decode at once."""

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("task_id", sa.ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),  # pending, delivered or dead
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("next_at", sa.Double, index=True),  # null when nothing more is tried
    sa.Column("finished_at", sa.Double),
    sa.Column("response_status", sa.Integer),
    sa.Column("error", sa.Text),
    sa.Column("payload", sa.Text, nullable=False),
)
"""Webhook messages."""

executors = sa.Table(
    "executors",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("seen_at", sa.Double, nullable=False),  # by the database's clock
    sa.Column("role", sa.Text, nullable=False, server_default="all"),  # all, api or worker
    sa.Column("steps", sa.Text, nullable=False, server_default="1"),  # workflow.STEPS_VERSION
    sa.Column("locks", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("drain", sa.Boolean, nullable=False, server_default=sa.false()),  # an admin's wish
    sa.Column("about", sa.JSON),  # tasks.cluster.About
)
"""Processes that share the database, and when each was last heard of. ``locks``: it holds the
advisory lock of its name for as long as it lives."""
