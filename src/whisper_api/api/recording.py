"""Answers that wait, kept in history as they are given."""

from __future__ import annotations

import logging
from time import perf_counter

from starlette.responses import Response

from whisper_api.api.sse import Streamed
from whisper_api.errors import WhisperApiError
from whisper_api.jobs import Listener, Terms
from whisper_api.pipeline import Update
from whisper_api.records import NewRecord, new_id
from whisper_api.runtime import Runtime
from whisper_api.types import Options
from whisper_api.usage import stages_var

log = logging.getLogger(__name__)

HEADER = "x-history-id"


class Recording:
    """Keeps what one listener hears; its answer names the record."""

    def __init__(
        self, runtime: Runtime, listener: Listener, owner: str, options: Options, started: float
    ) -> None:
        """``started`` is the ``perf_counter`` of the request's arrival."""
        self._runtime = runtime
        self._listener = listener
        self._owner = owner
        self._options = options
        self._started = started
        self._id = new_id()
        self._kept = False

    async def keep(self, update: Update) -> None:
        """Store the result; one that cannot be stored is still answered."""
        assert update.transcript is not None
        file = self._listener.file
        new = NewRecord(
            transcript=update.transcript,
            owner=self._owner,
            name=file.name,
            source="sync",
            options=self._options,
            timings={
                "processing_seconds": round(perf_counter() - self._started, 3),
                "reuse": self._listener.outcome,
            }
            | _stages(),
            audio=file,
            envelope=update.envelope,
            id=self._id,
        )
        try:
            await self._runtime.history.add(new)
            self._kept = True
        except WhisperApiError as error:
            self._runtime.metrics.history_failures.inc()
            log.error("a transcript was not kept in history: %s", error.message)
        except Exception:
            self._runtime.metrics.history_failures.inc()
            log.exception("a transcript was not kept in history")

    def mark(self, answer: Response) -> None:
        """Name the record in the answer's head; a stream's goes out before there is one."""
        if self._kept or isinstance(answer, Streamed):
            answer.headers[HEADER] = self._id


def record(
    runtime: Runtime,
    listener: Listener,
    terms: Terms,
    owner: str,
    options: Options,
    started: float,
) -> Recording | None:
    """Have the result kept, where the server does so and the request lets it."""
    if not (runtime.settings.enable_history and terms.keep):
        return None
    recording = Recording(runtime, listener, owner, options, started)
    listener.on_result = recording.keep
    return recording


def _stages() -> dict[str, float]:
    """Seconds by stage of the work that this request began; nothing where another one did."""
    taken = stages_var.get() or {}
    speech = taken.get("vad", 0.0) + taken.get("language", 0.0)
    parts = {"decode": taken.get("decode"), "speech": speech, "recognise": taken.get("infer")}
    return {f"{name}_seconds": round(seconds, 3) for name, seconds in parts.items() if seconds}
