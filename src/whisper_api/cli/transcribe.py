"""``whisper-api transcribe``: files, folders and globs, in this process or through a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

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
from whisper_api.cli.remote import Remote, server_url
from whisper_api.config import Settings
from whisper_api.errors import SettingsError, WhisperApiError
from whisper_api.logs import setup_logging
from whisper_api.models import ModelStore
from whisper_api.runtime import Runtime, open_runtime
from whisper_api.types import Options, Transcript

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
    background: Annotated[
        bool, typer.Option("--background", help="Make tasks of them on the server, do not wait.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Transcribe audio files; what has a result already is skipped. Exit 1 if any file failed."""
    fields = _fields(shape, language, prompt, task, word_timestamps)
    console = Console(stderr=True)
    planned = plan_jobs(paths, output_dir, ENDINGS[shape.response_format])
    todo = _todo(planned, overwrite, console)
    if not todo:
        return
    if background:
        form = {**fields, "task": task, **({"model": model} if model else {})}
        failed = _submit(todo, server_url(server), api_key, form, console)
    elif server is None:
        settings = load(config, log_level="WARNING", model_path=model)
        failed = asyncio.run(_run(_in_process(settings, fields, task), todo, jobs, console))
    else:
        opened = _through_server(server, api_key, fields, task, model)
        failed = asyncio.run(_run(opened, todo, jobs, console))
    _end(failed, todo, console)


def _end(failed: int, todo: list[Job], console: Console) -> None:
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


def _todo(jobs: list[Job], overwrite: bool, console: Console) -> list[Job]:
    """The jobs without a result."""
    todo = [job for job in jobs if overwrite or not job.target.exists()]
    if skipped := len(jobs) - len(todo):
        console.print(f"{skipped} done before; --overwrite does them again")
    return todo


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
    door = "translations" if task == "translate" else "transcriptions"
    form = fields | ({"model": model} if model else {})
    with Remote(url, key) as remote:

        def send(path: Path) -> str:
            return remote.call("POST", f"/v1/audio/{door}", file=path, data=form).text

        async def work(path: Path, advance: Advance) -> str:
            return await asyncio.to_thread(send, path)

        yield work


def _submit(
    todo: list[Job], url: str, key: str | None, fields: dict[str, str], console: Console
) -> int:
    """Make a task of each file, one line with its id for each; answers how many failed."""
    failed = 0
    with Remote(url, key) as remote, Progress(console=console, transient=True) as bar:
        for job in todo:
            entry = bar.add_task(job.source.name, total=1.0)
            try:
                sent = remote.submit(job.source, fields, partial(_set_progress, bar, entry))
                print(f"{sent['id']}  {job.source}", flush=True)
            except (WhisperApiError, OSError) as error:
                failed += 1
                reason = error.message if isinstance(error, WhisperApiError) else error.strerror
                _say(bar, f"{job.source}: {reason}")
            bar.remove_task(entry)
    return failed


def _set_progress(bar: Progress, entry: TaskID, part: float) -> None:
    bar.update(entry, completed=part)
