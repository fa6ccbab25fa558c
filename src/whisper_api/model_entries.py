"""A line of the list of models, and what a folder of the store says of its origin."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisper_api.model_folder import folder_size

ORIGIN = "ORIGIN.json"
"""In each folder of the store: its model's name, source and revision."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A line of ``models list`` and of ``/v1/models``."""

    id: str
    default: bool = False
    alias_of: str | None = None  #: the model that is meant, for aliases and for profiles
    size: int = 0  #: bytes on disk
    source: str = ""  #: repository or folder it came from
    revision: str = ""  #: commit, where it came from the hub


def entry_of(folder: Path) -> ModelEntry:
    """The line of a folder in the store."""
    origin = read_origin(folder)
    return ModelEntry(
        id=origin.get("name", folder.name),
        size=folder_size(folder),
        source=origin.get("source", ""),
        revision=origin.get("revision", ""),
    )


def read_origin(folder: Path) -> dict[str, str]:
    """What its origin file says; empty where there is none that can be read."""
    try:
        values: Any = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in values.items()} if isinstance(values, dict) else {}
