"""Which audio frame each token belongs to, out of what the decoder's heads paid to the audio.

As openai/whisper's ``timing.py`` and CTranslate2 do it: softmax over the frames with sound,
standardised over the tokens, smoothed by a median, averaged over the heads, then the cheapest path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from whisper_api.alignment import MEDIAN_FILTER
from whisper_api.engines.torch_network import Decoder
from whisper_api.tokens import CONTEXT, WhisperTokenizer

_BYTES = 512 * 1024 * 1024  # of attention held at once

Path = list[tuple[int, int]]


class Aligner:
    """Aligns texts with their windows."""

    def __init__(
        self, decoder: Decoder, tokenizer: WhisperTokenizer, heads: Sequence[tuple[int, int]]
    ) -> None:
        """``heads`` are (layer, head) pairs that are known to follow the speech."""
        self._decoder, self._tokenizer = decoder, tokenizer
        self._heads = list(heads)

    def align(
        self, encodings: Any, starts: Sequence[list[int]], texts: Sequence[list[int]],
        frames: Sequence[int],
    ) -> list[tuple[Path, list[float]]]:  # fmt: skip
        """(path of (token, frame) pairs, probability of each token) for each window.

        ``starts`` are the tokens up to the task, ``frames`` the mel frames that hold sound.
        """
        longest = max(map(len, texts)) + max(map(len, starts)) + 2
        one = 4 * len(self._heads) * longest * encodings.shape[1]
        size = max(1, _BYTES // one)
        found = []
        for first in range(0, len(texts), size):
            part = slice(first, first + size)
            found += self._align(encodings[part], starts[part], texts[part], frames[part])
        return found

    def _align(
        self, encodings: Any, starts: Sequence[list[int]], texts: Sequence[list[int]],
        frames: Sequence[int],
    ) -> list[tuple[Path, list[float]]]:  # fmt: skip
        end, silent = self._tokenizer.eot, self._tokenizer.no_timestamps
        rows = [
            [*start, silent, *text, end][:CONTEXT]
            for start, text in zip(starts, texts, strict=True)
        ]
        longest = max(map(len, rows))
        # What fills up the end is read after everything else, so that it changes nothing.
        filled = [row + [end] * (longest - len(row)) for row in rows]
        tokens = torch.tensor(filled, device=encodings.device)
        states, paid = self._decoder.read(tokens, self._decoder.cross(encodings), self._heads)
        answers = []
        for i, (start, text) in enumerate(zip(starts, texts, strict=True)):
            begin, length = len(start), len(rows[i])
            logits = self._decoder.logits(states[i, begin : length - 2])
            chosen = tokens[i, begin + 1 : length - 1]
            odds = logits[:, : self._tokenizer.eot].softmax(dim=1).gather(1, chosen[:, None])[:, 0]
            weights = _smooth(paid[i, :, :length, : frames[i] // 2])
            path = cheapest_path(-weights[begin : length - 1].cpu().numpy())
            missing = len(text) - len(odds)
            answers.append((path, odds.tolist() + [0.0] * missing))
        return answers


def _smooth(paid: Any) -> Any:
    """``[heads, tokens, frames]`` -> ``[tokens, frames]``."""
    weights = paid.softmax(dim=-1)
    spread, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    weights = (weights - mean) / spread.clamp(min=1e-12)
    half = MEDIAN_FILTER // 2
    if weights.shape[-1] > half:
        padded = functional.pad(weights, (half, half), mode="reflect")
        weights = padded.unfold(-1, MEDIAN_FILTER, 1).median(dim=-1).values
    return weights.mean(dim=0)


def cheapest_path(costs: NDArray[np.float32]) -> Path:
    """Dynamic time warping from the first token and frame to the last, step by step.

    Cells of one antidiagonal do not depend on each other, so each is computed at once.
    """
    tokens, frames = costs.shape
    total = np.full((tokens + 1, frames + 1), np.inf, np.float32)
    total[0, 0] = 0
    trace = np.zeros((tokens + 1, frames + 1), np.int8)
    trace[0, :], trace[:, 0] = 2, 1
    for diagonal in range(2, tokens + frames + 1):
        i = np.arange(max(1, diagonal - frames), min(tokens, diagonal - 1) + 1)
        j = diagonal - i
        both, up, left = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        way = np.where((both < up) & (both < left), 0, np.where((up < both) & (up < left), 1, 2))
        total[i, j] = costs[i - 1, j - 1] + np.choose(way, (both, up, left))
        trace[i, j] = way
    return _walk_back(trace)


def _walk_back(trace: NDArray[np.int8]) -> Path:
    i, j = trace.shape[0] - 1, trace.shape[1] - 1
    path: Path = []
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        way = trace[i, j]
        i, j = i - int(way != 2), j - int(way != 1)
    return path[::-1]
