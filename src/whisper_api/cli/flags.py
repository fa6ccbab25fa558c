"""CLI flags made from the settings: one field, one flag."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from whisper_api.config import Settings, describe, load_settings
from whisper_api.setting_docs import SettingDoc

SHORT = {"service_port": "--port", "model_path": "--model"}
"""Settings with a second, shorter flag."""
OFF = {"local_engine": "--no-engine"}
"""Switches with a shorter name for off."""
HIDDEN = frozenset({"version"})
"""Settings without a flag: a label of old files, and ``--version`` means something else."""
METAVAR = {
    "list": "A,B,…",
    "int": "N",
    "float": "X",
    "path": "PATH",
    "object": "JSON",
    "text": "TEXT",
}

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="WHISPER_API_CONFIG",
        metavar="PATH",
        help="JSON file with settings; without it config.json of this folder, if there is one.",
        show_envvar=False,
    ),
]


def find_config(given: Path | None) -> Path | None:
    """The settings file to read: the one named, else ``config.json`` here, else none."""
    if given is not None:
        return given
    here = Path("config.json")
    return here if here.is_file() else None


def flagged(doc: SettingDoc) -> bool:
    """Whether a setting has a flag."""
    return doc.name not in HIDDEN


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command(settings, config)`` a flag for each setting, and ``--config``.

    Values stay text until the settings parse them, so a wrong one is told of in the same words
    wherever it comes from.
    """
    docs = {_variable(doc): doc for doc in describe() if flagged(doc)}

    def run(**given: Any) -> None:
        config = find_config(given.pop("config"))
        command(load_settings(config, **overrides(docs, given)), config)

    parameters = [
        inspect.Parameter(
            "config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ConfigOption
        )
    ]
    parameters += [_parameter(name, doc) for name, doc in docs.items()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {item.name: item.annotation for item in parameters}
    run.__doc__ = command.__doc__
    return run


def overrides(docs: dict[str, SettingDoc], given: dict[str, Any]) -> dict[str, Any]:
    """The flags that were used, as ``load_settings`` takes them."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if value is not None:
            *above, last = docs[name].path
            place = found
            for key in above:
                place = place.setdefault(key, {})
            place[last] = value
    return found


def load(config: Path | None, **more: Any) -> Settings:
    """Settings for a command that has no flag for each of them."""
    return load_settings(find_config(config), **{k: v for k, v in more.items() if v is not None})


def _variable(doc: SettingDoc) -> str:
    return doc.name.replace(".", "__")


def _parameter(name: str, doc: SettingDoc) -> inspect.Parameter:
    names = [doc.flag, *([SHORT[doc.name]] if doc.name in SHORT else [])]
    kind: Any = str
    if doc.kind == "bool":
        kind, names = bool, [f"{doc.flag}/--no-{doc.flag[2:]}"]
        if doc.name in OFF:
            names.append(f" /{OFF[doc.name]}")
    option = typer.Option(
        *names,
        metavar=None if doc.kind == "bool" else METAVAR.get(doc.kind, "CHOICE"),
        help=_help(doc),
        rich_help_panel=doc.section,
        show_default=False,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _help(doc: SettingDoc) -> str:
    limits = "" if doc.kind in {"bool", "text", "path", "list", "object"} else f" ({doc.limits})"
    return f"{doc.prose.replace('``', '')}{limits} Default: {doc.default}."
