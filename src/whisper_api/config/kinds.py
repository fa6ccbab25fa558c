"""Types of settings: lists written as one text, secrets, paths of a home folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr


class Section(BaseModel):
    """Settings that belong together; a docstring below a field is its prose."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def split(value: Any) -> Any:
    """A list written as one text: JSON, or parts between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f"not a JSON list ({error})") from error
    return [part.strip() for part in value.split(",") if part.strip()]


def unfold(value: Any) -> Any:
    """An object written as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"not a JSON object ({error})") from error


def at_home(value: Any) -> Any:
    return os.path.expanduser(value) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(split)]
Names = Annotated[dict[str, str], BeforeValidator(unfold)]
Objects = Annotated[dict[str, dict[str, Any]], BeforeValidator(unfold)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(split)]
FilePath = Annotated[Path, BeforeValidator(at_home)]
Folders = Annotated[tuple[FilePath, ...], BeforeValidator(split)]
