"""Which model runs on what, and how it decodes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from whisper_api.config.kinds import Names, Objects, Section, Texts


class ModelSettings(Section):
    """The model, its engine and its hardware."""

    model_path: str = "bundled"
    """``bundled``, a model name such as ``small``, a hub name, or a folder."""
    model_aliases: Names = Field(
        default={}, json_schema_extra={"limits": "an object: name -> model"}
    )
    """More names for models, as ``{"gpt-4o-transcribe": "large-v3"}``; ``default`` means the model
    of ``model_path``, an empty text removes a name. Without an entry OpenAI's names mean the
    default."""
    allowed_models: Texts = ()
    """Models that requests may name besides the default; empty: all that lie on this machine."""
    preload_models: Texts = ()
    """Models loaded at start besides the default."""
    model_idle_s: Annotated[float, Field(ge=0, le=31_536_000)] = 0
    """Seconds without use after which a model leaves the memory, the default one too; 0 keeps
    all."""
    model_memory_mb: Annotated[float, Field(ge=0, le=100_000_000)] = 0
    """Most megabytes of models in memory, by the size of their files; idle ones make room, the
    longest idle first. 0: no limit."""
    model_ttl_s: Annotated[float, Field(ge=0, le=3600)] = 5
    """Seconds for which what is known of a model's files is not looked at again."""
    engine: str = "auto"
    """``auto`` (the fastest here, measured), ``ctranslate2``, ``openvino``,
    ``transformers``, or ``module:Class``."""
    device: Annotated[
        str,
        Field(
            pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
            json_schema_extra={"limits": "auto, cpu, mps, cuda or cuda:N"},
        ),
    ] = "auto"
    """``auto``, ``cpu``, ``mps`` (with the transformers engine), ``cuda`` or ``cuda:N``."""
    device_id: Annotated[int, Field(ge=0, le=63)] | None = None
    """Which accelerator, where there are several; none takes the emptiest."""
    compute_type: str = "auto"
    """Number format of the weights in use: ``auto``, ``int8``, ``float16``, ``float32`` or more."""
    offline: bool = False
    """Never ask the model hub for anything."""
    cpu_threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Threads of each CPU replica; 0 chooses."""
    replicas: Annotated[int, Field(ge=0, le=64)] = 0
    """Batches decoded at the same time; 0 chooses."""
    allocator: Literal["system", "keep", "keep-huge"] = "system"
    """Whether ``serve`` and ``worker`` restart themselves once with glibc told to ``keep`` freed
    memory for the next batch, or to keep it in huge pages: faster where page faults are dear, for
    more memory."""
    short_windows: Literal["auto", "always", "never"] = "auto"
    """Whether windows under 30 s are encoded without filling them up with silence: several times
    faster, and for most Whisper models less exact. ``auto`` is as the model's manifest says."""
    decoder: Literal["auto", "ctranslate2", "openvino"] = "auto"
    """What writes the text where OpenVINO is installed. Its own decoder has a lone window written
    sooner on processors with AMX or AVX-512 BF16, in less memory; ``auto`` takes what does more
    work in the same time, measured."""
    batch_size: Annotated[int, Field(ge=0, le=1024)] = 0
    """Most windows in one batch. 0 chooses: 8, with OpenVINO's decoder 16, with the transformers
    engine on a card as many as half of its free memory takes, up to 128 (``/ready`` says)."""


class DecodingSettings(Section):
    """How speech becomes text when a request does not say."""

    language: Annotated[
        str, Field(json_schema_extra={"limits": "auto, an ISO code or an English name"})
    ] = "auto"
    """Language of the speech when a request names none: a code, an English name, or ``auto``."""
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Sampling temperature when a request names none; 0 (and up to 0.01) is the fallback ladder."""
    beam_size: Annotated[int, Field(ge=1, le=20)] = 5
    """Width of the beam search."""
    max_new_tokens: Annotated[int, Field(ge=8, le=448)] = 448
    """Most tokens written for one window."""
    chunk_length_s: Annotated[float, Field(ge=1, le=30)] = 30
    """Longest window in seconds."""
    return_timestamps: bool = False
    """Whether ``json`` answers carry segments when a request does not say."""
    profiles: Objects = Field(
        default={},
        json_schema_extra={"limits": "an object: name -> object with fields of a request"},
    )
    """Fields for requests that name a model as ``whisper-1:NAME``, for instance
    ``{"meeting": {"language": "ru", "prompt": "…"}}``; what a request sends itself wins."""
