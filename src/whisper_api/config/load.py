"""Settings from a JSON file, the environment and flags, with errors that name the key."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from whisper_api.config.kinds import at_home
from whisper_api.config.settings import ENV_PREFIX, Settings, describe
from whisper_api.errors import SettingsError
from whisper_api.setting_docs import SettingDoc, nearest, plain_json


def load_settings(path: Path | None = None, **overrides: Any) -> Settings:
    """Settings from an optional JSON file, the environment and ``overrides`` (strongest).

    Relative paths in the file start at the file's folder; others at the working folder.
    ``overrides`` name top-level settings; nested objects are merged key by key.

    Raises:
        SettingsError: a key or value is wrong; one line for each with its name, its value
            (unless secret) and the allowed range.
    """
    docs = describe()
    in_file = _read(path, docs) if path is not None else {}
    in_environment = EnvSettingsSource(Settings)()
    if strange := list(_unknown_keys(overrides, docs)):
        raise SettingsError("\n".join(strange))
    merged = _merge(_merge(in_file, in_environment), overrides)
    notices = list(_unknown_variables(docs))
    if {"service_port", "model_path"} & in_file.keys() and "host" not in merged:
        merged["host"] = "0.0.0.0"
        notices.append(OLD_HOST.format(file=path))
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        where = f"{path}: " if path is not None else ""
        by_name = {doc.name: doc for doc in docs}
        lines = dict.fromkeys(_complaint(item, by_name) for item in error.errors())
        raise SettingsError("\n".join(where + line for line in lines)) from None
    return settings.noting(notices)


OLD_HOST = (
    "{file} names no host, so this server listens on 0.0.0.0: EVERYONE on every network of this "
    'machine can use it. Put "host": "127.0.0.1" into the file to serve this machine only, or '
    '"host": "0.0.0.0" to keep it so without this warning.'
)


def _read(path: Path, docs: list[SettingDoc]) -> dict[str, Any]:
    """The file's object with its keys checked and its relative paths made absolute."""
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # also UnicodeDecodeError
        raise SettingsError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: must hold one JSON object with the settings in it")
    if strange := list(_unknown_keys(content, docs)):
        raise SettingsError("\n".join(f"{path}: {line}" for line in strange))
    folder = path.resolve().parent
    for key in ("log_file", "data_dir", "keys_file", "ssl_certfile", "ssl_keyfile"):
        if isinstance(content.get(key), str):
            content[key] = str(folder / at_home(content[key]))
    if isinstance(allowed := content.get("allowed_directories"), list):
        content["allowed_directories"] = [str(folder / at_home(str(item))) for item in allowed]
    model = content.get("model_path")
    if isinstance(model, str) and (folder / at_home(model)).is_dir():
        content["model_path"] = str(folder / at_home(model))
    return content


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _unknown_keys(content: dict[str, Any], docs: list[SettingDoc]) -> Iterable[str]:
    """One line for each key that no setting has, with the nearest one that exists."""
    known = {doc.path[0] for doc in docs}
    for key, value in content.items():
        nested = {doc.path[1] for doc in docs if doc.path[0] == key and len(doc.path) > 1}
        if key not in known:
            yield f"unknown setting {key!r}{nearest(key, known)}"
        elif nested and isinstance(value, dict):
            for inner in value.keys() - nested:
                yield f"unknown setting '{key}.{inner}'{nearest(inner, nested)}"


def _unknown_variables(docs: list[SettingDoc]) -> Iterable[str]:
    """One line for each variable of ours that names no setting; others' tools may set such."""
    known = {doc.env for doc in docs} | {ENV_PREFIX + doc.path[0].upper() for doc in docs}
    known |= {ENV_PREFIX + name for name in ("CONFIG", "KEY", "URL")}
    for name in os.environ:
        ours = name.upper().startswith(ENV_PREFIX) and not name.upper().startswith(
            ENV_PREFIX + "TEST_"
        )
        if ours and name.upper() not in known:
            yield f"environment variable {name} names no setting{nearest(name.upper(), known)}"


def _complaint(item: ErrorDetails, docs: dict[str, SettingDoc]) -> str:
    """One line about one wrong value: its name, the value unless secret, what is allowed."""
    names = [str(part) for part in item["loc"]]
    doc = next((docs[name] for n in (2, 1) if (name := ".".join(names[:n])) in docs), None)
    if doc is None:
        return f"{'.'.join(names)}: must be a JSON object"
    if len(names) > len(doc.path) + 1:  # inside an object of a list
        text = item["msg"].removeprefix("Value error, ")
        return f"{'.'.join(names)}: {text[:1].lower()}{text[1:]}"
    shown = "the value (hidden)" if doc.secret else plain_json(item["input"])
    own = str(item["ctx"]["error"]) if item["type"] == "value_error" else ""
    return f"{doc.name}: {shown} is not allowed; {own or 'allowed: ' + doc.limits}"
