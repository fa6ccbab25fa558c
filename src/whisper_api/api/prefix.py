"""A server below a path of a proxy's: the guard that takes the prefix off and puts it on again."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Prefix:
    """Everything inside sees paths without the prefix, everybody outside sees them with it.

    Requests may come with the prefix or without: some proxies take it off, others do not, and
    probes come past the proxy.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        """``root_path`` starts with a slash and does not end with one."""
        self.app = app
        self._root = root_path
        self._raw = root_path.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        if scope["path"] == self._root and scope.get("method") in {"GET", "HEAD"}:
            # The page's links are relative, so its address must end with a slash.
            await RedirectResponse(f"{self._root}/", 308)(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "")

        async def outward(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if place := headers.get("location"):
                    headers["location"] = self._outside(place, host)
            await send(message)

        await self.app(self._inside(scope), receive, outward)

    def _inside(self, scope: Scope) -> Scope:
        path: str = scope["path"]
        if not path.startswith(f"{self._root}/"):
            return scope
        raw: bytes | None = scope.get("raw_path")
        if raw is not None:
            raw = raw.removeprefix(self._raw)
        return {**scope, "path": path.removeprefix(self._root), "raw_path": raw}

    def _outside(self, place: str, host: str) -> str:
        parts = urlsplit(place)
        ours = parts.netloc in ("", host) and parts.path.startswith("/")
        return urlunsplit(parts._replace(path=self._root + parts.path)) if ours else place
