"""What is kept: history and durable tasks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from whisper_api.config.kinds import Section


class RecordSettings(Section):
    """History, tasks, and the label of old files."""

    enable_history: bool = False
    """Keep the transcript of every request; finished tasks are kept in any case."""
    history_audio: bool = True
    """Keep the audio beside each kept transcript."""
    max_history_days: Annotated[int, Field(ge=0, le=36_500)] = 30
    """Days that transcripts are kept; 0 keeps them for good."""
    version: str | None = None
    """Version label of an old config.json; shown, not used."""
