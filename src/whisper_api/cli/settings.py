"""``whisper-api settings``: the effective settings, where each one may be set, and its limits."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer

from whisper_api.cli.flags import ConfigOption, find_config
from whisper_api.config import Settings, describe, load_settings
from whisper_api.setting_docs import SettingDoc, plain_json, to_plain


def show(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show the effective settings; secrets as stars."""
    path = find_config(config)
    settings = load_settings(path)
    if as_json:
        typer.echo(json.dumps(to_plain(settings), indent=2, ensure_ascii=False))
        return
    in_file = json.loads(path.read_text("utf-8-sig")) if path is not None else {}
    for doc in describe():
        value = plain_json(value_of(settings, doc))
        typer.echo(f"{doc.name:42}{value}  ({_origin(doc, in_file)}; {doc.limits})")
    for notice in settings.notices:
        typer.echo(f"note: {notice}", err=True)


def value_of(settings: Settings, doc: SettingDoc) -> Any:
    """The effective value of one setting."""
    value: Any = settings
    for key in doc.path:
        value = getattr(value, key)
    return value


def _origin(doc: SettingDoc, in_file: dict[str, Any]) -> str:
    if any(os.environ.get(name) for name in (doc.env, doc.env.partition("__")[0])):
        return "environment"
    place: Any = in_file
    for key in doc.path:
        if not isinstance(place, dict) or key not in place:
            return "default"
        place = place[key]
    return "file"
