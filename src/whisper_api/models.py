"""Models by name: aliases, what is on disk, downloads, imports, removal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whisper_api.config import Settings
from whisper_api.errors import ModelNotFound


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that is on this machine, ready to be loaded."""

    id: str
    path: Path
    kind: str = "ctranslate2"
    decoding: dict[str, Any] = field(default_factory=dict)
    languages: tuple[str, ...] = ()
    vocabulary_size: int = 51_865
    note: str = ""


class ModelStore:
    """The models of this machine."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is read or asked for before it is needed."""
        self._settings = settings

    def resolve(self, name: str | None = None) -> ModelFiles:
        """The files of a model; None means the default.

        Raises:
            ModelNotFound: no such model.
        """
        name = name or self._settings.model_path
        if self._settings.engine == "fake":
            return ModelFiles(id=name, path=Path(), kind="fake")
        raise ModelNotFound(f"The model {name!r} does not exist.")
