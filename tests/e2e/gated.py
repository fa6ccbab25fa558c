"""The fake engine with a gate: every batch but the first waits until a test lets it through."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisper_api.engines.base import WindowItem
from whisper_api.engines.fake import FakeEngine


class GatedEngine(FakeEngine):
    """Batch number 2 and those after it wait for a file ``2`` and so on in ``TEST_GATES``."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._gates = Path(os.environ["TEST_GATES"])
        self._batches = 0
        self.on_decode = self._wait

    def _wait(self, items: Sequence[WindowItem]) -> None:
        self._batches += 1
        gate = self._gates / str(self._batches)
        while self._batches > 1 and not gate.exists():
            time.sleep(0.01)
