"""The decoded audio of parts, in the store, from the plan until each part is done.

Whoever planned a recording has decoded it; the others read the samples of their parts alone.
They find the same samples whatever the file's format and preprocessing were. Where a stretch is
missing (an older version planned, the store was full, a sweep took it) the whole file is read.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from whisper_api.audio.scratch import Scratch
from whisper_api.errors import NotFound
from whisper_api.storage import Store
from whisper_api.tasks.record import Part, Planned, TaskRecord
from whisper_api.types import Waveform

SAMPLE_BYTES = 2


class Stretches:
    """One for each part. No row names them, so what a crash leaves goes with the next sweep."""

    def __init__(self, store: Store) -> None:
        """``store`` is shared by all machines."""
        self._store = store

    async def keep(
        self, record: TaskRecord, planned: Planned, part: Part, waveform: Waveform, scratch: Scratch
    ) -> None:
        """Cut the part's samples out of the whole and store them.

        Raises:
            StorageFull, StorageUnavailable: there is no room, or no store.
            OSError: the waveform is gone.
        """
        key, (start, stop) = _key(record, planned, part), _samples(planned, part)

        def work() -> None:
            target = scratch.unique("stretch", ".s16")
            try:
                _cut(waveform.path, target, start, stop)
                self._store.put(key, target)
            finally:
                target.unlink(missing_ok=True)

        await asyncio.to_thread(work)

    async def read(
        self, record: TaskRecord, planned: Planned, part: Part, scratch: Scratch
    ) -> Waveform | None:
        """The part's samples at their places in the recording; None where they are not stored.

        Raises:
            StorageFull, StorageUnavailable: as ``keep``.
        """
        target = scratch.unique("stretch", ".s16")
        try:
            await asyncio.to_thread(self._store.fetch, _key(record, planned, part), target)
        except NotFound:
            return None
        start, stop = _samples(planned, part)
        if target.stat().st_size != SAMPLE_BYTES * (stop - start):
            return None
        return Waveform(
            path=target,
            samples=planned.samples,
            lead=planned.lead,
            tail=planned.tail,
            damaged=planned.damaged,
            begins=start,
        )

    async def drop(self, record: TaskRecord, planned: Planned, part: Part) -> None:
        """Remove a part's samples; missing ones are fine.

        Raises:
            StorageUnavailable: there is no store.
        """
        await asyncio.to_thread(self._store.remove, _key(record, planned, part))


def _samples(planned: Planned, part: Part) -> tuple[int, int]:
    """First sample of the part's first window, and one past the last of its last."""
    windows = planned.plan.windows
    return windows[part.first].start, min(windows[part.stop - 1].stop, planned.samples)


def _key(record: TaskRecord, planned: Planned, part: Part) -> str:
    start, stop = _samples(planned, part)
    return hashlib.sha256(f"{record.id}:{part.first}:{start}:{stop}".encode()).hexdigest()


def _cut(source: Path, target: Path, start: int, stop: int) -> None:
    with source.open("rb") as whole, target.open("xb") as piece:
        whole.seek(SAMPLE_BYTES * start)
        left = SAMPLE_BYTES * (stop - start)
        while left and (block := whole.read(min(left, 1 << 20))):
            piece.write(block)
            left -= len(block)
