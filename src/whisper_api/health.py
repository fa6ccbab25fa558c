"""``whisper-api-health``: asks the server of this machine how it is, for container engines.

It runs every few seconds beside the server, so it imports nothing but small parts of the standard
library. Where the server listens it takes from the same variables and file as the server.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
from typing import Any

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def main() -> None:
    """Exit 0 where ``/health`` (or the path that is the one argument) answers 200, else 1."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/health"
    try:
        status = ask(path, timeout=4)
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.exit(f"unhealthy: {error or type(error).__name__}")
    if status != 200:
        sys.exit(f"unhealthy: {path} answers {status}")


def ask(path: str, timeout: float) -> int:
    """The status of the answer to a GET.

    Raises:
        OSError, HTTPException: nobody answers.
        ValueError: the settings file or the port makes no sense.
    """
    file = _file()
    host = str(_setting(file, "host", "127.0.0.1"))
    place = ANYWHERE.get(host, host)
    # A worker names the port that it tells its health on; other roles have no such setting.
    port = int(_setting(file, "worker_port", 0) or _setting(file, "service_port", 5042))
    connection: http.client.HTTPConnection
    if _setting(file, "ssl_certfile", None):
        # The certificate is for the public name; this connection does not leave the machine.
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(place, port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(place, port, timeout=timeout)
    try:
        connection.request("GET", path, headers=_host(_setting(file, "allowed_hosts", "")))
        return connection.getresponse().status
    finally:
        connection.close()


def _host(allowed: Any) -> dict[str, str]:
    """A Host header that the server answers."""
    names = allowed.strip("[]").split(",") if isinstance(allowed, str) else list(allowed)
    name = str(names[0]).strip(' "') if names else ""
    return {"Host": name.replace("*", "health")} if name and name != "*" else {}


def _file() -> dict[str, Any]:
    path = os.environ.get("WHISPER_API_CONFIG") or "config.json"
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8-sig") as file:
        content = json.load(file)
    return content if isinstance(content, dict) else {}


def _setting(file: dict[str, Any], name: str, default: Any) -> Any:
    return os.environ.get(f"WHISPER_API_{name.upper()}") or file.get(name) or default


if __name__ == "__main__":
    main()
