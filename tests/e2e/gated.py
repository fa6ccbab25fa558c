"""The fake engine with gates: windows with markers from 100 on wait until a test opens them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisper_api.engines.base import WindowItem
from whisper_api.engines.fake import FakeEngine, find_markers

OPEN_BELOW = 100


class GatedEngine(FakeEngine):
    """A window with marker 123 waits for a file ``123`` in the folder ``TEST_GATES``."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._gates = Path(os.environ["TEST_GATES"])
        self.on_decode = self._wait

    def _wait(self, items: Sequence[WindowItem]) -> None:
        for item in items:
            for _, number in find_markers(item.audio):
                while number >= OPEN_BELOW and not (self._gates / str(number)).exists():
                    time.sleep(0.01)
