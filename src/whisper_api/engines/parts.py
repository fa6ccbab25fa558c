"""The two halves of an engine on processors, and who chooses them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from whisper_api.engines.encoder import Encoder
from whisper_api.engines.writer import Writer


@dataclass(frozen=True, slots=True)
class Parts:
    """What encodes, and what writes."""

    encoder: Encoder
    writer: Writer


@dataclass(frozen=True, slots=True)
class Chosen:
    """Parts, the name of the engine that has them, and why."""

    parts: Parts
    engine: str
    reason: str = ""
    replicas: int = 0  #: batches that run at the same time; 0: as placed
    batch_size: int = 0  #: most windows in one batch; 0: what the settings say


Choose = Callable[[Parts, bool], Chosen]
"""Picks parts; is given CTranslate2's own, and whether short windows stay short."""
