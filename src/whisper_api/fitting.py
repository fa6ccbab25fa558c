"""How many windows an engine's memory takes at once, learnt from batches that did not fit.

After one that did not, batches have half its size. Memory that others had taken may be free again
later, so larger ones are tried now and then: halfway to the smallest size that is known to fail,
in the end that size itself. Each try that fails makes the next one wait twice as long.
Pure data: no clock, no engine.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_PATIENCE = 32
"""Full batches after which a larger one is tried."""
MOST_PATIENCE = 8192
"""The same at most: a batch that does not fit is then so rare that it costs nothing."""


@dataclass(slots=True)
class Fitting:
    """The largest batch of one engine, as far as its memory is known."""

    largest: int  #: windows that nobody would go beyond
    patience: int = FIRST_PATIENCE
    most_patience: int = MOST_PATIENCE
    most: int = 0  #: windows of the next batch at most
    good: int = 0  #: windows that are believed to fit
    failing: int | None = None  #: the smallest number that did not; None: nothing has failed
    _full: int = 0  #: full batches since the last change

    def __post_init__(self) -> None:
        """Nothing has failed yet."""
        self.most = self.good = self.largest

    def failed(self, windows: int) -> None:
        """A batch of so many did not fit."""
        if windows > self.most:
            return  # it was begun before that was known
        if self.failing is not None:
            self.patience = min(2 * self.patience, self.most_patience)
        if windows <= self.good:
            self.good = max(1, windows // 2)
        self.failing, self.most, self._full = windows, self.good, 0

    def held(self, windows: int) -> None:
        """A batch of so many was done."""
        if self.failing is None or windows < self.most:
            return
        self._full += 1
        self.good = max(self.good, windows)
        if self.good >= self.largest:
            self.failing = None
        elif self.good >= self.failing:
            self.failing = 2 * self.good
        if self.failing is not None and self._full >= self.patience:
            self._full = 0
            halfway = (self.good + self.failing) // 2
            self.most = min(self.largest, halfway if halfway > self.good else self.failing)
