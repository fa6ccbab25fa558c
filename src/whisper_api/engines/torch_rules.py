"""Which tokens may come next: suppressed ones, and Whisper's rules of timestamps.

The rules are openai/whisper's ``ApplyTimestampRules``, as CTranslate2 has them too, on whole
batches and without a look at any value from the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from whisper_api.tokens import WhisperTokenizer

MAX_INITIAL_TIMESTAMP = 50  # 1.0 s, as OpenAI's and every other Whisper decoder
_NEVER = float("-inf")


class Rules:
    """Masks over the vocabulary of one model, on its device."""

    def __init__(
        self,
        tokenizer: WhisperTokenizer,
        suppressed: Sequence[int],
        suppressed_first: Sequence[int],
        size: int,
        device: Any,
    ) -> None:
        """``size`` is that of the output layer; the suppressed ids are the checkpoint's own."""
        self.begin = tokenizer.timestamp_begin
        self.eot = tokenizer.eot
        never = {*suppressed, *tokenizer.suppressed, tokenizer.no_timestamps}
        bias = torch.zeros(size)
        bias[[token for token in never if 0 <= token < size]] = _NEVER
        bias[tokenizer.timestamp_begin + 1501 :] = _NEVER  # rows that only pad the matrix
        first = bias.clone()
        first[[token for token in suppressed_first if 0 <= token < size]] = _NEVER
        first[: self.begin] = _NEVER
        first[self.begin + MAX_INITIAL_TIMESTAMP + 1 :] = _NEVER
        self._bias, self._first = bias.to(device), first.to(device)
        self._times = torch.arange(self.begin, size, device=device)

    def first(self, logits: Any) -> Any:
        """Float32 ``[rows, vocabulary]`` for the first token: a timestamp up to 1 s."""
        return logits + self._first

    def apply(self, logits: Any, last: Any, before: Any, latest: Any) -> Any:
        """``logits`` (float32, changed in place) with what may not come at minus infinity.

        ``last`` and ``before`` are the last two tokens of each row, ``latest`` its last timestamp.
        """
        logits += self._bias
        text, times = logits[:, : self.begin], logits[:, self.begin :]
        ended, paired = last >= self.begin, (last >= self.begin) & (before >= self.begin)
        lone = ended & ~paired
        # A piece is longer than nothing; the next one may begin where it ended.
        earliest = torch.where(lone, latest, latest + 1)
        times.masked_fill_(paired[:, None] | (self._times < earliest[:, None]), _NEVER)
        logits[:, : self.eot].masked_fill_(lone[:, None], _NEVER)
        # More probable together than any text: then it is a timestamp.
        due = (times.logsumexp(dim=1) > text.amax(dim=1)) & ~paired
        text.masked_fill_(due[:, None], _NEVER)
        return logits
