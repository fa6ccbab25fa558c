"""Transcripts, plans, options and segments as JSON: lossless, with a version in each.

``TRANSCRIPT.dump(transcript)`` gives bytes and ``TRANSCRIPT.load`` the same value again, years
later too. Another frozen dataclass gets a codec of its own with ``Codec(name, version, type)``.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from whisper_api.errors import RecordBroken
from whisper_api.types import Envelope, Options, Plan, Segment, Transcript

T = TypeVar("T")

_PACKED = b"\x78"
"""The first byte of every zlib stream; JSON never starts with it."""


class Codec(Generic[T]):
    """One kind of value as JSON; unknown members of later versions of a record are left out."""

    def __init__(self, name: str, version: int, kind: Any) -> None:
        """``version`` goes up when older code could no longer read what is written."""
        self._name = name
        self._version = version
        self._adapter: TypeAdapter[T] = TypeAdapter(kind)

    def plain(self, value: T) -> dict[str, Any]:
        """``value`` in JSON's own types."""
        content = self._adapter.dump_python(value, mode="json")
        return {"kind": self._name, "version": self._version, "value": content}

    def restore(self, record: Any) -> T:
        """The value that ``plain`` was given.

        Raises:
            RecordBroken: another kind, a newer version, or damaged.
        """
        if not isinstance(record, dict) or record.get("kind") != self._name:
            raise RecordBroken(f"A stored {self._name} is damaged.")
        if record.get("version", 0) > self._version:
            raise RecordBroken(f"A stored {self._name} was written by a newer version.")
        try:
            return self._adapter.validate_python(record.get("value"))
        except ValidationError as error:
            raise RecordBroken(f"A stored {self._name} is damaged.") from error

    def dump(self, value: T) -> bytes:
        """``value`` as compressed JSON."""
        text = json.dumps(self.plain(value), ensure_ascii=False, separators=(",", ":"))
        # A single surrogate, which a model's broken bytes may leave, has no UTF-8.
        return zlib.compress(text.encode("utf-8", "surrogatepass"), 6)

    def load(self, data: bytes) -> T:
        """The value that ``dump`` was given; plain JSON is read as well.

        Raises:
            RecordBroken: as ``restore``.
        """
        try:
            raw = zlib.decompress(data) if data.startswith(_PACKED) else data
            record = json.loads(raw.decode("utf-8", "surrogatepass"))
        except (ValueError, zlib.error) as error:
            raise RecordBroken(f"A stored {self._name} is damaged.") from error
        return self.restore(record)


TRANSCRIPT: Codec[Transcript] = Codec("transcript", 1, Transcript)
PLAN: Codec[Plan] = Codec("plan", 1, Plan)
OPTIONS: Codec[Options] = Codec("options", 1, Options)
SEGMENTS: Codec[tuple[Segment, ...]] = Codec("segments", 1, tuple[Segment, ...])
ENVELOPE: Codec[Envelope] = Codec("envelope", 1, Envelope)
