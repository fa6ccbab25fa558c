"""The durable sequence of steps: plan, batches of windows, merge. Needs DBOS; imported late.

DBOS records what each step returns. A process that takes a task up again gets those answers
back and goes on with the first step that has none. So answers are small numbers; what was
decoded lies in the task's own tables. ``durable.STEPS_VERSION`` names this very sequence:
change it only together with the sequence. A process takes up runs of its own version only; what
a version leaves that no process has any more begins a new run, which keeps the work done.
"""

from __future__ import annotations

from typing import Protocol

from dbos import DBOS

ENDED = -1
"""A step's answer when there is nothing left to do: failed, cancelled, or taken over."""


class Steps(Protocol):
    """What the steps do; blocking calls, made from DBOS's threads."""

    def begin(self, ident: str, run: int) -> bool:
        """Count an attempt; False where there is nothing to do any more."""

    def plan(self, ident: str) -> int:
        """The number of windows, or ``ENDED``."""

    def batch(self, ident: str, first: int) -> int:
        """Decode and save windows from ``first`` on; the index of the next one, or ``ENDED``."""

    def merge(self, ident: str) -> int:
        """Write the transcript; 0, or ``ENDED``."""

    def part(self, ident: str, run: int, first: int) -> None:
        """Decode and save the part of a task that begins with window ``first``."""

    def end(self, ident: str) -> None:
        """Let go of everything that the attempt held."""


class _Current:
    steps: Steps


def use(steps: Steps) -> None:
    """Have ``steps`` do the work of every task of this process."""
    _Current.steps = steps


@DBOS.step(name="plan")
def plan(ident: str) -> int:
    """Decode the file and find its windows and its language."""
    return _Current.steps.plan(ident)


@DBOS.step(name="batch")
def batch(ident: str, first: int) -> int:
    """The windows from ``first`` on, up to the next checkpoint."""
    return _Current.steps.batch(ident, first)


@DBOS.step(name="merge")
def merge(ident: str) -> int:
    """Batches to transcript, and the transcript into the history."""
    return _Current.steps.merge(ident)


@DBOS.workflow(name="transcribe", max_recovery_attempts=None)
def transcribe(ident: str, run: int) -> None:
    """One run of a task."""
    steps = _Current.steps
    if not steps.begin(ident, run):
        return
    try:
        windows = plan(ident)
        at = 0
        while ENDED < at < windows:
            at = batch(ident, at)
        if at >= windows >= 0:
            merge(ident)
    finally:
        steps.end(ident)


@DBOS.workflow(name="part", max_recovery_attempts=None)
def part(ident: str, run: int, first: int) -> None:
    """A part of a run, in whatever process has room for it."""
    _Current.steps.part(ident, run, first)
