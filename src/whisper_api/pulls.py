"""Downloads of models that people start over HTTP: in the background, with progress."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from whisper_api.errors import Conflict, NotFound, ServerError, ShuttingDown, WhisperApiError
from whisper_api.model_names import check_name
from whisper_api.models import ModelStore

log = logging.getLogger(__name__)

Status = Literal["pending", "running", "completed", "failed", "cancelled"]
REMEMBERED = 50
"""Pulls that are still told of after their end."""


@dataclass(eq=False, slots=True)
class Pull:
    """One download."""

    model: str
    revision: str | None
    id: str = field(default_factory=lambda: f"pull_{secrets.token_hex(8)}")
    created_at: float = field(default_factory=time.time)
    status: Status = "pending"
    done: int = 0  #: bytes
    total: int = 0  #: bytes; 0 as long as it is not known
    error: WhisperApiError | None = None
    stopped: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in {"completed", "failed", "cancelled"}


class Pulls:
    """The downloads of one process, one at a time."""

    def __init__(self, store: ModelStore) -> None:
        """``store`` receives the models."""
        self._store = store
        self._pulls: dict[str, Pull] = {}
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, model: str, revision: str | None = None) -> Pull:
        """Begin a download; one of the same model that runs already is answered instead.

        Raises:
            ModelNotFound: the name is not allowed.
        """
        check_name(model)
        for pull in self._pulls.values():
            if not pull.ended and not pull.stopped and pull.model == model:
                return pull
        pull = Pull(model, revision)
        self._pulls[pull.id] = pull
        for old in [key for key, item in self._pulls.items() if item.ended][:-REMEMBERED]:
            del self._pulls[old]
        task = asyncio.create_task(self._run(pull))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return pull

    def all(self) -> list[Pull]:
        """Every download that is known, the latest first."""
        return list(reversed(self._pulls.values()))

    def get(self, ident: str) -> Pull:
        """One download.

        Raises:
            NotFound: there is none of that id.
        """
        try:
            return self._pulls[ident]
        except KeyError:
            raise NotFound(f"There is no pull {ident[:60]!r}.") from None

    def cancel(self, ident: str) -> Pull:
        """Stop a download; what arrived is kept for the next attempt.

        Raises:
            NotFound: there is none of that id.
            Conflict: it has ended.
        """
        pull = self.get(ident)
        if pull.ended:
            raise Conflict(f"The pull {ident!r} has ended: {pull.status}.")
        pull.stopped = True
        return pull

    async def close(self) -> None:
        """Stop everything."""
        for pull in self._pulls.values():
            pull.stopped = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, pull: Pull) -> None:
        def progress(done: int, total: int) -> None:
            if pull.stopped:
                raise ShuttingDown
            pull.done, pull.total = done, total

        try:
            async with self._turn:
                if pull.stopped:
                    raise ShuttingDown
                pull.status = "running"
                await _in_thread(lambda: self._store.pull(pull.model, progress, pull.revision))
            pull.status = "completed"
        except (ShuttingDown, asyncio.CancelledError):
            pull.status = "cancelled"
        except WhisperApiError as error:
            pull.error, pull.status = error, "failed"
        except Exception:
            log.exception("a model could not be pulled")
            pull.error, pull.status = ServerError("The model could not be pulled."), "failed"


async def _in_thread(work: Callable[[], object]) -> None:
    """Run ``work`` in a thread that the process's end does not wait for: the hub may hang."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def tell(error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: Exception | None = None
        try:
            work()
        except Exception as caught:
            error = caught
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=run, name="pull", daemon=True).start()
    await done
