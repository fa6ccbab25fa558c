"""Durable tasks, uploads that resume, and webhooks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from whisper_api.config.kinds import Secrets, Section, Texts


class TaskSettings(Section):
    """Background work and its limits."""

    task_concurrency: Annotated[int, Field(ge=1, le=256)] = 4
    """Tasks that run at the same time in one process; their windows share the queue's last lane."""
    interactive_concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    """Direct requests of API-only servers that one process with an engine works on at once."""
    task_part_s: Annotated[float, Field(ge=0, le=86_400)] = 300
    """Most seconds of audio in the parts that several machines transcribe at once; 0: never cut."""
    queue_poll_s: Annotated[float, Field(ge=0.01, le=60)] = 1
    """How often a process looks by itself for direct requests in a shared database, which tells it
    of new ones; for tasks a fifth as often."""
    max_pending_tasks: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Tasks that may wait or run; beyond it 429."""
    task_checkpoint_s: Annotated[float, Field(ge=0, le=3600)] = 10
    """Seconds of work after which a running task is saved; a crash repeats no more than that."""
    task_max_attempts: Annotated[int, Field(ge=1, le=1000)] = 5
    """Starts in a row without any progress (each ended the process) after which a task fails."""
    task_takeover_s: Annotated[float, Field(ge=1, le=86_400)] = 60
    """Silence of a process after which others on the same database take its tasks over."""
    max_task_days: Annotated[int, Field(ge=0, le=36_500)] = 30
    """Days that finished tasks are listed; 0 keeps them for good. History has its own limit."""
    upload_expiry_hours: Annotated[float, Field(ge=0.01, le=8760)] = 24
    """Hours after its last byte at which an upload in parts is removed."""
    max_pending_uploads: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Uploads in parts that one key may hold at the same time; beyond it 429."""
    callback_url: str | None = None
    """Webhook told of every task that names none itself."""
    webhook_secrets: Secrets = ()
    """Secrets (``whsec_…``) that sign webhooks, each adding a signature; empty: one is made and
    kept in ``webhook_secret`` of ``data_dir``."""
    webhook_allowed_hosts: Texts = ()
    """Host names or networks (``10.0.0.0/8``) that webhooks may reach although they are private."""
    webhook_max_attempts: Annotated[int, Field(ge=1, le=100)] = 10
    """Tries after which a webhook is given up (its state is then ``dead``)."""
    webhook_retry_s: Annotated[float, Field(ge=0.01, le=3600)] = 5
    """Wait before the second try of a webhook; it doubles with each try, up to a day."""
    webhook_timeout_s: Annotated[float, Field(ge=0.1, le=300)] = 15
    """Longest time one webhook call may take."""
