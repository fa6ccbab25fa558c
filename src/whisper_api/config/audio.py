"""What audio is let in, and what is done to it before decoding."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from whisper_api.config.kinds import Folders, Section, Texts


class FileValidation(Section):
    """Which uploads are let in."""

    max_file_size_mb: Annotated[float, Field(gt=0, le=1_048_576)] = 2048
    """Largest accepted file in MiB, counted while its bytes arrive."""
    allowed_extensions: Texts = ()
    """File name endings let in (with or without the dot); empty means every supported format."""
    allowed_mime_types: Texts = ()
    """MIME types let in, judged by content; synonyms count; empty means every supported one."""
    allowed_containers: Texts = ()
    """Containers let in, by libav's names; empty means every supported one."""
    allowed_codecs: Texts = ()
    """Audio codecs let in, by libav's names; empty means every supported one."""


class PreprocessingSettings(Section):
    """The old sox chain; off unless one of the three is named."""

    audio_rate: Annotated[int, Field(ge=8000, le=192_000)] | None = None
    """Samples per second of the old preprocessing chain."""
    norm_level: Annotated[float, Field(ge=-60, le=0)] | None = None
    """Peak level in dB that the old chain normalises to."""
    compand_params: str | None = None
    """Compression curve of the old chain, in sox's syntax."""


class InputSettings(Section):
    """Inputs and their limits."""

    file_validation: FileValidation = FileValidation()
    """Which uploads are let in."""
    allowed_directories: Folders = ()
    """Folders whose files ``/local/transcriptions`` may read; empty turns it off."""
    max_duration_s: Annotated[float, Field(ge=1, le=604_800)] = 86_400
    """Longest accepted audio in seconds, counted while decoding."""
    decode_workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Processes that decode audio; of several, one takes short files only, and the others run at
    low priority."""
    decode_timeout_s: Annotated[float, Field(ge=1, le=86_400)] = 600
    """Longest time that decoding one file may take."""
    decode_memory_mb: Annotated[int, Field(ge=256, le=65_536)] = 1024
    """Memory limit of each decode process (where the system has such limits)."""
    decode_recycle: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    """Files after which a decode process is replaced by a fresh one."""
    url_timeout_s: Annotated[float, Field(ge=1, le=86_400)] = 300
    """Longest time that fetching one URL may take."""
    url_max_redirects: Annotated[int, Field(ge=0, le=20)] = 5
    """Most redirects followed for one URL."""
    url_allowed_hosts: Texts = ()
    """Host names or networks (``10.0.0.0/8``) that URLs may reach although they are private."""


class SpeechSettings(Section):
    """How speech is found."""

    vad: bool = True
    """Find speech first and decode only that."""
    vad_threads: Annotated[int, Field(ge=1, le=64)] = 2
    """Long recordings in which speech is looked for at the same time."""
    vad_threshold: Annotated[float, Field(ge=0.05, le=0.95)] = 0.5
    """Speech probability from which a stretch counts as speech."""
    vad_faint: Annotated[float, Field(ge=0.1, le=1)] = 0.4
    """Share of ``vad_threshold`` that is enough for sounds that stand out, such as whispers. Where
    nothing else is heard they get text only if the model is sure of it. 1 ignores them."""
    vad_min_speech_ms: Annotated[int, Field(ge=0, le=10_000)] = 64
    """Shortest stretch of speech that is kept."""
    vad_min_silence_ms: Annotated[int, Field(ge=32, le=10_000)] = 500
    """Silence that ends a stretch of speech."""
    vad_speech_pad_ms: Annotated[int, Field(ge=0, le=5_000)] = 300
    """Audio kept on both sides of each stretch."""
