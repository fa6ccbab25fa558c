"""What a folder on disk holds: a CTranslate2 Whisper model that can be loaded, or not, and why."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whisper_api.checkpoint import PICKLED, Tensors, is_hugging_face, read_json, read_sizes
from whisper_api.errors import ModelBroken

MANIFEST = "MANIFEST.json"
WEIGHTS = "model.bin"
CHECKPOINT = "huggingface"
"""The kind of a Hugging Face folder that is loaded as it is."""

_NEEDED = (WEIGHTS, "config.json", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that lies on this machine, ready to be loaded."""

    id: str  #: what answers and ``/v1/models`` call it
    path: Path
    kind: str = "ctranslate2"
    vocabulary_size: int = 51_865
    languages: tuple[str, ...] = ()  #: codes it is said to know; empty means all it has tokens for
    decoding: dict[str, Any] = field(default_factory=dict)
    """Thresholds from its manifest, named as in ``engines.base.Thresholds``."""
    note: str = ""  #: what users should know, in one sentence
    revision: str = ""  #: changes when other weights take the folder's place


def is_ctranslate2(folder: Path) -> bool:
    """Whether the folder looks like a model of CTranslate2's (it may still be broken)."""
    return (folder / WEIGHTS).is_file() and not is_hugging_face(folder)


def describe(folder: Path, name: str, manifest: Path | None = None) -> ModelFiles:
    """Check a CTranslate2 folder and read what its manifest says.

    Raises:
        ModelBroken: a file is missing, cut off, or of another kind of model.
    """
    missing = [file for file in _NEEDED if not (folder / file).is_file()]
    if missing:
        raise ModelBroken(f"The model {name!r} lacks {', '.join(missing)}.{_hint(folder)}")
    _check_weights(folder / WEIGHTS, name)
    path = manifest or folder / MANIFEST
    said = read_json(path) if path.is_file() else {}
    knows = said.get("knows")
    return ModelFiles(
        id=name,
        path=folder,
        vocabulary_size=_vocabulary_size(folder, name),
        languages=tuple(said.get("languages") or ()),
        decoding=dict(said.get("decoding") or {}),
        note=f"The model {name!r} knows {knows}." if knows else "",
        revision=str((folder / WEIGHTS).stat().st_mtime_ns),
    )


def describe_checkpoint(folder: Path, name: str) -> ModelFiles:
    """Check a Hugging Face folder that is loaded as it is, and read what its manifest says.

    Raises:
        ModelBroken: no Whisper model, or its weights are missing, pickled or cut off.
    """
    sizes = read_sizes(folder)
    Tensors(folder)
    weights = sorted(folder.glob("*.safetensors"))
    path = folder / MANIFEST
    said = read_json(path) if path.is_file() else {}
    knows = said.get("knows")
    return ModelFiles(
        id=name,
        path=folder,
        kind=CHECKPOINT,
        vocabulary_size=sizes.vocabulary,
        languages=tuple(said.get("languages") or ()),
        decoding=dict(said.get("decoding") or {}),
        note=f"The model {name!r} knows {knows}." if knows else "",
        revision=str(max(weight.stat().st_mtime_ns for weight in weights)),
    )


def folder_size(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _hint(folder: Path) -> str:
    pickled = [path.name for pattern in PICKLED for path in folder.glob(pattern)]
    if "model.bin" not in pickled and pickled and not list(folder.glob("*.safetensors")):
        return (
            f" {sorted(pickled)[0]} is pickled, and opening such a file can run code hidden in it:"
            " save the model as safetensors instead."
        )
    return ""


def _check_weights(path: Path, name: str) -> None:
    """The first bytes say the format's version and the kind of model."""
    with path.open("rb") as file:
        head = file.read(6)
        kind = file.read(struct.unpack("<4xH", head)[0])[:-1] if len(head) == 6 else b""
    if kind == b"WhisperSpec":
        return
    if kind.endswith(b"Spec"):
        raise ModelBroken(
            f"The model {name!r} is a {kind.decode('ascii', 'replace')}, not Whisper."
        )
    raise ModelBroken(
        f"{path.name} of the model {name!r} is not in CTranslate2's format. If it is a pickled"
        " PyTorch file: opening such files can run code hidden in them; save the model as"
        " safetensors and import that folder."
    )


def _vocabulary_size(folder: Path, name: str) -> int:
    words, lines = folder / "vocabulary.json", folder / "vocabulary.txt"
    try:
        if words.is_file():
            return len(json.loads(words.read_text(encoding="utf-8")))
        if lines.is_file():
            # Whisper's own words hold no line feed: byte-level BPE writes it as another character.
            return len(lines.read_text(encoding="utf-8").rstrip("\n").split("\n"))
    except (ValueError, OSError) as error:
        raise ModelBroken(f"The vocabulary of the model {name!r} cannot be read.") from error
    raise ModelBroken(f"The model {name!r} lacks vocabulary.json.")
