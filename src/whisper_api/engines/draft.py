"""A decoded window on its way from tokens to ``Decoded``: pieces, words, log-probabilities."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from whisper_api import features
from whisper_api.alignment import AlignedWord, place_words, split_words, spread_words, time_words
from whisper_api.engines.base import Decoded, DecodeParams, Piece, TimedWord, WindowItem
from whisper_api.tokens import TokenSpan, WhisperTokenizer
from whisper_api.types import TokenLogprob


class Draft:
    """The tokens of one window, to be completed by an alignment where the caller wants words."""

    def __init__(
        self,
        item: WindowItem,
        tokenizer: WhisperTokenizer,
        spans: list[TokenSpan],
        avg_logprob: float,
        no_speech_prob: float,
        logprobs: list[float] | None,
    ) -> None:
        """``logprobs`` are those of the text tokens, None where decoding kept none."""
        self.item = item
        self._tokenizer = tokenizer
        self._spans = spans
        self._texts = [tokenizer.text_tokens(span.tokens) for span in spans]
        self._avg_logprob = avg_logprob
        self._no_speech_prob = no_speech_prob
        self._logprobs = logprobs
        self._words: list[list[AlignedWord]] = [[] for _ in spans]

    @property
    def text_tokens(self) -> list[int]:
        """All text tokens, in order."""
        return [token for tokens in self._texts for token in tokens]

    @property
    def frames(self) -> int:
        """Mel frames that hold audio."""
        return max(2, min(features.FRAMES, self.item.audio.size // features.HOP))

    @property
    def needs_alignment(self) -> bool:
        """Whether words or log-probabilities must come from an alignment."""
        params = self.item.params
        missing = params.logprobs and self._logprobs is None
        return bool(self._spans) and (params.words or missing)

    def take_alignment(
        self, path: Sequence[tuple[int, int]], probabilities: Sequence[float]
    ) -> None:
        """Use the (token, frame) path over ``text_tokens`` and their probabilities."""
        params = self.item.params
        if params.logprobs and self._logprobs is None:
            self._logprobs = [float(np.log(max(p, 1e-10))) for p in probabilities]
        if params.words:
            self._words = self._place(path, probabilities)

    def _place(
        self, path: Sequence[tuple[int, int]], probabilities: Sequence[float]
    ) -> list[list[AlignedWord]]:
        def split(tokens: list[int]) -> list[tuple[str, int]]:
            return split_words(tokens, self._tokenizer.token_bytes, self.item.params.language)

        words = [split(tokens) for tokens in self._texts]
        timed = time_words([word for part in words for word in part], path, probabilities)
        if not timed:
            return [
                spread_words(part, span.start, span.end)
                for part, span in zip(words, self._spans, strict=True)
            ]
        pieces = [
            (len(tokens), span.start, span.end)
            for tokens, span in zip(self._texts, self._spans, strict=True)
        ]
        return place_words(timed, pieces)

    def result(self) -> Decoded:
        """The finished window."""
        pieces, first = [], 0
        for span, tokens, words in zip(self._spans, self._texts, self._words, strict=True):
            logprobs = self._token_logprobs(tokens, first)
            first += len(tokens)
            pieces.append(
                Piece(
                    start=span.start,
                    end=span.end,
                    tokens=span.tokens,
                    text=self._tokenizer.decode(tokens),
                    words=tuple(TimedWord(w.text, w.start, w.end, w.probability) for w in words),
                    logprobs=logprobs,
                )
            )
        text = "".join(piece.text for piece in pieces)
        return Decoded(
            pieces=tuple(pieces),
            text=text,
            avg_logprob=self._avg_logprob,
            compression_ratio=_compression_ratio(text),
            no_speech_prob=self._no_speech_prob,
            temperature=self.item.params.temperature,
            language=self.item.params.language,
        )

    def _token_logprobs(self, tokens: list[int], first: int) -> tuple[TokenLogprob, ...]:
        if not self.item.params.logprobs or self._logprobs is None:
            return ()
        found = []
        for place, token in enumerate(tokens, first):
            data = self._tokenizer.token_bytes(token)
            text = data.decode("utf-8", "replace")
            found.append(TokenLogprob(text, self._logprobs[place], tuple(data)))
        return tuple(found)


def wants_logits(params: DecodeParams) -> bool:
    """Whether a decode keeps its logits: only a greedy one can."""
    return params.logprobs and params.beam_size == 1 and params.temperature == 0


def chosen_logprobs(
    tokens: Sequence[int], logits: Sequence[Any], tokenizer: WhisperTokenizer
) -> list[float]:
    """The log-probability of each text token under the logits it was chosen by."""
    found = []
    for token, view in zip(tokens, logits, strict=False):
        if token < tokenizer.eot:
            row = np.asarray(view, np.float32)
            top = float(row.max())
            total = float(np.log(np.exp(row - top, dtype=np.float32).sum(dtype=np.float64)))
            found.append(min(0.0, float(row[token]) - top - total))
    return found


def _compression_ratio(text: str) -> float:
    data = text.strip().encode()
    return len(data) / len(zlib.compress(data))
