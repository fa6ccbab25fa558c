"""What a loaded torch model consists of, and the streams that its parts run in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from whisper_api.engines.torch_align import Aligner
from whisper_api.engines.torch_features import LogMel
from whisper_api.engines.torch_generate import Generator
from whisper_api.engines.torch_place import TorchPlace
from whisper_api.tokens import WhisperTokenizer


@dataclass(frozen=True, slots=True)
class Streams:
    """Of a card, where they run side by side; None each elsewhere.

    Graphs are recorded and replayed in ``write``.
    """

    copy: Any = None
    encode: Any = None
    write: Any = None

    @classmethod
    def on(cls, device: Any) -> Streams:
        """New ones. Steps of the decoder are small and go first where the encoder leaves a gap."""
        if device.type != "cuda":
            return cls()
        # They do not wait for the default stream, in which the model was loaded.
        torch.cuda.synchronize(device)
        return cls(*(torch.cuda.Stream(device, priority) for priority in (0, 0, -1)))


@dataclass(frozen=True, slots=True)
class Parts:
    """A loaded model, ready for the engine."""

    encoder: Any
    tokenizer: WhisperTokenizer
    mel: LogMel
    generator: Generator
    aligner: Aligner
    device: Any
    dtype: Any
    place: TorchPlace
    streams: Streams


@contextmanager
def in_stream(stream: Any) -> Iterator[None]:
    """In ``stream`` (None: as it is), which is waited for at the end.

    What the block allocates may be read from other streams, and freed, after it.
    """
    if stream is None:
        yield
        return
    with torch.cuda.stream(stream):
        try:
            yield
        finally:
            stream.synchronize()


@contextmanager
def on_device(device: Any) -> Iterator[None]:
    """Without gradients, and with ``device`` as this thread's own where it is a card."""
    with torch.inference_mode():
        if device.type == "cuda":
            with torch.cuda.device(device):
                yield
        else:
            yield


def let_go(device: Any) -> None:
    """Give memory that nothing uses back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
