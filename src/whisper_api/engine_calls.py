"""One batch of windows through an engine, in a worker thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from whisper_api.engines.base import Decoded, DecodeParams, Engine, WindowItem
from whisper_api.engines.steps import between_steps
from whisper_api.errors import EngineError, EngineOutOfMemory
from whisper_api.passing import Abandoned
from whisper_api.types import Audio

log = logging.getLogger(__name__)

R = TypeVar("R")
Languages = dict[str, float]
Outcome = Decoded | Languages | Exception


@dataclass(eq=False, slots=True)
class Job(Generic[R]):
    """One window to detect or decode; ``params`` is None for detection."""

    key: str
    load: Callable[[], Audio]
    seconds: float
    params: DecodeParams | None
    done: asyncio.Future[R]
    order: int = 0  #: index of the window in its request
    queued_at: float = 0.0  #: on the runner's clock
    trace: Any = None  #: of its request, see ``tracing``

    @property
    def batch_key(self) -> Hashable:
        """Equal for jobs that one engine call may hold."""
        return None if self.params is None else self.params.batch_key


def compute(
    engine: Engine, batch: Sequence[Job[Any]], at_steps: Callable[[], None] | None
) -> list[Outcome]:
    """Load the audio of a batch and run the engine on it; between its steps come ``at_steps``.

    A window whose audio cannot be read fails alone. The log tells of an engine that failed.

    Raises:
        EngineError: the batch failed.
    """
    outcomes: list[Outcome] = [EngineError()] * len(batch)
    loaded: list[tuple[int, Job[Any], Audio]] = []
    for position, job in enumerate(batch):
        if job.done.done():
            continue
        try:
            loaded.append((position, job, job.load()))
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", "memory is short")
            outcomes[position] = EngineError(f"The audio could not be read: {reason}")
    if not loaded:
        return outcomes
    try:
        with between_steps(at_steps):
            results = _call(engine, loaded)
    except (Abandoned, EngineOutOfMemory):  # not failures
        raise
    except EngineError as error:
        log.error("engine failed on a batch of %d windows: %s", len(loaded), error)
        raise
    except Exception as error:
        log.exception("engine raised an unexpected error")
        raise EngineError("The recognition engine failed unexpectedly.") from error
    for (position, _, _), result in zip(loaded, results, strict=True):
        outcomes[position] = result
    return outcomes


def _call(
    engine: Engine, loaded: Sequence[tuple[int, Job[Any], Audio]]
) -> Sequence[Decoded | Languages]:
    if loaded[0][1].params is None:
        return engine.detect([(job.key, audio) for _, job, audio in loaded])
    items = [
        WindowItem(job.key, audio, job.params) for _, job, audio in loaded if job.params is not None
    ]
    return engine.decode(items)
