"""Transcripts of tasks among those of the history."""

from __future__ import annotations

import hashlib
import time

import sqlalchemy as sa

from whisper_api.database import Database
from whisper_api.errors import NotFound
from whisper_api.tables import transcripts
from whisper_api.tasks.record import TaskRecord
from whisper_api.transcript_codec import OPTIONS, TRANSCRIPT
from whisper_api.types import Transcript


class KeptTranscripts:
    """Writes them once, however often it is asked."""

    def __init__(self, database: Database) -> None:
        """``database`` holds the history."""
        self._database = database

    async def keep(self, record: TaskRecord, transcript: Transcript) -> str:
        """As ``runner.Transcripts.keep``."""
        content = TRANSCRIPT.dump(transcript)
        # Equal work gives an equal id: a step that is repeated after a crash adds nothing.
        ident = f"tr_{hashlib.sha256(record.id.encode() + content).hexdigest()[:24]}"
        values = {
            "id": ident,
            "owner": record.owner,
            "created_at": time.time(),
            "name": record.name,
            "title": record.name,
            "source": "task",
            "task_id": record.id,
            "task": transcript.task,
            "language": transcript.language,
            "model": transcript.model,
            "duration": transcript.duration,
            "audio": record.audio,
            "preview": transcript.text[:200],
            "options": OPTIONS.plain(record.asked.options),
            "timings": {},
            "text": transcript.text,
            "words": "",
            "content": content,
        }
        same = sa.select(transcripts.c.id).where(transcripts.c.id == ident)

        def work(connection: sa.Connection) -> str:
            if connection.execute(same).first() is None:
                connection.execute(transcripts.insert().values(values))
            return ident

        return await self._database.run(work)

    async def transcript(self, record: TaskRecord) -> Transcript:
        """As ``runner.Transcripts.transcript``."""
        query = sa.select(transcripts.c.content, transcripts.c.original)
        query = query.where(transcripts.c.id == record.history_id)
        row = await self._database.run(lambda c: c.execute(query).first(), write=False)
        if row is None:
            raise NotFound("The transcript of this task was deleted.", code="transcript_gone")
        return TRANSCRIPT.load(row.original or row.content)
