"""An accelerator is tried before it is relied on: its attention, a full batch, its graphs.

What does not work there is replaced by what does, and said in the log and in ``/ready``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from whisper_api.engines.base import DecodeParams
from whisper_api.engines.torch_memory import Room
from whisper_api.engines.torch_network import encode
from whisper_api.engines.torch_parts import Parts, in_stream, let_go, on_device
from whisper_api.engines.torch_place import FLASH, SDPA, TorchPlace
from whisper_api.types import SAMPLE_RATE, WINDOW_SECONDS

log = logging.getLogger(__name__)

_SIGNS = ("out of memory", "can't allocate memory", "alloc_failed", "failed to allocate")
_FAR = 0.05
"""Relative distance (L2) of two encodings in half precision at which one of them is wrong."""
_TOKENS = 12


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, CUDA or the system had no memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _SIGNS)


def checked_attention(encoder: Any, mels: int, place: TorchPlace) -> TorchPlace:
    """``place``, with torch's own attention where FlashAttention 2 fails or answers otherwise.

    The encoder is switched over then.
    """
    if place.attention != FLASH:
        return place
    device, dtype = torch.device(place.device), getattr(torch, place.dtype)
    with on_device(device):
        noise = torch.randn(2, mels, 3000, generator=torch.Generator().manual_seed(0))
        noise = noise.to(device, dtype)
        try:
            found, failed = encode(encoder, noise).float(), ""
        except (RuntimeError, ImportError, TypeError, ValueError, AttributeError, NameError) as why:
            found, failed = None, (str(why) or repr(why)).splitlines()[0]
        encoder.config._attn_implementation = SDPA
        if found is not None:
            expected = encode(encoder, noise).float()
            distance = float((found - expected).norm() / expected.norm())
            failed = "" if distance < _FAR else "it answers otherwise than torch's own attention"
    if not failed:
        encoder.config._attn_implementation = FLASH
        return place
    fell_back = f"FlashAttention 2 does not work here: {failed}"
    log.warning("attention is %s: %s", SDPA, fell_back)
    return replace(place, attention=SDPA, fell_back=fell_back)


def fitted(make: Callable[[Room], Parts], room: Room, width: int, device: Any) -> Parts:
    """The parts that ``make`` builds, with half the room each time they do not fit.

    Raises:
        RuntimeError: torch's, where not even one window fits.
    """
    while True:
        parts = None
        try:
            parts = make(room)
            if device.type != "cpu":
                try_out(parts, width)
            return parts
        except RuntimeError as error:
            if room.items == 1 or not is_out_of_memory(error):
                raise
        parts, room = None, room.halved(width)
        let_go(device)
        log.warning("a full batch does not fit: batches are of %d windows", room.items)


def try_out(parts: Parts, width: int) -> None:
    """A full batch from sound to text in ``width`` beams; graphs that write otherwise are left out.

    Raises:
        RuntimeError: torch's, where it does not fit.
    """
    generator = parts.generator
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(WINDOW_SECONDS * SAMPLE_RATE, np.float32) * np.float32(0.1)
    with on_device(parts.device):
        with in_stream(parts.streams.encode):
            mels = parts.mel([noise] * generator.room.items).to(parts.dtype)
            encodings = encode(parts.encoder, mels)
        with in_stream(parts.streams.write):
            for beams, count in ((width, generator.room.items_of(width)), (1, 1)):
                params = DecodeParams("en", beam_size=beams, max_new_tokens=_TOKENS)
                prompts = [[parts.tokenizer.sot]] * count
                found = generator.write(encodings[:count], prompts, params)
            generator.check_graphs(encodings[:1], prompts, params, found)
