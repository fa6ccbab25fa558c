"""What a look into a file finds; a plain value that needs no libav to be imported."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Probe:
    """What libav found in a file without decoding it."""

    container: str  #: libav's demuxer name
    codec: str  #: libav's codec name
    mime: str  #: canonical MIME type
    duration: float | None  #: seconds the container claims
    rate: int  #: samples per second
    channels: int
    video: bool  #: there are moving pictures, not only a cover

    def as_dict(self) -> dict[str, object]:
        """Plain values, for the way back from the worker."""
        return asdict(self)
