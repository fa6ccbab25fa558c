"""The span of each request."""

from __future__ import annotations

from collections.abc import Container

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whisper_api.logs import request_id_var
from whisper_api.tracing import Tracing


class Trace:
    """Opens a span for each request, in the trace of who sent it."""

    def __init__(self, app: ASGIApp, tracing: Tracing, quiet: Container[str]) -> None:
        """Paths in ``quiet`` have no span."""
        self.app = app
        self._tracing = tracing
        self._quiet = quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in self._quiet:
            await self.app(scope, receive, send)
            return
        status: int | None = None

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = scope["method"]
        values = {"http.request.method": method, "whisper.request_id": request_id_var.get()}
        with self._tracing.server(method, Headers(scope=scope), values) as span:
            try:
                await self.app(scope, receive, note)
            finally:
                route = scope["app"].state.route_name(scope)
                found: dict[str, str | int | bool] = {"http.route": route}
                if status is None:
                    found["whisper.client_left"] = True
                else:
                    found["http.response.status_code"] = status
                span.end(f"{method} {route}", found, failed=(status or 0) >= 500)
