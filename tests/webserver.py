"""A web server of a few lines, for what the server fetches."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Site:
    """Serves ``pages`` (path -> body, or a whole answer that starts with ``HTTP/``)."""

    def __init__(self, pages: dict[str, bytes], *, pause: float = 0.0) -> None:
        """``pause``: seconds between pieces of 64 kB of a body."""
        self.pages = pages
        self.pause = pause
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.bodies: list[bytes] = []  #: of requests that have one
        self.sent = 0
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The TCP port, once it runs."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Its root, without the last slash."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Site:
        """Listen on a free port of the loopback."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening."""
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            path = head[0].split(" ")[1]
            fields = (line.partition(": ") for line in head[1:] if line)
            headers = {name.lower(): value for name, _, value in fields}
            if length := int(headers.get("content-length", "0")):
                self.bodies.append(await reader.readexactly(length))
            self.seen.append((path, headers))
            body = self.pages.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            if not body.startswith(b"HTTP/"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            for at in range(0, len(body), 1 << 16):
                writer.write(body[at : at + (1 << 16)])
                await writer.drain()
                self.sent += min(1 << 16, len(body) - at)
                await asyncio.sleep(self.pause)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def redirect(target: str, status: int = 302) -> bytes:
    """An answer that sends the caller elsewhere."""
    head = f"HTTP/1.1 {status} Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
    return head.encode()
