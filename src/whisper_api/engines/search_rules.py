"""Which tokens may come next, in numpy: suppressed ones, and Whisper's rules of timestamps.

The rules are openai/whisper's ``ApplyTimestampRules``, as CTranslate2 has them too.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from whisper_api.tokens import WhisperTokenizer

MAX_INITIAL_TIMESTAMP = 50  # 1.0 s, as OpenAI's and every other Whisper decoder
_NEVER = np.float32(-np.inf)
Values = NDArray[np.float32]


class Rules:
    """Masks over the vocabulary of one model."""

    def __init__(
        self,
        tokenizer: WhisperTokenizer,
        suppressed: Iterable[int],
        suppressed_first: Iterable[int],
        size: int,
    ) -> None:
        """``size`` is that of the output layer; the suppressed ids are the checkpoint's own."""
        self.begin = tokenizer.timestamp_begin
        self.eot = tokenizer.eot
        never = {*suppressed, *tokenizer.suppressed, tokenizer.no_timestamps}
        self._bias = np.zeros(size, np.float32)
        self._bias[[token for token in never if 0 <= token < size]] = _NEVER
        self._bias[self.begin + 1501 :] = _NEVER  # rows that only pad the matrix
        self._first = self._bias.copy()
        self._first[[token for token in suppressed_first if 0 <= token < size]] = _NEVER
        self._first[: self.begin] = _NEVER
        self._first[self.begin + MAX_INITIAL_TIMESTAMP + 1 :] = _NEVER

    def first(self, logits: Values) -> Values:
        """Float32 ``[rows, vocabulary]`` for the first token, a timestamp up to 1 s; in place."""
        logits += self._first
        return logits

    def apply(self, logits: Values, written: Iterable[list[int]]) -> Values:
        """``logits`` (changed in place) with what may not come after each row's tokens at minus
        infinity."""
        logits += self._bias
        for row, tokens in zip(logits, written, strict=True):
            self._apply(row, tokens)
        return logits

    def _apply(self, row: Values, tokens: list[int]) -> None:
        text, times = row[: self.begin], row[self.begin :]
        ended = tokens[-1] >= self.begin
        if (ended and tokens[-2:-1] and tokens[-2] >= self.begin) or (len(tokens) == 1 and ended):
            times[:] = _NEVER
            return
        latest = next((token for token in reversed(tokens) if token >= self.begin), None)
        if latest is not None:
            # A piece is longer than nothing; the next one may begin where it ended.
            times[: latest - self.begin + (0 if ended else 1)] = _NEVER
        if ended:
            text[: self.eot] = _NEVER
        # More probable together than any text: then it is a timestamp.
        if log_total(times) > text.max():
            text[:] = _NEVER


def log_total(row: Values) -> float:
    """The logarithm of the sum of exponentials of one row."""
    top = row.max()
    return float(top + np.log(np.exp(row - top).sum())) if np.isfinite(top) else float("-inf")


def softmax(row: Values) -> Values:
    """Probabilities of one row."""
    powers = np.exp(row - row.max())
    return np.asarray(powers / powers.sum())
