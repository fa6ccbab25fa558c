"""``whisper-api history``: list, export, import, prune and back up what is kept here.

For the machine's owner: it works on the database itself and sees every key's records.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress

from whisper_api.backup import back_up
from whisper_api.cli.flags import ConfigOption, load
from whisper_api.config import Settings
from whisper_api.database import Database
from whisper_api.errors import InvalidOption, StorageFull
from whisper_api.exports import ZipStream, document, ending, stem_of
from whisper_api.formats import FORMATS
from whisper_api.history import DAY_S, History
from whisper_api.history_import import Unreadable, old_files, read_all
from whisper_api.history_query import Query
from whisper_api.languages import parse_language
from whisper_api.metrics import Metrics
from whisper_api.records import NewRecord
from whisper_api.storage import DISK_FULL
from whisper_api.stored_audio import StoredAudio
from whisper_api.types import Caller

app = typer.Typer(no_args_is_help=True, help="Kept transcripts: list, export, import, clean up.")

T = TypeVar("T")

OWNER = Caller()
"""The machine's owner sees all."""
_AT_ONCE = 100

QueryOption = Annotated[str, typer.Option("--query", "-q", help="Words that must be in them.")]
FormatOption = Annotated[
    str, typer.Option("--format", "-f", metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.")
]


@app.command("list")
def show(
    query: QueryOption = "",
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    config: ConfigOption = None,
) -> None:
    """List the newest transcripts, or the newest that hold certain words."""

    async def work(opened: Opened) -> None:
        found, more = await opened.history.page(Query(q=query, limit=limit), OWNER)
        for item in found:
            moment = datetime.fromtimestamp(item.created_at).strftime("%Y-%m-%d %H:%M")
            label = item.title or item.name
            typer.echo(f"{item.id}  {moment}  {item.duration:7.0f} s  {label}: {item.preview[:60]}")
        if more:
            typer.echo("there are more: --limit shows them")

    _with(load(config), work)


@app.command()
def export(
    target: Annotated[Path, typer.Argument(metavar="FILE.zip", help="The archive to write.")],
    format: FormatOption = "text",
    query: QueryOption = "",
    config: ConfigOption = None,
) -> None:
    """Write transcripts into a zip archive, all or those with certain words, a file for each."""
    shape = next((shape for shape in FORMATS if shape == format), None)
    if shape is None:
        raise InvalidOption(f"--format is one of {', '.join(FORMATS)}")

    async def work(opened: Opened) -> None:
        ids = await opened.history.ids(Query(q=query), OWNER, most=10_000_000)
        archive, part = ZipStream(), target.with_name(f"{target.name}.part")
        try:
            with part.open("wb") as file:
                for id in ids:
                    entry = await opened.history.get(id, OWNER)
                    stem = stem_of(entry.summary.title, entry.summary.name)
                    text = document(entry.transcript, shape)
                    file.write(archive.add(stem, ending(shape), text, entry.summary.created_at))
                file.write(archive.close())
            part.replace(target)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise StorageFull from error
            raise InvalidOption(f"{target}: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)
        typer.echo(f"{len(ids)} transcripts in {target}")

    _with(load(config), work)


@app.command("import")
def take_in(
    folder: Annotated[Path, typer.Argument(help="A folder history/, with YYYY-MM-DD/*.json.")],
    language: Annotated[
        str | None, typer.Option(help="Language of files that name none: a code or a name.")
    ] = None,
    owner: Annotated[
        str, typer.Option(help="Name of the key that is to own them; left out: admins only.")
    ] = "",
    config: ConfigOption = None,
) -> None:
    """Take over what an older server kept; a second time adds nothing."""
    settings = load(config)
    paths = old_files(folder)
    if not paths:
        raise InvalidOption(f"{folder}: there are no JSON files in this folder")
    known = settings.language if settings.language != "auto" else None
    code = parse_language(language) if language else known

    async def work(opened: Opened) -> Imported:
        done = Imported()
        with Progress(console=Console(stderr=True), disable=len(paths) < _AT_ONCE) as bar:
            entry = bar.add_task("importing", total=len(paths))
            found = read_all(paths, owner, code)
            while batch := list(await asyncio.to_thread(lambda: list(islice(found, _AT_ONCE)))):
                await _store(opened, batch, done)
                bar.advance(entry, len(batch))
        return done

    for line in _with(settings, work).lines(settings):
        typer.echo(line)


@app.command()
def prune(
    days: Annotated[
        int | None, typer.Option(min=1, help="Instead of max_history_days of the settings.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Forget transcripts that are too old, and audio that nothing needs, now."""

    async def work(opened: Opened) -> None:
        forgotten = await opened.history.prune(days)
        swept = await opened.audio.sweep()
        typer.echo(f"{forgotten} transcripts forgotten, {swept} audio files left over removed")

    _with(load(config), work)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the copy goes.")],
    config: ConfigOption = None,
) -> None:
    """Copy database and audio while the server runs; a second time copies what is new."""
    done = back_up(load(config), target)
    typer.echo(
        f"database and {done.audio} audio files copied to {target}; "
        f"{done.same} were there, {done.gone} were removed"
    )


@dataclass(slots=True)
class Opened:
    """The database and what works on it."""

    settings: Settings
    audio: StoredAudio
    history: History


@dataclass(slots=True)
class Imported:
    """What an import has done so far."""

    added: int = 0
    known: int = 0
    old: int = 0
    unreadable: list[Unreadable] | None = None

    def lines(self, settings: Settings) -> Iterable[str]:
        """For people."""
        yield f"{self.added} transcripts imported, {self.known} were there already"
        if self.old:
            yield (
                f"{self.old} left out: older than max_history_days ({settings.max_history_days}), "
                "so the next clean-up would remove them; 0 keeps everything"
            )
        for item in self.unreadable or ():
            yield f"left out: {item.path} ({item.reason})"


async def _store(opened: Opened, batch: list[NewRecord | Unreadable], done: Imported) -> None:
    records = [item for item in batch if isinstance(item, NewRecord)]
    done.unreadable = [
        *(done.unreadable or ()),
        *(item for item in batch if isinstance(item, Unreadable)),
    ]
    known = set(await opened.history.known([record.id for record in records], OWNER))
    days = opened.settings.max_history_days
    oldest = time.time() - days * DAY_S if days else 0.0
    for record in records:
        if record.id in known:
            done.known += 1
        elif record.created_at < oldest:
            done.old += 1
        else:
            await opened.history.add(record)
            known.add(record.id)
            done.added += 1


def _with(settings: Settings, work: Callable[[Opened], Awaitable[T]]) -> T:
    """Run ``work`` on the opened database."""

    async def run() -> T:
        async with _opened(settings) as opened:
            return await work(opened)

    return asyncio.run(run())


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Opened]:
    database = Database(settings)
    try:
        await asyncio.to_thread(database.migrate)
        audio = StoredAudio(settings, database)
        yield Opened(settings, audio, History(settings, database, audio, Metrics()))
    finally:
        await asyncio.to_thread(database.close)
