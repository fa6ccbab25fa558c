"""``whisper-api keys``: API keys with names, kept as hashes in the keys file."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from whisper_api.cli.flags import ConfigOption, load
from whisper_api.config import KeyEntry, Settings
from whisper_api.errors import SettingsError
from whisper_api.keys import entry_json, hash_of, new_key, read_keys, write_keys

app = typer.Typer(no_args_is_help=True, help="API keys: make, list, revoke.")

NameArgument = Annotated[str, typer.Argument(help="Who the key is for.")]


@app.command()
def create(
    name: NameArgument,
    role: Annotated[
        Literal["user", "admin"], typer.Option(help="An admin sees all and manages models.")
    ] = "user",
    requests_per_minute: Annotated[
        int | None, typer.Option(help="Transcriptions that may start in a minute.")
    ] = None,
    audio_minutes_per_day: Annotated[
        float | None, typer.Option(help="Minutes of audio that may be transcribed in a day.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Last day (2027-12-31, UTC) or moment.", metavar="DATE")
    ] = None,
    only_print: Annotated[
        bool, typer.Option("--print", help="Write no file; print what config.json takes.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Make a key, print it once, and keep its hash; a running server takes it at once."""
    settings = load(config)
    key = new_key()
    entry = _entry(
        name=name,
        hash=hash_of(key),
        role=role,
        requests_per_minute=requests_per_minute,
        audio_minutes_per_day=audio_minutes_per_day,
        expires=expires,
    )
    if only_print:
        typer.echo("Put this into config.json:", err=True)
        typer.echo(json.dumps({"keys": [entry_json(entry)]}, indent=2))
        typer.echo(f"The key, shown only now: {key}", err=True)
        return
    path = settings.keys_path
    before = read_keys(path)
    _refuse_taken(settings, before, name)
    write_keys(path, [*before, entry])
    typer.echo(f"{path} holds its hash. The key, shown only now:", err=True)
    typer.echo(key)


@app.command("list")
def show(config: ConfigOption = None) -> None:
    """List the keys of the settings and of the keys file; never the keys themselves."""
    settings = load(config)
    now = datetime.now(UTC)
    entries = [*settings.keys, *read_keys(settings.keys_path)]
    for entry in entries:
        limits = []
        if entry.requests_per_minute is not None:
            limits.append(f"{entry.requests_per_minute} requests/min")
        if entry.audio_minutes_per_day is not None:
            limits.append(f"{entry.audio_minutes_per_day:g} audio min/day")
        if entry.expires is not None:
            word = "expired" if entry.expires <= now else "expires"
            limits.append(f"{word} {entry.expires:%Y-%m-%d %H:%M} UTC")
        typer.echo(f"{entry.name:32}{entry.role:7}{', '.join(limits)}".rstrip())
    if settings.api_keys:
        typer.echo(f"and {len(settings.api_keys)} without a name in api_keys")
    if not entries and not settings.api_keys:
        typer.echo("There are no keys: everybody may call the server.")


@app.command()
def revoke(name: NameArgument, config: ConfigOption = None) -> None:
    """Remove a key from the keys file; a running server refuses it at once."""
    settings = load(config)
    path = settings.keys_path
    before = read_keys(path)
    after = [entry for entry in before if entry.name != name]
    if len(after) == len(before):
        if name in {entry.name for entry in settings.keys}:
            raise SettingsError(f"The key {name!r} stands in the settings; remove it there.")
        raise SettingsError(f"There is no key {name!r} in {path}.")
    write_keys(path, after)
    typer.echo(f"{name} is revoked")


def _refuse_taken(settings: Settings, in_file: list[KeyEntry], name: str) -> None:
    if name in {entry.name for entry in (*settings.keys, *in_file)}:
        raise SettingsError(f"There is a key {name!r} already; revoke it first.")


def _entry(**values: Any) -> KeyEntry:
    try:
        return KeyEntry(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{where}: {first['msg']}") from None
