"""What a settings class says about its own fields: names, defaults, limits, prose.

Error texts, CLI flags, ``whisper-api settings`` and docs/settings.md are made of this.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

Kind = Literal["bool", "int", "float", "text", "choice", "path", "list", "object"]

_NUMBERS: dict[Kind, str] = {"int": "a whole number", "float": "a number"}


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """One setting, for people."""

    name: str  #: key in the JSON file; a dot enters a nested object
    section: str
    kind: Kind
    choices: tuple[str, ...]  #: of kind ``choice``
    optional: bool  #: whether null is allowed
    secret: bool  #: whether values must never be shown
    default: str  #: as it is written in JSON, or a few words
    limits: str  #: allowed values in words
    prose: str
    env: str
    flag: str

    @property
    def path(self) -> tuple[str, ...]:
        """The keys that lead to the value."""
        return tuple(self.name.split("."))


def describe_model(
    model: type[BaseModel], env_prefix: str, sections: dict[str, str]
) -> list[SettingDoc]:
    """Every field of ``model``, nested ones flattened, in order.

    ``sections`` names the field that opens each section.
    """
    return list(_walk(model, (), env_prefix, sections, ""))


def _walk(
    model: type[BaseModel], above: tuple[str, ...], prefix: str, sections: dict[str, str], now: str
) -> Iterator[SettingDoc]:
    for name, info in model.model_fields.items():
        now = now if above else sections.get(name, now)
        path = (*above, name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _walk(info.annotation, path, prefix, sections, now)
        else:
            yield _doc(path, info, prefix, now)


def _doc(path: tuple[str, ...], info: FieldInfo, prefix: str, section: str) -> SettingDoc:
    kind, optional, choices = _kind(info.annotation)
    return SettingDoc(
        name=".".join(path),
        section=section,
        kind=kind,
        choices=choices,
        optional=optional,
        secret="SecretStr" in str(info.annotation) or _extra(info).get("secret") is True,
        default=_default(info),
        limits=_limits(info, kind, optional, choices),
        prose=" ".join((info.description or "").split()),
        env=prefix + "__".join(path).upper(),
        flag="--" + "-".join(path).replace("_", "-"),
    )


def _kind(annotation: Any) -> tuple[Kind, bool, tuple[str, ...]]:
    """Kind, whether None is allowed, and choices of a field's type."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        inner = next(arg for arg in args if arg is not NoneType)
        return _kind(inner)[0], True, _kind(inner)[2]
    if origin is Literal:
        return "choice", False, tuple(str(arg) for arg in args)
    if origin is tuple:
        return "list", False, ()
    if origin is dict:
        return "object", False, ()
    if origin is Annotated:
        return _kind(args[0])
    kinds: dict[Any, Kind] = {bool: "bool", int: "int", float: "float", Path: "path"}
    return kinds.get(annotation, "text"), False, ()


def _limits(info: FieldInfo, kind: Kind, optional: bool, choices: tuple[str, ...]) -> str:
    if "limits" in _extra(info):
        return str(_extra(info)["limits"])
    text = {
        "bool": "true or false",
        "choice": ", ".join(choices),
        "list": "a list of texts",
        "object": "a JSON object",
        "path": "a path",
        "text": "a text",
    }.get(kind) or _NUMBERS[kind] + _range(info)
    return f"{text}, or null" if optional else text


def _range(info: FieldInfo) -> str:
    """`` from 1 to 30``, `` above 0 up to 5``: the bounds in a field's metadata."""
    # Bounds inside ``Annotated[...] | None`` stand with the inner type, not with the field.
    metadata = [*info.metadata]
    for part in get_args(info.annotation):
        for field in getattr(part, "__metadata__", ()):
            metadata += getattr(field, "metadata", [field])
    bounds = {
        name: getattr(item, name)
        for item in metadata
        for name in ("ge", "gt", "le")
        if getattr(item, name, None) is not None
    }
    low = f" from {bounds['ge']:g}" if "ge" in bounds else ""
    low = f" above {bounds['gt']:g}" if "gt" in bounds else low
    if "le" not in bounds:
        return low
    return f"{low} {'up to' if 'gt' in bounds else 'to'} {_plain(bounds['le'])}"


def _plain(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else f"{number:g}"


def _extra(info: FieldInfo) -> dict[str, Any]:
    return info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}


def _default(info: FieldInfo) -> str:
    if "default" in _extra(info):
        return str(_extra(info)["default"])
    return plain_json(info.get_default())


def plain_json(value: Any) -> str:
    """``value`` as JSON; secrets as stars, paths as text."""
    return json.dumps(to_plain(value), ensure_ascii=False)


def to_plain(value: Any) -> Any:
    """``value`` in JSON's own types; secrets as stars, whole floats as integers."""
    match value:
        case SecretStr():
            return "********" if value.get_secret_value() else ""
        case BaseModel():
            return {name: to_plain(getattr(value, name)) for name in type(value).model_fields}
        case Path() | datetime():
            return str(value)
        case dict():
            return {key: to_plain(item) for key, item in value.items()}
        case tuple() | list():
            return [to_plain(item) for item in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` with the likeliest of ``known``, or nothing."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
