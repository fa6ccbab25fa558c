"""The decoder's memory: sized once from what the device has free, then never moved.

CUDA graphs hold addresses, so that nothing here may be allocated anew while one may be replayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from whisper_api.engines.base import DEFAULT_BATCH
from whisper_api.engines.torch_network import Decoder, Pair
from whisper_api.tokens import CONTEXT

POSITIONS = 1500
"""Encoder positions of a full window."""

LARGEST_BEAM = 20  # as the setting allows
AUTOMATIC = 128  # windows: more is hardly faster on any card, and takes longer to wait for
AUTOMATIC_MPS = 16
_SHARE = 0.8  # of the free memory; the rest is for the words, the graphs and fragmentation
_AUTOMATIC_SHARE = 0.5  # leaves room for another model
_KEPT = 3  # encodings of each window: kept, being stacked, being made
_WORKING = 8  # float32 copies of the logits that a step of a search holds


@dataclass(frozen=True, slots=True)
class Room:
    """How many windows, and rows of text, are decoded at once."""

    items: int
    rows: int

    def items_of(self, width: int) -> int:
        """Windows in one batch where each takes ``width`` rows."""
        return max(1, min(self.items, self.rows // width))

    def halved(self, width: int) -> Room:
        """Room for half as many windows of ``width`` rows."""
        items = max(1, self.items // 2)
        return Room(items, max(items * width, LARGEST_BEAM))


def plan(
    decoder: Decoder,
    wanted: int,
    width: int,
    item_bytes: int,
    free: int | None,
    most: int = AUTOMATIC,
) -> Room:
    """Room for up to ``wanted`` windows of ``width`` rows in ``free`` bytes (None: no limit).

    ``wanted`` of 0 chooses: up to ``most`` in half of what is free, or a processor's usual number.
    ``item_bytes`` is the size of one number in the model's format.
    """
    share = _SHARE if wanted else _AUTOMATIC_SHARE
    wanted = wanted or (DEFAULT_BATCH if free is None else most)
    row = 2 * len(decoder.layers) * CONTEXT * decoder.width * item_bytes
    row += _WORKING * 4 * decoder.size
    audio = 2 * len(decoder.layers) * POSITIONS * decoder.width * item_bytes
    # A batch being encoded beside the one that is decoded: states, and the widened inner ones.
    audio += (2 * 8 + _KEPT) * POSITIONS * decoder.width * item_bytes
    items = wanted if free is None else int(free * share / (audio + width * row))
    items = max(1, min(wanted, items))
    return Room(items, max(items * width, LARGEST_BEAM))


class Memory:
    """Keys and values of texts and of audio, for one decoder."""

    def __init__(self, decoder: Decoder, room: Room, device: Any, dtype: Any) -> None:
        """Allocate all of it.

        Raises:
            RuntimeError: it does not fit (torch's errors).
        """
        heads, width = decoder.heads, decoder.width // decoder.heads
        self._heads, self._width = heads, width
        shape = (room.rows, heads, CONTEXT, width)
        flat = room.items * heads * POSITIONS * width

        def make(*size: int) -> Pair:
            pair = [torch.zeros(*size, device=device, dtype=dtype) for _ in range(2)]
            return pair[0], pair[1]

        self._text = [make(*shape) for _ in decoder.layers]
        self._audio = [make(flat) for _ in decoder.layers]

    def text(self, rows: int) -> list[Pair]:
        """Each layer's keys and values of the first rows: ``[rows, heads, context, width]``."""
        return [(keys[:rows], values[:rows]) for keys, values in self._text]

    def heads_of(self, items: int, width: int) -> list[Pair]:
        """Only each item's first row."""
        return [(k[: items * width : width], v[: items * width : width]) for k, v in self._text]

    def audio(self, items: int, positions: int) -> list[Pair]:
        """Each layer's keys and values of the audio: ``[items, heads, positions, width]``."""
        size = (items, self._heads, positions, self._width)
        count = items * self._heads * positions * self._width
        return [
            (keys[:count].view(size), values[:count].view(size)) for keys, values in self._audio
        ]

    def spread(self, items: int, width: int, length: int) -> None:
        """Copy the first row of each item to its other rows, as far as ``length`` tokens."""
        if width == 1:
            return
        for pair in self.text(items * width):
            for kept in pair:
                rows = kept.view(items, width, *kept.shape[1:])[:, :, :, :length]
                rows[:, 1:] = rows[:, :1]

    def gather(self, items: Any, rows: Any, before: int, positions: int, length: int) -> None:
        """Move these items of a batch of ``before``, and rows of text, to the front, in order.

        ``rows`` has as many for each item as the batch; of texts ``length`` tokens are moved.
        """
        for pair, fresh in zip(
            self.audio(before, positions), self.audio(items.shape[0], positions), strict=True
        ):
            for kept, target in zip(pair, fresh, strict=True):
                target.copy_(kept.index_select(0, items))
        for pair in self._text:
            for kept in pair:
                moved = kept[:, :, :length].index_select(0, rows)
                kept[: rows.shape[0], :, :length] = moved

    def reorder(self, parents: Any, span: int) -> None:
        """Let each row go on from another row of its item, in the first ``span`` positions."""
        for pair in self.text(parents.shape[0]):
            for kept in pair:
                seen = kept[:, :, :span]
                seen.copy_(seen.index_select(0, parents))
