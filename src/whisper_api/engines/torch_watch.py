"""Which windows of a batch are finished, without the host waiting for the device's last step."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch


class Watch:
    """Asks every few steps; an answer is read ``behind`` questions later.

    By then it has long been copied, so that the device never runs out of work meanwhile.
    """

    def __init__(self, device: Any, every: int | None = None, behind: int | None = None) -> None:
        """Without numbers as the device has it best: a processor answers at once."""
        self._on_card = device.type == "cuda"
        self._every = every or (1 if device.type == "cpu" else 8)
        self._behind = behind if behind is not None else int(self._on_card)
        self._asked: deque[tuple[Any, Any]] = deque()

    def ask(self, step: int, finished: Any) -> list[bool] | None:
        """What is known after ``step`` of the flags ``finished``; None: nothing new."""
        if step % self._every:
            return None
        self._asked.append(self._copy(finished))
        if len(self._asked) <= self._behind:
            return None
        flags, copied = self._asked.popleft()
        if copied is not None:
            copied.synchronize()
        return list(flags.tolist())

    def forget(self) -> None:
        """Drop what was asked of another batch."""
        self._asked.clear()

    def _copy(self, finished: Any) -> tuple[Any, Any]:
        if not self._on_card:
            return finished.clone(), None
        # Pinned memory comes from torch's own cache, which waits for copies still under way.
        flags = torch.empty(finished.shape, dtype=torch.bool, pin_memory=True)
        flags.copy_(finished, non_blocking=True)
        copied = torch.cuda.Event(blocking=True)
        copied.record()
        return flags, copied
