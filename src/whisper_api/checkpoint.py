"""A Whisper checkpoint as transformers saves it: sizes, tensors, tokenizer, JSON files.

Only safetensors are read (one file, or shards with an index; float32, float16 or bfloat16): pickled
weights can run code when they are opened and are refused. Tensors stay on disk until one is asked
for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from whisper_api.errors import ModelBroken

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5")

_STORED: dict[str, Any] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the shapes depend on, from ``config.json``."""

    encoder_layers: int
    encoder_heads: int
    decoder_layers: int
    decoder_heads: int
    mels: int
    vocabulary: int


def is_hugging_face(folder: Path) -> bool:
    """Whether ``folder`` looks like a Whisper checkpoint of transformers."""
    try:
        return bool(read_json(folder / CONFIG).get("model_type") == "whisper")
    except ModelBroken:
        return False


def read_sizes(folder: Path) -> Sizes:
    """The sizes in ``config.json``.

    Raises:
        ModelBroken: no such file, not Whisper, or a size is missing.
    """
    config = read_json(folder / CONFIG)
    if config.get("model_type") != "whisper":
        raise ModelBroken(
            f"The model in {folder.name!r} is of type {config.get('model_type')!r}, not 'whisper'."
        )
    try:
        return Sizes(
            encoder_layers=int(config["encoder_layers"]),
            encoder_heads=int(config["encoder_attention_heads"]),
            decoder_layers=int(config["decoder_layers"]),
            decoder_heads=int(config["decoder_attention_heads"]),
            mels=int(config["num_mel_bins"]),
            vocabulary=int(config["vocab_size"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelBroken(f"{CONFIG} of {folder.name!r} lacks a size: {error}") from error


class Tensors:
    """The named tensors of a folder, mapped from disk; read one at a time."""

    def __init__(self, folder: Path) -> None:
        """Find the files; nothing is read yet.

        Raises:
            ModelBroken: no safetensors, a missing shard, or a broken header.
        """
        self._folder = folder
        self._places: dict[str, tuple[Path, str, tuple[int, ...], int]] = {}
        for name in self._files():
            self._read_header(folder / name)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises ModelBroken where there is no such tensor."""
        return self._place(name)[2]

    def float32(self, name: str) -> NDArray[np.float32]:
        """A tensor in float32, read now."""
        path, kind, shape, offset = self._place(name)
        stored = np.memmap(path, _STORED[kind], "r", offset, shape)
        if kind == "BF16":
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float32)

    def _place(self, name: str) -> tuple[Path, str, tuple[int, ...], int]:
        if name not in self._places:
            raise ModelBroken(f"The weights in {self._folder.name!r} lack the tensor {name}.")
        return self._places[name]

    def _files(self) -> list[str]:
        if (self._folder / INDEX).is_file():
            shards = read_json(self._folder / INDEX).get("weight_map")
            if not isinstance(shards, dict) or not shards:
                raise ModelBroken(f"{INDEX} of {self._folder.name!r} names no shards.")
            # A shard is a file of this folder, whatever path the index writes.
            return sorted({Path(str(shard)).name for shard in shards.values()})
        if (self._folder / WEIGHTS).is_file():
            return [WEIGHTS]
        pickled = [path.name for pattern in PICKLED for path in self._folder.glob(pattern)]
        if pickled:
            raise ModelBroken(
                f"The weights in {self._folder.name!r} are pickled ({sorted(pickled)[0]}): opening"
                " such a file can run code hidden in it, so it is refused. Save the model again"
                " with save_pretrained(..., safe_serialization=True) and use that folder."
            )
        raise ModelBroken(f"There is no {WEIGHTS} in {self._folder.name!r}.")

    def _read_header(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                if not 2 <= size <= 100_000_000:
                    raise ValueError("no safetensors header")
                header = json.loads(file.read(size))
            total = path.stat().st_size
            for name, entry in header.items():
                if name != "__metadata__":
                    self._add(name, entry, path, 8 + size, total)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelBroken(f"{path.name} of {self._folder.name!r}: {error}") from error

    def _add(self, name: str, entry: dict[str, Any], path: Path, base: int, total: int) -> None:
        kind, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
        first, last = (int(offset) for offset in entry["data_offsets"])
        if kind not in _STORED:
            raise ValueError(f"{name} is stored as {kind}; F32, F16 and BF16 are understood")
        length = int(np.prod(shape, dtype=np.int64)) * np.dtype(_STORED[kind]).itemsize
        if last - first != length or first < 0 or base + last > total:
            raise ValueError(f"{name} is cut off or has a wrong length")
        self._places[_canonical(name)] = (path, kind, shape, base + first)


def read_tokenizer(folder: Path) -> Tokenizer:
    """From ``tokenizer.json``, or from ``vocab.json``, ``merges.txt``, ``added_tokens.json``.

    Raises:
        ModelBroken: neither is there, or it cannot be read.
    """
    path = folder / "tokenizer.json"
    try:
        if path.is_file():
            return Tokenizer.from_file(str(path))
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return _slow_tokenizer(folder)
    except ModelBroken:
        raise
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelBroken(f"The tokenizer of {folder.name!r} cannot be read: {error}") from error
    raise ModelBroken(
        f"There is no tokenizer in {folder.name!r}: tokenizer.json, or vocab.json with"
        " merges.txt and added_tokens.json, is needed."
    )


def _slow_tokenizer(folder: Path) -> Tokenizer:
    vocabulary = {str(word): int(i) for word, i in read_json(folder / "vocab.json").items()}
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    merges = [tuple(line.split()) for line in lines if line.strip() and line[:8] != "#version"]
    tokenizer = Tokenizer(BPE(vocabulary, [(pair[0], pair[1]) for pair in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    added = folder / "added_tokens.json"
    extra = read_json(added) if added.is_file() else {}
    ends = {word: i for word, i in vocabulary.items() if word == "<|endoftext|>"}
    ordered = sorted({**extra, **ends}.items(), key=lambda pair: int(pair[1]))
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word, _ in ordered])
    for word, number in ordered:
        if tokenizer.token_to_id(word) != number:
            raise ModelBroken(f"added_tokens.json of {folder.name!r} leaves a gap before {word}.")
    return tokenizer


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises ModelBroken where there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelBroken(f"There is no {path.name} in {path.parent.name!r}.") from error
    except (OSError, ValueError) as error:
        raise ModelBroken(f"{path.name} of {path.parent.name!r} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ModelBroken(f"{path.name} of {path.parent.name!r} holds no JSON object.")
    return values


def _canonical(name: str) -> str:
    """Without the ``model.`` that some checkpoints have and others do not."""
    return name.removeprefix("model.")
