"""A server process whose fake engine notes every window that it decodes, before it does.

``python run_task_server.py '{settings}' LOG [worker]``. A line of the log is a process and a
window's index. A file ``die`` beside the log has each decode call end the process.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.e2e import run_server

from whisper_api.api.app import create_app
from whisper_api.api.worker_app import create_worker_app
from whisper_api.engines.base import Decoded, WindowItem
from whisper_api.engines.fake import FakeEngine


def main() -> None:
    """Serve until told to stop, or killed."""
    log = Path(sys.argv[2])
    plain = FakeEngine.decode

    def decode(self: FakeEngine, items: Sequence[WindowItem]) -> list[Decoded]:
        with log.open("a") as file:
            for item in items:
                file.write(f"{os.getpid()} {item.key.partition(':')[2]}\n")
        if log.with_name("die").exists():
            time.sleep(0.5)  # so that whoever submitted the task hears of it
            os._exit(9)
        return plain(self, items)

    FakeEngine.decode = decode  # type: ignore[method-assign]
    engine_only = sys.argv[3:] == ["worker"]
    run_server.main(create_worker_app if engine_only else create_app)


if __name__ == "__main__":
    main()
