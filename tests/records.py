"""A history with all that it works on, for tests."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

from whisper_api.config import Settings
from whisper_api.database import Database
from whisper_api.history import History
from whisper_api.history_query import Query
from whisper_api.metrics import Metrics
from whisper_api.records import NewRecord
from whisper_api.stored_audio import StoredAudio
from whisper_api.tables import audio, audio_holds, tasks, transcripts
from whisper_api.types import AudioFile, Caller, Segment, Transcript

ROOT = Caller()


class Kept:
    """A database, its stored audio and its history."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is opened yet."""
        self.database = Database(settings)
        self.audio = StoredAudio(settings, self.database)
        self.history = History(settings, self.database, self.audio, Metrics())
        self.folder = settings.data_dir

    async def add(self, text: str, **changes: object) -> str:
        """Keep a transcript of ``text``; its id."""
        segment = Segment(0, 0, 0.0, 1.0, f" {text}", (1,), 0.0, -0.1, 1.0, 0.0)
        transcript = Transcript("transcribe", "en", 1.0, 1.0, (segment,), "fake")
        values: dict[str, object] = {"owner": "", "name": "a.wav", "source": "sync"}
        new = NewRecord(transcript=transcript, **{**values, **changes})  # type: ignore[arg-type]
        return await self.history.add(new)

    def file(self, content: bytes = b"RIFF") -> AudioFile:
        """An uploaded file."""
        path = self.folder / f"upload-{hashlib.sha256(content).hexdigest()[:8]}"
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        return AudioFile(path, "a.wav", len(content), digest, "wav", "pcm_s16le", "audio/wav", 1.0)

    async def found(self, q: str, caller: Caller = ROOT) -> list[str]:
        """The ids that a search finds."""
        page, _ = await self.history.page(Query(q=q), caller)
        return [summary.id for summary in page]

    async def counts(self) -> tuple[int, ...]:
        """How many transcripts, audio files, holds and tasks there are."""

        def work(connection: sa.Connection) -> tuple[int, ...]:
            return tuple(
                connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
                for table in (transcripts, audio, audio_holds, tasks)
            )

        return await self.database.run(work, write=False)
