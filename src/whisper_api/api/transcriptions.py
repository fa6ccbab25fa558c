"""The doors to the pipeline: upload, URL, base64 and local file, each for one transcript."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import perf_counter

from fastapi import APIRouter, Request
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response

from whisper_api import formats
from whisper_api.api import bodies, schemas, sse
from whisper_api.api.auth import caller_of
from whisper_api.api.options import AudioRequest, parse_request
from whisper_api.api.recording import record
from whisper_api.api.slow_json import slow_json
from whisper_api.api.terms import patience, read_terms
from whisper_api.audio.scratch import Scratch
from whisper_api.errors import DeadlineExceeded, RequestTimedOut, WhisperApiError
from whisper_api.jobs import Listener, Terms, Work
from whisper_api.runtime import Runtime
from whisper_api.types import Lane, Task, Transcript

router = APIRouter(tags=["Audio"])
LONGEST_HEADER = 2000
"""Characters of warnings that go into a header."""


@router.post("/v1/audio/transcriptions", summary="Audio -> text", **schemas.upload("Transcription"))
async def transcriptions(request: Request) -> Response:
    """OpenAI's transcription endpoint, for every model and with streaming."""
    return await serve(request, bodies.from_upload, "transcribe")


@router.post(
    "/v1/audio/transcriptions/multipart",
    summary="The same under an older name",
    **schemas.upload("Transcription"),
)
async def transcriptions_multipart(request: Request) -> Response:
    """As ``/v1/audio/transcriptions``."""
    return await serve(request, bodies.from_upload, "transcribe")


@router.post(
    "/v1/audio/translations", summary="Audio -> English text", **schemas.upload("Translation")
)
async def translations(request: Request) -> Response:
    """OpenAI's translation endpoint; ``language`` may name the spoken language."""
    return await serve(request, bodies.from_upload, "translate")


@router.post(
    "/v1/audio/transcriptions/url", summary="Audio behind a URL -> text", **schemas.json_body("url")
)
async def transcriptions_url(request: Request) -> Response:
    """Fetch public audio over http(s) and transcribe it."""
    return await serve(request, bodies.from_url, "transcribe")


@router.post(
    "/v1/audio/transcriptions/base64",
    summary="Audio in JSON -> text",
    **schemas.json_body("file"),
)
async def transcriptions_base64(request: Request) -> Response:
    """Transcribe base64 audio (a data URL will do) inside a JSON object."""
    return await serve(request, bodies.from_base64, "transcribe")


@router.post(
    "/local/transcriptions",
    summary="A file of the server -> text",
    **schemas.json_body("file_path"),
)
async def transcriptions_local(request: Request) -> Response:
    """Transcribe a file inside the server's ``allowed_directories``."""
    return await serve(request, bodies.from_path, "transcribe")


async def serve(request: Request, reader: bodies.Reader, task: Task) -> Response:
    """One request from its body to its answer.

    Raises:
        WhisperApiError: anything that went wrong; ``api.errors`` answers it.
        ClientDisconnect: the caller left; its work is withdrawn.
    """
    runtime: Runtime = request.app.state.runtime
    started = perf_counter()
    terms, owner = read_terms(request.headers), caller_of(request).key
    # A full or stopping server says so before it takes the upload in; but a retry may find its
    # own first attempt still at work, and needs no room of its own.
    if not (terms.repeats and runtime.jobs.runs_for(owner)):
        runtime.scheduler.admit().close()
    async with AsyncExitStack() as stack:
        scratch = await asyncio.to_thread(Scratch.create, runtime.settings.scratch_dir)
        await stack.enter_async_context(scratch)
        with runtime.tracing.span("receive"):
            source = await reader(request, runtime, scratch)
        asked = parse_request(source.fields, runtime.settings, task)
        door = Door(runtime, source, asked, terms, owner, scratch, started)
        answer = await sse.while_connected(request.receive, door.answer(request.headers, stack))
        if isinstance(answer, sse.Streamed):
            answer.on_end(stack.pop_all().aclose)
    return answer


@dataclass(frozen=True, slots=True)
class Door:
    """One request whose body was read and whose options are known."""

    runtime: Runtime
    source: bodies.Source
    asked: AudioRequest
    terms: Terms
    owner: str
    scratch: Scratch
    started: float

    async def answer(self, headers: Headers, stack: AsyncExitStack) -> Response:
        """The answer; what ``stack`` holds must live until a streamed one has ended."""
        settings, asked = self.runtime.settings, self.asked
        patient = asked.stream or (settings.json_keep_alive_s > 0 and asked.format in formats.JSON)
        waits = None if patient else patience(headers)
        limit = Limit.of(settings.request_timeout_s, waits)
        try:
            async with asyncio.timeout_at(limit.until):
                listener = await self._listen(stack, limit.until)
        except TimeoutError:
            raise self._late(limit) from None
        # Before its own work has joined the queue.
        place = self.runtime.scheduler.outlook(Lane.INTERACTIVE, listener.file.duration or 0.0)
        recording = record(
            self.runtime, listener, self.terms, self.owner, asked.options, self.started
        )
        if asked.stream:
            # What goes wrong soon is raised here and so gets a status of its own.
            first = await listener.next(sse.KEEP_ALIVE_S)
            answer: Response = sse.event_stream(sse.frames(listener, first, asked))
        elif patient:
            finish = self._render
            every = settings.json_keep_alive_s
            answer = await slow_json(listener.transcript(), finish, every, stack)
        else:
            try:
                transcript = await listener.transcript()
            except RequestTimedOut:
                raise self._late(limit) from None
            answer = await asyncio.to_thread(self._render, transcript)
        answer.headers["x-cache"] = listener.outcome
        if recording is not None:
            recording.mark(answer)
        if listener.outcome != "hit":
            answer.headers["x-queue-position"] = str(place[0])
            answer.headers["x-queue-eta"] = f"{place[1]:.1f}"
        return answer

    def _render(self, transcript: Transcript) -> Response:
        with self.runtime.tracing.span("format"):
            return render(transcript, self.asked, self.started)

    async def _listen(self, stack: AsyncExitStack, until: float) -> Listener:
        # A wrong model name is told before anything is fetched or looked into.
        model = await asyncio.to_thread(self.runtime.store.resolve, self.asked.model)
        file = await self.source.fetch()
        work = Work(self.owner, file.digest, model.id, self.asked.options, model.revision)
        listener = self.runtime.jobs.listen(work, self.terms, file, self.scratch, deadline=until)
        stack.pop_all()
        stack.push_async_callback(listener.close)
        return listener

    def _late(self, limit: Limit) -> WhisperApiError:
        """Why there is no answer in time, and whether a retry helps."""
        if not limit.is_clients:
            return RequestTimedOut()
        message = f"This takes longer than the {limit.seconds:.3g} seconds that the client waits."
        if self.runtime.jobs.keeps_windows(self.terms):
            return DeadlineExceeded(f"{message} A retry goes on from here.")
        return RequestTimedOut(
            f"{message} Use stream=true or a longer timeout.", code="deadline_exceeded"
        )


@dataclass(frozen=True, slots=True)
class Limit:
    """When an answer comes too late."""

    seconds: float
    is_clients: bool  #: whether the client's patience ends first, not the server's
    until: float  #: a time of the running loop

    @classmethod
    def of(cls, servers: float, clients: float | None) -> Limit:
        """The nearer one of two spans of time from now on."""
        is_clients = clients is not None and clients <= servers
        seconds = clients if clients is not None and is_clients else servers
        return cls(seconds, is_clients, asyncio.get_running_loop().time() + seconds)


def render(transcript: Transcript, asked: AudioRequest, started: float) -> Response:
    """The unstreamed answer to a request that came in at ``started`` (``perf_counter``)."""
    if asked.format in formats.PLAIN:
        answer = PlainTextResponse(formats.PLAIN[asked.format](transcript))
        if transcript.warnings:  # these formats have no place for them
            answer.headers["x-warnings"] = _header(transcript.warnings)
        return answer
    content = sse.body(transcript, asked)
    if asked.format == "json":
        # What the answers of older versions of this server had.
        content |= {
            "processing_time": round(perf_counter() - started, 3),
            "response_size_bytes": len(transcript.text.encode()),
            "duration_seconds": round(transcript.duration, 3),
            "model": transcript.model,
        }
    return JSONResponse(content)


def _header(warnings: Sequence[str]) -> str:
    """Warnings as a JSON list in ASCII, shortened to what proxies let pass."""
    text = json.dumps(warnings)
    if len(text) <= LONGEST_HEADER:
        return text
    return json.dumps([f"{len(warnings)} warnings; json and verbose_json tell them"])
