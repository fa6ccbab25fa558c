"""The command ``whisper-api``: a thin door to the same parts that the server has."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from whisper_api import __version__
from whisper_api.cli import (
    doctor,
    history,
    keys,
    models,
    serve,
    settings,
    tasks,
    transcribe,
    worker,
    workers,
)
from whisper_api.errors import SettingsError, WhisperApiError

app = typer.Typer(
    name="whisper-api",
    help="Speech to text on your own machine, through OpenAI's audio API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("worker")(worker.worker)
app.command("transcribe")(transcribe.transcribe)
app.add_typer(tasks.app, name="tasks")
app.add_typer(workers.app, name="workers")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(history.app, name="history")
app.command("settings")(settings.show)
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Speech to text on your own machine, through OpenAI's audio API."""


def main() -> None:
    """Run the command; mistakes are one line on stderr (2 for settings, else 1), no traceback."""
    try:
        app()
    except SettingsError as error:
        _fail(error.message, 2)
    except WhisperApiError as error:
        _fail(error.message, 1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)


def _fail(message: str, code: int) -> None:
    for line in message.split("\n"):
        print(f"error: {line}", file=sys.stderr)
    sys.exit(code)
