"""``whisper-api models``: what is on this machine, downloads, imports, removal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from whisper_api.cli.flags import ConfigOption, load
from whisper_api.model_names import SHORT_NAMES
from whisper_api.models import ModelStore

app = typer.Typer(no_args_is_help=True, help="Models on this machine.")


@app.command("list")
def show(config: ConfigOption = None) -> None:
    """List the models that lie here, other names of the default one, and names to pull."""
    entries = _store(config).list()
    for entry in entries:
        if entry.alias_of is None:
            origin = f"{entry.source} {entry.revision[:12]}".strip()
            size = f"{entry.size / 1e6:.0f} MB" if entry.size else "not here yet"
            default = "default" if entry.default else ""
            typer.echo(f"{entry.id:32}{size:>14}  {default:9}{origin}".rstrip())
    aliases = [entry.id for entry in entries if entry.alias_of is not None]
    typer.echo(f"\nother names of the default: {', '.join(aliases)}")
    here = {entry.id for entry in entries}
    typer.echo(
        f"to pull: {', '.join(name for name in SHORT_NAMES if name not in here)}, owner/name"
    )


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="small, large-v3-turbo, or owner/name of the hub.")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit, instead of the pinned one.")
    ] = None,
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

        def progress(done: int, total: int) -> None:
            bar.update(entry, completed=done, total=total)

        files = _store(config).pull(name, progress, revision)
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
