"""Transcripts of tasks among those of the history."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping

from whisper_api.errors import NotFound
from whisper_api.history import History
from whisper_api.records import NewRecord
from whisper_api.tasks.record import TaskRecord
from whisper_api.transcript_codec import TRANSCRIPT
from whisper_api.types import Caller, Transcript


class KeptTranscripts:
    """Writes them once, however often it is asked."""

    def __init__(self, history: History) -> None:
        """``history`` is where they go."""
        self._history = history

    async def keep(
        self, record: TaskRecord, transcript: Transcript, stages: Mapping[str, float]
    ) -> str:
        """As ``runner.Transcripts.keep``."""
        content = await asyncio.to_thread(TRANSCRIPT.dump, transcript)
        now = time.time()
        started = record.started_at or now
        new = NewRecord(
            transcript=transcript,
            owner=record.owner,
            name=record.name,
            source="task",
            options=record.asked.options,
            timings={
                "waiting_seconds": round(max(0.0, started - record.created_at), 3),
                "processing_seconds": round(max(0.0, now - started), 3),
                "attempts": record.attempts,
            }
            | {f"{stage}_seconds": round(seconds, 3) for stage, seconds in stages.items()},
            audio=record.audio,
            task_id=record.id,
            # Equal work gives an equal id: a step that is repeated after a crash adds nothing.
            id=f"tr_{hashlib.sha256(record.id.encode() + content).hexdigest()[:24]}",
        )
        return await self._history.add(new)

    async def transcript(self, record: TaskRecord) -> Transcript:
        """As ``runner.Transcripts.transcript``."""
        try:
            entry = await self._history.get(record.history_id or "", Caller())
        except NotFound:
            raise NotFound(
                "The transcript of this task was deleted.", code="transcript_gone"
            ) from None
        return entry.original or entry.transcript
