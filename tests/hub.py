"""A small stand-in for the model hub: the few requests that huggingface_hub makes."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories by name, each a folder; counts what is asked for."""

    repositories: dict[str, Path] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, COMMIT: COMMIT})
    sent: dict[str, int] = field(default_factory=dict)  #: bytes of each file's body
    asked: list[str] = field(default_factory=list)
    cut_after: dict[str, int] = field(default_factory=dict)
    """Name of a file -> bytes after which the connection breaks, once."""
    hold_after: dict[str, int] = field(default_factory=dict)
    """Name of a file -> bytes after which nothing more comes, once; until ``released`` is set."""
    wrong_digest: set[str] = field(default_factory=set)
    """Files whose digest is told wrongly."""
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub on a free port of this machine."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = urlsplit(self.path).path
        self.state.asked.append(f"{self.command} {path}")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self._info(*match.groups())
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[2], match[3], body=body)
        else:
            self._error(404, "EntryNotFound")

    def _folder(self, repository: str, revision: str) -> Path | None:
        if repository not in self.state.repositories:
            self._error(404, "RepoNotFound")
        elif revision not in self.state.revisions:
            self._error(404, "RevisionNotFound")
        else:
            return self.state.repositories[repository]
        return None

    def _info(self, repository: str, revision: str) -> None:
        if folder := self._folder(repository, revision):
            siblings = [self._sibling(path) for path in sorted(folder.iterdir())]
            sha = self.state.revisions[revision]
            self._json({"id": repository, "sha": sha, "siblings": siblings})

    def _sibling(self, path: Path) -> dict[str, Any]:
        size = path.stat().st_size
        row: dict[str, Any] = {"rfilename": path.name, "size": size}
        if path.name.startswith("model"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if path.name in self.state.wrong_digest:
                digest = digest[::-1]
            row["lfs"] = {"sha256": digest, "size": size, "pointerSize": 134}
        return row

    def _file(self, repository: str, revision: str, name: str, body: bool) -> None:
        folder = self._folder(repository, revision)
        if folder is None:
            return
        data = (folder / name).read_bytes()
        first = 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            first = int(match.group(1))
        part = data[first:]
        self.send_response(206 if first else 200)
        self.send_header("ETag", f'"{_etag(folder / name)}"')
        self.send_header("X-Repo-Commit", self.state.revisions[revision])
        self.send_header("Accept-Ranges", "bytes")
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if body:
            self._send(name, part)

    def _send(self, name: str, data: bytes) -> None:
        cut = self.state.cut_after.pop(name, None)
        hold = self.state.hold_after.pop(name, None)
        limit = cut if cut is not None else hold
        part = data if limit is None else data[:limit]
        self.wfile.write(part)
        self.state.sent[name] = self.state.sent.get(name, 0) + len(part)
        if limit is not None:
            self.wfile.flush()
            if hold is not None:
                self.state.released.wait(60)
            self.close_connection = True
            self.connection.close()

    def _json(self, values: object) -> None:
        data = json.dumps(values).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:40]
