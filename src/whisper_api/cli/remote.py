"""A running server, for commands that work through it; errors are one line."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import httpx
import typer

from whisper_api.errors import RequestError, ServerError

DEFAULT_URL = "http://localhost:5042"
RETRIES = 20
"""How often a server that is full or away is asked again."""
LARGE_BYTES = 16 << 20
"""Files from this size are sent in parts, so that a broken connection costs one part."""
PART_BYTES = 8 << 20
_TUS = {"tus-resumable": "1.0.0"}

UrlOption = Annotated[
    str, typer.Option("--url", envvar="WHISPER_API_URL", metavar="URL", help="The server.")
]
KeyOption = Annotated[
    str | None, typer.Option("--key", envvar="WHISPER_API_KEY", help="API key of that server.")
]
Advance = Callable[[float], None]
"""Told how much of a file was sent, 0..1."""


class Remote:
    """One server's API."""

    def __init__(self, url: str, key: str | None) -> None:
        """``url`` with or without ``/v1``."""
        self.base = url.rstrip("/").removesuffix("/v1")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Timeout(None, connect=10)
        self.client = httpx.Client(base_url=self.base, headers=headers, timeout=limits)

    def __enter__(self) -> Self:
        """Itself; the connections are closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.client.close()

    def call(
        self, method: str, path: str, *, file: Path | None = None, **more: Any
    ) -> httpx.Response:
        """One request, with ``file`` as a form's; a server that is full is asked again.

        Raises:
            RequestError: the server refused it.
            ServerError: the server failed, or cannot be reached.
        """
        for left in range(RETRIES, -1, -1):
            answer = self._once(method, path, file, **more)
            if answer.is_success:
                return answer
            if answer.status_code not in {429, 503} or not left:
                break
            time.sleep(seconds_to_wait(answer))
        raise failure(answer)

    def lines(self, path: str, headers: dict[str, str]) -> Iterator[str]:
        """The lines of a streamed answer.

        Raises:
            RequestError, ServerError: as ``call``.
        """
        try:
            with self.client.stream("GET", path, headers=headers) as answer:
                if not answer.is_success:
                    answer.read()
                    raise failure(answer)
                yield from answer.iter_lines()
        except httpx.HTTPError as error:
            raise ServerError(f"{self.base}: {error or type(error).__name__}") from error

    def submit(self, path: Path, fields: dict[str, str], advance: Advance) -> dict[str, Any]:
        """A new task for a file; large files go in parts.

        Raises:
            RequestError, ServerError: as ``call``; ``OSError``: the file cannot be read.
        """
        door = "/v1/audio/transcriptions/async"
        if path.stat().st_size < LARGE_BYTES:
            answer = self.call("POST", door, file=path, data=fields)
        else:
            audio_id = self.upload(path, advance)
            body = {name.removesuffix("[]"): value for name, value in fields.items()}
            answer = self.call("POST", door, json={**body, "audio_id": audio_id})
        advance(1.0)
        task: dict[str, Any] = answer.json()
        return task

    def upload(self, path: Path, advance: Advance) -> str:
        """Send a file in parts (tus); the id of the upload.

        Raises:
            RequestError, ServerError: as ``call``; parts are sent again a few times before.
        """
        size = path.stat().st_size
        name = base64.b64encode(path.name.encode()).decode()
        head = {**_TUS, "upload-length": str(size), "upload-metadata": f"filename {name}"}
        location: str = self.call("POST", "/v1/uploads", headers=head).headers["location"]
        place = "/v1/uploads/" + location.rsplit("/", 1)[1]  # below self.base, prefix or not
        at, failures = 0, 0
        with path.open("rb") as file:
            while at < size:
                file.seek(at)
                try:
                    at = self._part(place, at, file.read(PART_BYTES))
                    failures = 0
                except ServerError:
                    failures += 1
                    if failures > RETRIES:
                        raise
                    time.sleep(min(30.0, 0.2 * 2**failures))
                    at = self._offset(place, at)
                advance(at / size)
        return place.rsplit("/", 1)[1]

    def _part(self, place: str, at: int, data: bytes) -> int:
        headers = {**_TUS, "upload-offset": str(at)}
        headers["content-type"] = "application/offset+octet-stream"
        answer = self._once("PATCH", place, headers=headers, content=data)
        if answer.status_code == 409 or answer.status_code >= 500:
            raise ServerError(str(failure(answer)))
        if not answer.is_success:
            raise failure(answer)
        return int(answer.headers["upload-offset"])

    def _offset(self, place: str, at: int) -> int:
        """Where the server says that the upload is; ``at`` where it does not answer either."""
        try:
            answer = self._once("HEAD", place, headers=_TUS)
        except ServerError:
            return at
        if answer.status_code == 404:
            raise RequestError("the server has dropped the upload")
        return int(answer.headers.get("upload-offset", at))

    def _once(
        self, method: str, path: str, file: Path | None = None, **more: Any
    ) -> httpx.Response:
        try:
            if file is None:
                return self.client.request(method, path, **more)
            with file.open("rb") as content:
                files = {"file": (file.name, content)}
                return self.client.request(method, path, files=files, **more)
        except httpx.HTTPError as error:
            raise ServerError(f"{self.base}: {error or type(error).__name__}") from error


def server_url(given: str | None) -> str:
    """The server to use when none is named: ``WHISPER_API_URL``, else the one on this machine."""
    return given or os.environ.get("WHISPER_API_URL") or DEFAULT_URL


def seconds_to_wait(answer: httpx.Response) -> float:
    """What ``Retry-After`` asks for, within reason."""
    try:
        return min(max(float(answer.headers.get("retry-after", "1")), 0.1), 120)
    except ValueError:
        return 1.0


def failure(answer: httpx.Response) -> RequestError | ServerError:
    """An answer that is no success, as an error."""
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = answer.text[:200]
    kind = ServerError if answer.is_server_error else RequestError
    return kind(f"{answer.status_code}: {message}")
