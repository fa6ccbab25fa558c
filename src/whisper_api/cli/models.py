"""``whisper-api models``: what is on this machine, downloads, imports, removal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from whisper_api.cli.flags import ConfigOption, load
from whisper_api.models import ModelStore

app = typer.Typer(no_args_is_help=True, help="Models on this machine.")


@app.command("list")
def show(config: ConfigOption = None) -> None:
    """List the models that are here and the names that can be pulled."""
    table = Table("model", "here", "note", box=None, pad_edge=False)
    for entry in _store(config).list():
        table.add_row(entry.id, "yes" if entry.here else "no", entry.note)
    Console(soft_wrap=True, highlight=False, markup=False).print(table)


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="small, large-v3-turbo, or owner/name of the hub.")],
    config: ConfigOption = None,
) -> None:
    """Download a model at its pinned revision and make it ready; goes on where it stopped."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        entry = bar.add_task(name, total=None)

        def progress(done: int, total: int | None) -> None:
            bar.update(entry, completed=done, total=total)

        files = _store(config).pull(name, progress)
    typer.echo(f"{files.id} is ready: {files.path}")


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="A Whisper model: safetensors or CTranslate2.")],
    name: Annotated[
        str | None, typer.Option(help="Its name here; the folder's by default.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Import a folder; Hugging Face weights are converted, without torch."""
    files = _store(config).import_folder(folder, name)
    typer.echo(f"{files.id} is ready: {files.path}")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="As models list shows it.")],
    config: ConfigOption = None,
) -> None:
    """Remove a pulled or imported model from this machine."""
    _store(config).remove(name)
    typer.echo(f"{name} is removed")


def _store(config: Path | None) -> ModelStore:
    return ModelStore(load(config))
