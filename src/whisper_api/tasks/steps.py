"""DBOS's threads on one side, the event loop on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from whisper_api.tasks.runner import ENDED, LEFT, Runner


class Leave(BaseException):
    """Ends a workflow's thread without an outcome, so that its run goes on elsewhere or later.

    No ``Exception``: DBOS would record one as the run's end.
    """


class LoopSteps:
    """The runner's steps as blocking calls."""

    def __init__(self, runner: Runner, loop: asyncio.AbstractEventLoop) -> None:
        """``loop`` is the one that the runner lives on."""
        self._runner = runner
        self._loop = loop

    def begin(self, ident: str, run: int) -> bool:
        """As ``workflow.Steps.begin``."""
        return self._call(self._runner.begin(ident, run)) != ENDED

    def plan(self, ident: str) -> int:
        """As ``workflow.Steps.plan``."""
        return self._call(self._runner.plan(ident))

    def batch(self, ident: str, first: int) -> int:
        """As ``workflow.Steps.batch``."""
        return self._call(self._runner.batch(ident, first))

    def merge(self, ident: str) -> int:
        """As ``workflow.Steps.merge``."""
        return self._call(self._runner.merge(ident))

    def part(self, ident: str, run: int, first: int) -> None:
        """As ``workflow.Steps.part``."""
        self._call(self._runner.part(ident, run, first))

    def end(self, ident: str) -> None:
        """As ``workflow.Steps.end``."""
        if not self._loop.is_closed():
            self._call(self._runner.end(ident))

    def _call(self, work: Coroutine[Any, Any, int]) -> int:
        try:
            answer = asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except (asyncio.CancelledError, RuntimeError) as error:
            work.close()
            raise Leave from error
        if answer == LEFT:
            raise Leave
        return answer
