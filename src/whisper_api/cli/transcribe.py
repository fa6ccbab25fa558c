"""``whisper-api transcribe``: files, folders and globs, in this process or through a server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from whisper_api import formats
from whisper_api.api.options import Fields, parse_request
from whisper_api.audio.scratch import Scratch
from whisper_api.cli.files import ENDINGS, Job, plan_jobs, write_whole
from whisper_api.cli.flags import ConfigOption, load
from whisper_api.config import Settings
from whisper_api.errors import RequestError, ServerError, SettingsError, WhisperApiError
from whisper_api.logs import setup_logging
from whisper_api.models import ModelStore
from whisper_api.runtime import Runtime, open_runtime
from whisper_api.types import Options, Transcript

RETRIES = 20
"""How often a server that is full is asked again."""

Advance = Callable[[float], None]
"""Told how much of a file is behind us, 0..1."""
Work = Callable[[Path, Advance], Awaitable[str]]
"""Turns one audio file into the text of its result."""


class Shape(StrEnum):
    """What is written."""

    TXT = "txt"
    SRT = "srt"
    VTT = "vtt"
    JSON = "json"
    VERBOSE_JSON = "verbose_json"

    @property
    def response_format(self) -> str:
        """OpenAI's name."""
        return "text" if self is Shape.TXT else self.value


def transcribe(
    paths: Annotated[list[str], typer.Argument(metavar="FILE|FOLDER|GLOB…", show_default=False)],
    shape: Annotated[Shape, typer.Option("--format", help="What to write.")] = Shape.TXT,
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder for results; without it beside each file.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Use this server, not this process.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="WHISPER_API_KEY", help="Key of that server.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model or folder; without it the default one.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Language of the speech: code, English name or auto.")
    ] = None,
    task: Annotated[
        str, typer.Option(help="transcribe, or translate (to English).")
    ] = "transcribe",
    prompt: Annotated[str | None, typer.Option(help="Text in the style of the speech.")] = None,
    word_timestamps: Annotated[
        bool, typer.Option("--word-timestamps", help="Times of words (verbose_json only).")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Do files again that have a result.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Files at the same time.")] = 4,
    config: ConfigOption = None,
) -> None:
    """Transcribe audio files; what has a result already is skipped. Exit 1 if any file failed."""
    fields = _fields(shape, language, prompt, task, word_timestamps)
    todo, skipped = _todo(plan_jobs(paths, output_dir, ENDINGS[shape.response_format]), overwrite)
    console = Console(stderr=True)
    if skipped:
        console.print(f"{skipped} done before; --overwrite does them again")
    if not todo:
        return
    if server is None:
        opened = _in_process(load(config, log_level="WARNING", model_path=model), fields, task)
    else:
        opened = _through_server(server, api_key, fields, task, model)
    failed = asyncio.run(_run(opened, todo, jobs, console))
    if failed:
        console.print(f"{failed} of {len(todo)} failed")
        raise typer.Exit(1)


def _fields(
    shape: Shape, language: str | None, prompt: str | None, task: str, words: bool
) -> dict[str, str]:
    """The options as the API's form fields, so that one parser checks both."""
    if task not in {"transcribe", "translate"}:
        raise SettingsError(f"--task: {task!r} is not allowed; allowed: transcribe, translate")
    if words and shape is not Shape.VERBOSE_JSON:
        raise SettingsError("--word-timestamps needs --format verbose_json")
    fields = {
        "response_format": shape.response_format,
        "language": language or "",
        "prompt": prompt or "",
        "timestamp_granularities[]": "word,segment" if words else "",
    }
    return {name: value for name, value in fields.items() if value}


def _todo(jobs: list[Job], overwrite: bool) -> tuple[list[Job], int]:
    todo = [job for job in jobs if overwrite or not job.target.exists()]
    return todo, len(jobs) - len(todo)


async def _run(
    opened: AbstractAsyncContextManager[Work], todo: list[Job], parallel: int, console: Console
) -> int:
    """Do the jobs, ``parallel`` at a time; answers how many failed."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console,
    )
    room = asyncio.Semaphore(parallel)
    with bar:
        # Parts of files count, so that a long one moves the bar and its ETA, too.
        entry = bar.add_task("transcribing", total=len(todo))
        async with opened as work:

            async def one(job: Job) -> bool:
                async with room:
                    return await _do(job, work, bar, entry)

            done = await asyncio.gather(*(one(job) for job in todo))
    return done.count(False)


async def _do(job: Job, work: Work, bar: Progress, entry: TaskID) -> bool:
    """One file; whether it went well. A failure is one line, and leaves no file."""
    behind = 0.0

    def advance(part: float) -> None:
        nonlocal behind
        bar.advance(entry, part - behind)
        behind = part

    try:
        text = await work(job.source, advance)
        await asyncio.to_thread(write_whole, job.target, text)
    except WhisperApiError as error:
        _say(bar, f"{job.source}: {error.message}")
        return False
    except OSError as error:
        _say(bar, f"{job.target}: {error.strerror}")
        return False
    finally:
        advance(1.0)
    return True


def _say(bar: Progress, line: str) -> None:
    bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


@asynccontextmanager
async def _in_process(settings: Settings, fields: dict[str, str], task: str) -> AsyncIterator[Work]:
    asked = parse_request(
        Fields({name: [value] for name, value in fields.items()}),
        settings,
        "translate" if task == "translate" else "transcribe",
    )
    setup_logging(settings)
    await asyncio.to_thread(ModelStore(settings).prepare)
    async with open_runtime(settings) as runtime:

        async def work(path: Path, advance: Advance) -> str:
            transcript = await _transcript(runtime, path, asked.options, advance)
            return render(transcript, asked.format, asked.granularities)

        yield work


async def _transcript(
    runtime: Runtime, path: Path, options: Options, advance: Advance
) -> Transcript:
    async with Scratch.create(runtime.settings.scratch_dir) as scratch:
        file = await runtime.intake.from_own_path(scratch, path)
        updates = runtime.pipeline.stream(file, options, scratch)
        async with aclosing(updates):
            async for update in updates:
                advance(min(update.done / update.total, 1.0) if update.total else 1.0)
                if update.transcript is not None:
                    return update.transcript
    raise AssertionError("a stream ends with a transcript")


def render(
    transcript: Transcript, shape: formats.Format, granularities: tuple[formats.Granularity, ...]
) -> str:
    """The transcript as the server would answer it."""
    if shape in formats.PLAIN:
        return formats.PLAIN[shape](transcript)
    if shape == "verbose_json":
        body = formats.to_verbose_json(transcript, granularities=granularities)
    else:
        body = formats.to_json(transcript)
    return json.dumps(body, ensure_ascii=False, indent=2) + "\n"


@asynccontextmanager
async def _through_server(
    url: str, key: str | None, fields: dict[str, str], task: str, model: str | None
) -> AsyncIterator[Work]:
    base = url.rstrip("/").removesuffix("/v1")
    door = "translations" if task == "translate" else "transcriptions"
    form = fields | ({"model": model} if model else {})
    headers = {"authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Timeout(None, connect=10)
    with httpx.Client(headers=headers, timeout=limits) as client:
        send = partial(_upload, client, f"{base}/v1/audio/{door}", form)

        async def work(path: Path, advance: Advance) -> str:
            return await asyncio.to_thread(send, path)

        yield work


def _upload(client: httpx.Client, url: str, form: dict[str, str], path: Path) -> str:
    """Send one file; a full server is asked again when it says so.

    Raises:
        RequestError: the server refused it.
        ServerError: the server failed, or cannot be reached.
    """
    for left in range(RETRIES, -1, -1):
        try:
            with path.open("rb") as file:
                answer = client.post(url, data=form, files={"file": (path.name, file)})
        except httpx.HTTPError as error:
            raise ServerError(f"{url}: {error or type(error).__name__}") from error
        if answer.is_success:
            return answer.text
        if answer.status_code not in {429, 503} or not left:
            break
        time.sleep(_wait(answer))
    message = f"{answer.status_code}: {_message(answer)}"
    raise (ServerError if answer.is_server_error else RequestError)(message)


def _wait(answer: httpx.Response) -> float:
    try:
        return min(max(float(answer.headers.get("retry-after", "1")), 0.1), 120)
    except ValueError:
        return 1.0


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
