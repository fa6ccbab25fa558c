"""The doors to the pipeline: upload, URL, base64 and local file, each for one transcript."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import perf_counter

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from whisper_api import formats
from whisper_api.api import bodies, schemas, sse
from whisper_api.api.options import AudioRequest, parse_request
from whisper_api.audio.scratch import Scratch
from whisper_api.errors import RequestTimedOut
from whisper_api.pipeline import Update
from whisper_api.runtime import Runtime
from whisper_api.types import AudioFile, Task, Transcript

router = APIRouter(tags=["Audio"])


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
    # A full or stopping server says so before it takes the upload in.
    runtime.scheduler.admit().close()
    async with AsyncExitStack() as stack:
        scratch = await asyncio.to_thread(Scratch.create, runtime.settings.scratch_dir)
        await stack.enter_async_context(scratch)
        source = await reader(request, runtime, scratch)
        asked = parse_request(source.fields, runtime.settings, task)
        job = Job(runtime, source, asked, scratch)
        if asked.stream:
            feed, first = await sse.while_connected(request.receive, job.open_feed(stack))
            return sse.EventStream(sse.frames(feed, first, asked), stack.pop_all().aclose)
        transcript = await sse.while_connected(request.receive, job.transcribe())
    return render(transcript, asked, perf_counter() - started)


@dataclass(frozen=True, slots=True)
class Job:
    """One request whose options are known."""

    runtime: Runtime
    source: bodies.Source
    asked: AudioRequest
    scratch: Scratch

    async def transcribe(self) -> Transcript:
        """The whole transcript.

        Raises:
            RequestTimedOut: it took longer than ``request_timeout_s``.
        """
        try:
            async with asyncio.timeout(self.runtime.settings.request_timeout_s):
                file = await self._file()
                return await self.runtime.pipeline.transcribe(
                    file, self.asked.options, self.scratch, model=self.asked.model
                )
        except TimeoutError as error:
            raise RequestTimedOut from error

    async def open_feed(self, stack: AsyncExitStack) -> tuple[sse.Feed, Update | None]:
        """Start the job; what goes wrong soon is raised here and so gets a status of its own."""
        file = await self._file()
        updates = self.runtime.pipeline.stream(
            file, self.asked.options, self.scratch, model=self.asked.model
        )
        feed = sse.Feed(updates, self.runtime.settings.request_timeout_s)
        stack.push_async_callback(feed.close)
        return feed, await feed.next(sse.KEEP_ALIVE_S)

    async def _file(self) -> AudioFile:
        # A wrong model name is told before anything is fetched or looked into.
        await asyncio.to_thread(self.runtime.store.resolve, self.asked.model)
        return await self.source.fetch()


def render(transcript: Transcript, asked: AudioRequest, seconds: float) -> Response:
    """The unstreamed answer; ``seconds`` is what it took."""
    if asked.format in formats.PLAIN:
        return PlainTextResponse(formats.PLAIN[asked.format](transcript))
    content = sse.body(transcript, asked)
    if asked.format == "json":
        # What the answers of older versions of this server had.
        content |= {
            "processing_time": round(seconds, 3),
            "response_size_bytes": len(transcript.text.encode()),
            "duration_seconds": round(transcript.duration, 3),
            "model": transcript.model,
        }
    return JSONResponse(content)
