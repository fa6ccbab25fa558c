"""Searches over tokens on the processor: greedy, sampling, beam.

A search is given the logits of all rows of the windows that are not finished, and says what the
decoder reads next. Rows of one window stand together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from whisper_api.engines.search_rules import Rules, Values, log_total
from whisper_api.engines.steps import step

BEST_OF = 5
"""Samples drawn at temperatures above 0; the likeliest is kept."""
_BLOCK = 64
"""The largest of so many neighbouring logits stands for them when candidates are looked for."""


@dataclass(frozen=True, slots=True)
class Found:
    """The best sequence of one window; the end token is not in it, its score is in ``score``."""

    tokens: list[int]
    score: float  #: sum of log-probabilities
    logprobs: list[float] | None = None  #: of each token of text, where they are kept

    @property
    def normalised(self) -> float:
        """What sequences of different lengths are compared by."""
        return self.score / max(1, len(self.tokens))


@dataclass(slots=True)
class Row:
    """One sequence that grows."""

    tokens: list[int] = field(default_factory=list)
    score: float = 0.0
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False


class Search(ABC):
    """The sequences of a batch, ``width`` for each window."""

    def __init__(self, windows: int, width: int, rules: Rules) -> None:
        self.width = width
        self.rules = rules
        self.windows = [[Row() for _ in range(width)] for _ in range(windows)]

    @property
    @abstractmethod
    def finished(self) -> list[bool]:
        """Whether each window needs no more tokens."""

    def begin(self, logits: Values) -> None:
        """Take the first tokens; float32 ``[windows, vocabulary]``, changed in place."""
        first = self.rules.first(logits)
        for window in range(len(self.windows)):
            self._take(window, np.repeat(first[window][None], self.width, axis=0))

    def take(self, logits: Values, windows: Sequence[int]) -> list[int]:
        """Take the next tokens of ``windows``; float32 ``[rows of them, vocabulary]``, in place.

        Returns whose keys and values each of these rows goes on from, as places among them.
        """
        parents: list[int] = []
        for place, window in enumerate(windows):
            step()
            first = place * self.width
            rows = logits[first : first + self.width]
            if not self.finished[window]:
                written = [row.tokens for row in self.windows[window]]
                chosen = self._take(window, self.rules.apply(rows, written))
                parents += [first + parent for parent in chosen]
            else:
                parents += range(first, first + self.width)
        return parents

    def last(self, windows: Sequence[int]) -> list[int]:
        """What the decoder reads next."""
        return [row.tokens[-1] for window in windows for row in self.windows[window]]

    @abstractmethod
    def results(self, cut: bool) -> list[Found]:
        """The best of each window; ``cut``: no more tokens were allowed."""

    @abstractmethod
    def _take(self, window: int, allowed: Values) -> Sequence[int]:
        """Let the rows of a window grow; whose keys and values each goes on from."""


class Rowwise(Search):
    """Greedy search, or sampling with several samples for each window.

    Samples are drawn by the Gumbel trick. All windows of a batch see the same random numbers, so
    that neighbours do not change a text.
    """

    def __init__(
        self, windows: int, width: int, rules: Rules, temperature: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(windows, width, rules)
        self._temperature = temperature
        self._random = np.random.default_rng(seed % 2**63)
        self._noise: Values | None = None

    @property
    def finished(self) -> list[bool]:
        """See ``Search``."""
        return [all(row.ended for row in rows) for rows in self.windows]

    def begin(self, logits: Values) -> None:
        """See ``Search``."""
        self._draw(logits.shape[1])
        super().begin(logits)

    def take(self, logits: Values, windows: Sequence[int]) -> list[int]:
        """See ``Search``."""
        self._draw(logits.shape[1])
        return super().take(logits, windows)

    def _draw(self, size: int) -> None:
        if self._temperature > 0:
            drawn = self._random.standard_exponential((self.width, size), np.float32)
            self._noise = -np.log(np.maximum(drawn, np.finfo(np.float32).tiny))

    def _take(self, window: int, allowed: Values) -> Sequence[int]:
        for place, (row, logits) in enumerate(zip(self.windows[window], allowed, strict=True)):
            if row.ended:
                continue
            if self._noise is None:
                token = int(logits.argmax())
            else:
                token = int((logits / self._temperature + self._noise[place]).argmax())
            logprob = float(logits[token]) - log_total(logits)
            row.score += logprob
            row.ended = token == self.rules.eot
            if token < self.rules.eot:
                row.logprobs.append(logprob)
            row.tokens.append(token)
        return range(self.width)

    def results(self, cut: bool) -> list[Found]:
        """See ``Search``."""
        return [
            max((self._found(row) for row in rows), key=lambda one: one.normalised)
            for rows in self.windows
        ]

    def _found(self, row: Row) -> Found:
        tokens = row.tokens[:-1] if row.ended else row.tokens
        return Found(tokens, row.score, row.logprobs)


@dataclass(slots=True)
class _Beams:
    """What a beam search knows of one window beside its rows."""

    ended: list[Found] = field(default_factory=list)
    spare: list[bool] = field(default_factory=list)  #: rows that took an ended one's place
    done: bool = False
    was_done: bool = False  #: before the last step


class Beam(Search):
    """Beam search as CTranslate2 does it.

    Of twice as many candidates as beams, those among the first that end are put aside, and the
    best others take their places; a window is finished when ``width`` are put aside. Sequences
    compare by their sum of log-probabilities over their length.
    """

    def __init__(self, windows: int, width: int, rules: Rules) -> None:
        super().__init__(windows, width, rules)
        self._beams = [_Beams() for _ in range(windows)]
        for rows in self.windows:
            for row in rows[1:]:
                row.score = -np.inf  # all beams begin as one

    @property
    def finished(self) -> list[bool]:
        """See ``Search``."""
        return [beams.done for beams in self._beams]

    def _take(self, window: int, allowed: Values) -> Sequence[int]:
        rows, beams, width = self.windows[window], self._beams[window], self.width
        beams.was_done = beams.done
        tokens, logprobs = best_of(allowed, 2 * width)
        totals = logprobs + np.array([[row.score] for row in rows])
        order = np.argsort(-totals, axis=None, kind="stable")[: 2 * width]
        ranked = [(divmod(int(place), 2 * width), float(totals.flat[place])) for place in order]
        candidates = [(beam, int(tokens[beam, k]), score) for (beam, k), score in ranked]
        others = [one for one in candidates[width:] if one[1] != self.rules.eot]
        chosen, beams.spare = [], []
        for beam, token, score in candidates[:width]:
            ends = token == self.rules.eot
            beams.spare.append(ends)
            if ends:
                beams.ended.append(Found(list(rows[beam].tokens), score))
            chosen.append(others.pop(0) if ends else (beam, token, score))
        beams.done = len(beams.ended) >= width
        self.windows[window] = [
            Row([*rows[beam].tokens, token], score) for beam, token, score in chosen
        ]
        return [beam for beam, _, _ in chosen]

    def results(self, cut: bool) -> list[Found]:
        """See ``Search``; where the text was cut off, unfinished sequences count as well."""
        return [self._best(window, cut) for window in range(len(self.windows))]

    def _best(self, window: int, cut: bool) -> Found:
        beams = self._beams[window]
        found = list(beams.ended)
        if cut and not beams.was_done:
            alive = zip(self.windows[window], beams.spare, strict=True)
            found += [Found(row.tokens, row.score) for row, spare in alive if not spare]
        return max(found, key=lambda one: one.normalised)


def best_of(logits: Values, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids and log-probabilities of the ``count`` likeliest tokens of each row, best first."""
    rows, size = logits.shape
    whole = size // _BLOCK * _BLOCK
    tops = logits[:, :whole].reshape(rows, -1, _BLOCK).max(axis=2)
    kept = min(count, tops.shape[1])
    blocks = np.argpartition(-tops, kept - 1, axis=1)[:, :kept]
    ids = (blocks[:, :, None] * _BLOCK + np.arange(_BLOCK)).reshape(rows, -1)
    rest = np.broadcast_to(np.arange(whole, size), (rows, size - whole))
    ids = np.sort(np.concatenate([ids, rest], axis=1), axis=1)
    values = np.take_along_axis(logits, ids, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    total = np.array([[log_total(row)] for row in logits])
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1) - total
