"""A real server process for tests: ``python run_server.py '{"engine": "fake", ...}'``.

Prints its port when it listens; ends on SIGTERM. Port 0 takes a free one.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from whisper_api.api.app import create_app
from whisper_api.config import Settings
from whisper_api.engines import ENGINES


def main(make: Callable[[Settings], FastAPI] = create_app) -> None:
    """Serve what ``make`` makes until told to stop."""
    if os.environ.get("TEST_GATES"):
        ENGINES["fake"] = "gated:GatedEngine"
    # asyncio turns Nagle's delay off only for sockets that name their protocol.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    app = make(Settings(**json.loads(sys.argv[1])))
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
