"""Bodies that stop coming, as those of connections that died unseen, are given up."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from starlette.types import Message, Receive, Scope, Send
from tests.api.conftest import running
from tests.api.test_transcriptions import leftovers, problem
from tests.waiting import PATIENCE_S

from whisper_api.api.guards import BodyPatience
from whisper_api.config import Settings
from whisper_api.errors import BodyStalled

TUS = {"tus-resumable": "1.0.0"}
PART = {**TUS, "content-type": "application/offset+octet-stream"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hasty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that waits a moment for a body."""
    async with running(tmp_path_factory.mktemp("hasty"), body_timeout_s=0.05) as client:
        yield client


async def stalling(begun: bytes) -> AsyncIterator[bytes]:
    """A body of which no more than ``begun`` ever comes."""
    yield begun
    await asyncio.sleep(PATIENCE_S)
    raise AssertionError("the server waits on")


FORM = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF'
BODIES = [
    ("POST", "/v1/audio/transcriptions", "multipart/form-data; boundary=b", FORM),
    ("POST", "/v1/audio/transcriptions/base64", "application/json", b'{"file": "UklGR'),
    ("POST", "/v1/audio/transcriptions/url", "application/json", b'{"url": "htt'),
    ("PATCH", "/v1/history/tr_none", "application/json", b'{"title": "'),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("method", "path", "kind", "begun"), BODIES, ids=["multipart", "base64", "url", "history"]
)
async def test_a_silent_body_is_408_and_leaves_no_files(
    hasty: httpx.AsyncClient, method: str, path: str, kind: str, begun: bytes
) -> None:
    answer = await hasty.request(
        method, path, content=stalling(begun), headers={"content-type": kind}
    )
    assert answer.status_code == 408
    assert problem(answer)["code"] == "upload_stalled"
    assert answer.headers["connection"] == "close"
    scratch: Path = hasty.app.state.settings.scratch_dir  # type: ignore[attr-defined]
    assert leftovers(scratch) == []


@pytest.mark.asyncio(loop_scope="module")
async def test_a_silent_part_counts_and_lets_go_of_its_upload(hasty: httpx.AsyncClient) -> None:
    begun = await hasty.post("/v1/uploads", headers={**TUS, "upload-length": "8"})
    url = begun.headers["location"]
    headers = {**PART, "upload-offset": "0"}
    silent = await hasty.patch(url, content=stalling(b"0123"), headers=headers)
    assert silent.status_code == 408
    assert problem(silent)["code"] == "upload_stalled"
    assert silent.headers["tus-resumable"] == "1.0.0"
    # Half of what a checksum was made of does not count, but is no reason for another answer.
    digest = base64.b64encode(hashlib.sha1(b"4567").digest()).decode()
    headers = {**PART, "upload-offset": "4", "upload-checksum": f"sha1 {digest}"}
    half = await hasty.patch(url, content=stalling(b"45"), headers=headers)
    assert half.status_code == 408
    rest = await hasty.patch(url, content=b"4567", headers=headers)
    assert rest.headers["upload-offset"] == "8"


class Skipping(selectors.DefaultSelector):
    """Nothing to wait for but timers: their time comes at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """No file is looked at for longer than a moment."""
        assert timeout is not None, "this would wait for ever"
        self.now += timeout
        return super().select(0)


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer."""

    def __init__(self) -> None:
        self._skipping = Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        """Seconds that would have passed."""
        return self._skipping.now


def through(
    seconds: float, app: Callable[[Receive], Awaitable[None]], *waits: float, kind: str = "http"
) -> float:
    """How long ``app`` ran with a body of which a piece comes after each wait."""

    async def inside(scope: Scope, receive: Receive, send: Send) -> None:
        await app(receive)

    async def run() -> float:
        coming = list(waits)

        async def receive() -> Message:
            if not coming:
                await asyncio.sleep(10_000)
                return {"type": "http.disconnect"}
            await asyncio.sleep(coming.pop(0))
            return {"type": "http.request", "body": b"x", "more_body": bool(coming)}

        async def send(message: Message) -> None: ...

        await BodyPatience(inside, seconds)({"type": kind}, receive, send)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(run())


async def whole(receive: Receive) -> None:
    while (await receive())["more_body"]:
        pass


async def until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def test_each_silence_counts_for_itself() -> None:
    seconds = Settings().body_timeout_s
    assert seconds == 60
    assert through(seconds, whole, 59, 59, 59) == pytest.approx(177)
    with pytest.raises(BodyStalled):
        through(seconds, whole, 1, 61)


def test_who_waits_for_the_caller_to_leave_waits_on() -> None:
    assert through(60, until_left, 0) == pytest.approx(10_000)


def test_zero_and_sockets_wait_for_ever() -> None:
    assert through(0, whole, 5000) == pytest.approx(5000)
    assert through(60, whole, 5000, kind="websocket") == pytest.approx(5000)
