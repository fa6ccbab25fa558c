"""Audio on its way in: what tests of sources and of decoding share. Fixtures: unit/conftest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whisper_api.audio.decode import Decoder
from whisper_api.audio.scratch import Scratch
from whisper_api.audio.sources import Intake
from whisper_api.config import FileValidation, Settings
from whisper_api.types import AudioFile, Options, Waveform

LIMITS: dict[str, Any] = {"max_duration_s": 60, "decode_memory_mb": 512, "decode_timeout_s": 20}
"""Of decoders whose limits are tested."""


def own(**settings: Any) -> Decoder:
    """A decoder with one worker, not started."""
    return Decoder(Settings(**{**LIMITS, "decode_workers": 1, **settings}))


def on_disk(scratch: Scratch, data: bytes) -> AudioFile:
    """A file that nobody has looked into."""
    path = scratch.unique("upload")
    path.write_bytes(data)
    return AudioFile(path, "x", len(data), "", "", "", "", None)


async def decode(decoder: Decoder, scratch: Scratch, data: bytes, **options: Any) -> Waveform:
    """What ``decoder`` makes of a file."""
    return await decoder.decode(on_disk(scratch, data), scratch, Options(**options))


def intake(decoder: Decoder, *, directories: tuple[Path, ...] = (), **rules: Any) -> Intake:
    """A door with these rules for files."""
    return Intake(
        Settings(file_validation=FileValidation(**rules), allowed_directories=directories), decoder
    )
