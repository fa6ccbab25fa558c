"""The weights in a CTranslate2 model file (``model.bin``), each read when it is asked for.

The format (``ctranslate2/specs/model_spec.py``, binary version 6): little-endian; a header, then
every variable as name, rank, dimensions, number format, length and data, then aliases. Quantized
weights are integers that a ``weight_scale`` beside them divides, one for each row.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from whisper_api.errors import ModelBroken

VERSION = 6
ALL = slice(None)
_INT8, _INT16, _BFLOAT16 = 1, 2, 5
_FORMATS = ("<f4", "<i1", "<i2", "<i4", "<f2", "<u2")
"""By number; the last one is bfloat16, which numpy lacks."""
_INT16_SCALE = 2**10
"""What int16 weights are multiplied by where the file gives no scale of their own."""


@dataclass(frozen=True, slots=True)
class _Place:
    kind: int
    shape: tuple[int, ...]
    offset: int


class ConvertedWeights:
    """The named variables of one file, mapped from disk."""

    def __init__(self, path: Path) -> None:
        """Find the variables; nothing is read yet.

        Raises:
            ModelBroken: cut off, or of another version.
        """
        self._path = path
        self._places: dict[str, _Place] = {}
        try:
            with path.open("rb") as file:
                self._read_index(file, path.stat().st_size)
        except (OSError, ValueError, struct.error) as error:
            raise ModelBroken(f"{path.name} cannot be read: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises ModelBroken where there is no such variable."""
        return self._place(name).shape

    def number(self, name: str) -> int:
        """A single stored number."""
        return int(self._stored(name).reshape(-1)[0])

    def float32(self, name: str, rows: slice = ALL, columns: slice = ALL) -> NDArray[np.float32]:
        """A variable, or a part of it, in float32, its quantization undone."""
        place, stored = self._place(name), self._stored(name)[rows]
        stored = stored if columns == ALL else stored[:, columns]
        if place.kind == _BFLOAT16:
            return (stored.astype(np.uint32) << 16).view(np.float32)
        values = stored.astype(np.float32)
        if place.kind in (_INT8, _INT16):
            scale = self._scale(name, place)
            values /= scale[rows] if len(scale) > 1 else scale
        return values

    def int8(
        self, name: str, rows: slice = ALL, columns: slice = ALL
    ) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """A matrix, or a part of it, as integers and what each row is multiplied by; quantized now
        if it is not."""
        if self._place(name).kind == _INT8:
            factor = (1 / self._scale(name, self._place(name))[rows]).astype(np.float32)
            return np.array(self._stored(name)[rows, columns]), factor
        values = self.float32(name, rows, columns)
        largest = np.abs(values).max(axis=1, keepdims=True)
        factor = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        return np.rint(values / factor).astype(np.int8), factor

    def _scale(self, name: str, place: _Place) -> NDArray[np.float32]:
        scale = f"{name}_scale"
        if scale not in self._places and place.kind == _INT16:
            return np.array([_INT16_SCALE], np.float32)
        rows = self._stored(scale).astype(np.float32).reshape(-1)
        return rows.reshape(-1, *(1 for _ in place.shape[1:]))

    def _place(self, name: str) -> _Place:
        if name not in self._places:
            raise ModelBroken(f"{self._path.name} lacks the variable {name}.")
        return self._places[name]

    def _stored(self, name: str) -> NDArray[Any]:
        place = self._place(name)
        return np.memmap(self._path, _FORMATS[place.kind], "r", place.offset, place.shape or (1,))

    def _read_index(self, file: BinaryIO, total: int) -> None:
        version = _unpack(file, "<I")
        if version != VERSION:
            raise ValueError(f"it has version {version} of the format; {VERSION} is understood")
        _text(file)
        _unpack(file, "<I")  # revision of the specification
        for _ in range(_unpack(file, "<I")):
            name = _text(file)
            shape = tuple(_unpack(file, "<I") for _ in range(_unpack(file, "<B")))
            kind, length = _unpack(file, "<B"), _unpack(file, "<I")
            place = self._places[name] = _Place(kind, shape, file.tell())
            if length != _bytes_of(place) or file.seek(length, 1) > total:
                raise ValueError(f"{name} is cut off or has a wrong length")


def _bytes_of(place: _Place) -> int:
    if place.kind >= len(_FORMATS):
        raise ValueError(f"the number format {place.kind} is not known")
    return int(np.prod(place.shape, dtype=np.int64)) * np.dtype(_FORMATS[place.kind]).itemsize


def _unpack(file: BinaryIO, kind: str) -> int:
    (value,) = struct.unpack(kind, file.read(struct.calcsize(kind)))
    return int(value)


def _text(file: BinaryIO) -> str:
    return file.read(_unpack(file, "<H"))[:-1].decode()
