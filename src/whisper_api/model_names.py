"""Names of models: short ones, OpenAI's, and what a name may look like."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from whisper_api.errors import ModelNotFound

BUNDLED = "bundled"

OPENAI_NAMES = (
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-4o-transcribe-diarize",
    "gpt-transcribe",
)
"""Names that clients of OpenAI send; they mean the default model where no setting says else."""
DEFAULT = "default"
"""What a name's target is called when it means the default model."""


def split_profile(name: str, profiles: Collection[str]) -> tuple[str, str | None]:
    """Model and profile of ``whisper-1:meeting``; names of unknown profiles stay whole."""
    model, colon, profile = name.rpartition(":")
    return (model, profile) if colon and profile in profiles else (name, None)


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository of the hub; ``revision`` is a commit, or a branch looked up when pulled."""

    repository: str
    revision: str = "main"


SHORT_NAMES: dict[str, HubModel] = {
    "tiny": HubModel(
        "Systran/faster-whisper-tiny",
        "d90ca5fe260221311c53c58e660288d3deb8d356",
    ),
    "tiny.en": HubModel(
        "Systran/faster-whisper-tiny.en",
        "0d3d19a32d3338f10357c0889762bd8d64bbdeba",
    ),
    "base": HubModel(
        "Systran/faster-whisper-base",
        "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
    ),
    "base.en": HubModel(
        "Systran/faster-whisper-base.en",
        "3d3d5dee26484f91867d81cb899cfcf72b96be6c",
    ),
    "small": HubModel(
        "Systran/faster-whisper-small",
        "536b0662742c02347bc0e980a01041f333bce120",
    ),
    "small.en": HubModel(
        "Systran/faster-whisper-small.en",
        "d1d751a5f8271d482d14ca55d9e2deeebbae577f",
    ),
    "medium": HubModel(
        "Systran/faster-whisper-medium",
        "08e178d48790749d25932bbc082711ddcfdfbc4f",
    ),
    "medium.en": HubModel(
        "Systran/faster-whisper-medium.en",
        "a29b04bd15381511a9af671baec01072039215e3",
    ),
    "large-v2": HubModel(
        "Systran/faster-whisper-large-v2",
        "f0fe81560cb8b68660e564f55dd99207059c092e",
    ),
    "large-v3": HubModel(
        "Systran/faster-whisper-large-v3",
        "edaa852ec7e145841d8ffdb056a99866b5f0a478",
    ),
    "large-v3-turbo": HubModel(
        "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
        "0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf",
    ),
    "distil-large-v3": HubModel(
        "Systran/faster-distil-whisper-large-v3",
        "c3058b475261292e64a0412df1d2681c06260fab",
    ),
    "distil-small.en": HubModel("Systran/faster-distil-whisper-small.en"),
    "distil-medium.en": HubModel("Systran/faster-distil-whisper-medium.en"),
}
"""Short name -> repository, at a commit where one is known. ``main`` is looked up at the first
pull, and the commit found is written down beside the model."""

CHECKPOINTS: dict[str, str] = {
    **{
        name: f"openai/whisper-{name}"
        for name in SHORT_NAMES
        if name.removesuffix(".en") in ("tiny", "base", "small", "medium", "large-v2", "large-v3")
    },
    "large-v3-turbo": "openai/whisper-large-v3-turbo",
    **{name: f"distil-whisper/{name}" for name in SHORT_NAMES if name.startswith("distil-")},
}
"""Short name -> repository with safetensors, for the transformers engine."""

SYNONYMS = {"large": "large-v3", "turbo": "large-v3-turbo"}

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(rf"{_PART}(/{_PART})?")


def check_name(name: str) -> str:
    """``name`` if it may name a model: ``small`` or ``org/name``, never a path.

    Raises:
        ModelNotFound: anything else.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise ModelNotFound(
            f"{name[:60]!r} is no model name: use a short name such as 'small', or 'org/name'."
        )
    return name


def hub_model(name: str, checkpoint: bool = False) -> HubModel | None:
    """The repository behind a short name or ``org/name``; None for any other name.

    ``checkpoint``: the original one with safetensors, not one for CTranslate2.
    """
    short = SYNONYMS.get(name, name)
    if checkpoint and short in CHECKPOINTS:
        return HubModel(CHECKPOINTS[short])
    if short in SHORT_NAMES:
        return SHORT_NAMES[short]
    return HubModel(check_name(name)) if "/" in name else None


def folder_name(name: str) -> str:
    """The folder that holds model ``name`` in the store.

    Raises:
        ModelNotFound: the name is not allowed.
    """
    return check_name(SYNONYMS.get(name, name)).replace("/", "--")
