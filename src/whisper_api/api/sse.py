"""Server-sent events: a job's updates as OpenAI's transcript events.

Frames are ``data: {json}`` with CRLF line ends, without ``event:`` or ``id:`` lines (OpenAI's
Python client stumbles over both), then ``data: [DONE]``. The joined deltas equal ``done.text``
in every format: text for ``json``, ``text`` and ``verbose_json``, the document for ``srt`` and
``vtt``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from whisper_api import formats
from whisper_api.api.errors import body_for, unexpected_body
from whisper_api.api.options import AudioRequest
from whisper_api.errors import ServerError, WhisperApiError
from whisper_api.jobs import Listener
from whisper_api.logs import request_id_var
from whisper_api.pipeline import Update
from whisper_api.types import Segment, Transcript

log = logging.getLogger(__name__)
T = TypeVar("T")

KEEP_ALIVE_S = 10.0
"""Seconds of silence after which a comment goes out, and that errors may take to get a status."""
KEEP_ALIVE = b": keep-alive\r\n\r\n"
DONE = b"data: [DONE]\r\n\r\n"


def frame(content: dict[str, Any]) -> bytes:
    """One event."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\r\n\r\n".encode()


async def frames(
    listener: Listener, first: Update | None, asked: AudioRequest
) -> AsyncIterator[bytes]:
    """The whole stream of one job whose first update (if it came in time) is ``first``."""
    writer = EventWriter(asked)
    try:
        update = first
        while True:
            if update is None:
                yield KEEP_ALIVE
            else:
                for chunk in await asyncio.to_thread(writer.frames, update):
                    yield chunk
                if update.transcript is not None:
                    break
            update = await listener.next(KEEP_ALIVE_S)
        yield DONE
    except Exception as error:
        yield frame(late_body(error))


def late_body(error: Exception) -> dict[str, Any]:
    """The error object for what fails after the status was sent; logged where it is our fault."""
    if not isinstance(error, WhisperApiError):
        log.error("unexpected error in a begun answer", exc_info=error)
        return unexpected_body(request_id_var.get())
    if isinstance(error, ServerError):
        log.error("a begun answer failed: %s", error.message, exc_info=error.__cause__)
    return body_for(error)


class EventWriter:
    """Updates -> events; keeps what the deltas so far have said."""

    def __init__(self, asked: AudioRequest) -> None:
        """``asked`` names the format and what goes with it."""
        self._asked = asked
        self._begun = False
        self._cues = 0
        self._held = ""  # white space that is text only if more follows

    def events(self, update: Update) -> list[dict[str, Any]]:
        """The events for one update."""
        events = [
            event for segment in update.segments if (event := self._delta(segment)) is not None
        ]
        if self._asked.format == "vtt" and not self._begun:
            events.insert(0, _delta("WEBVTT\n\n"))
        self._begun = self._begun or bool(events)
        if update.transcript is not None:
            if self._asked.format == "srt":
                events.append(_delta("\n"))
            events.append(self._done(update.transcript))
        return events

    def frames(self, update: Update) -> list[bytes]:
        """The events for one update, written out; of long audio that takes a while."""
        return [frame(event) for event in self.events(update)]

    def _delta(self, segment: Segment) -> dict[str, Any] | None:
        asked = self._asked
        if asked.format in ("srt", "vtt"):
            if not segment.text.strip():
                return None
            self._cues += 1
            is_srt = asked.format == "srt"
            cue = formats.srt_cue(self._cues, segment) if is_srt else formats.vtt_cue(segment)
            return _delta(cue)
        text = self._take(segment.text)
        if not text:
            return None
        event = _delta(text)
        if asked.logprobs:
            event["logprobs"] = [formats.token_logprob(entry) for entry in segment.logprobs]
        if asked.format == "verbose_json":
            event |= self._verbose(segment)
        return event

    def _take(self, text: str) -> str:
        """What may be sent of ``text`` now."""
        text = self._held + text
        if not self._cues:
            text = text.lstrip()
        sent = text.rstrip()
        self._held = text[len(sent) :]
        self._cues += bool(sent)
        return sent

    def _verbose(self, segment: Segment) -> dict[str, Any]:
        extra: dict[str, Any] = {}
        if "segment" in self._asked.granularities:
            old = self._asked.return_timestamps
            extra["segments"] = [formats.verbose_segment(segment, old_times=old)]
        if "word" in self._asked.granularities:
            words = (formats.verbose_word(word) for word in segment.words)
            extra["words"] = [word for word in words if word is not None]
        return extra

    def _done(self, transcript: Transcript) -> dict[str, Any]:
        asked = self._asked
        event: dict[str, Any] = {"type": "transcript.text.done", "text": transcript.text}
        if asked.format in ("srt", "vtt"):
            event["text"] = formats.PLAIN[asked.format](transcript)
        elif asked.format in ("json", "verbose_json"):
            event |= body(transcript, asked)
        # Only the tokens variant of usage is allowed in this event.
        event.pop("usage", None)
        return event


def body(transcript: Transcript, asked: AudioRequest) -> dict[str, Any]:
    """The JSON body of ``json`` and ``verbose_json``."""
    if asked.format == "verbose_json":
        content = formats.to_verbose_json(
            transcript,
            granularities=asked.granularities,
            return_timestamps=asked.return_timestamps,
        )
    else:
        content = formats.to_json(
            transcript,
            return_timestamps=asked.return_timestamps,
            logprobs=asked.logprobs,
            detected=asked.options.language is None,
        )
    if transcript.warnings:
        content["warnings"] = list(transcript.warnings)
    return content


class Streamed(Response):
    """An answer that goes out as it comes, and whose work ends when the caller leaves."""

    def __init__(self, content: AsyncIterator[bytes], media_type: str) -> None:
        """``content`` is the body, in chunks."""
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        # Otherwise nginx collects the chunks before it passes them on.
        self.headers["x-accel-buffering"] = "no"
        self._content = content
        self._end: Callable[[], Awaitable[None]] | None = None

    def on_end(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have ``close`` awaited at the end, whatever the end is."""
        self._end = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the chunks until they end or the caller leaves."""
        try:
            await while_connected(receive, self._send(send))
        finally:
            if self._end is not None:
                await self._end()

    async def _send(self, send: Send) -> None:
        head = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(head)
        async for chunk in self._content:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def event_stream(content: AsyncIterator[bytes]) -> Streamed:
    """Events as an answer."""
    answer = Streamed(content, "text/event-stream; charset=utf-8")
    answer.headers["cache-control"] = "no-store"
    return answer


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled when the caller leaves.

    Call it after the request's body was read.

    Raises:
        ClientDisconnect: the caller left first.
    """
    job = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({job, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        raise ClientDisconnect
    finally:
        job.cancel()
        watcher.cancel()
        await asyncio.gather(job, watcher, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _delta(text: str) -> dict[str, Any]:
    return {"type": "transcript.text.delta", "delta": text}
