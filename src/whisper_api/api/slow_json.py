"""A JSON answer that takes long: white space goes ahead of it, so that no proxy gives up.

JSON allows white space before a value. Once it went out the status is 200, whatever follows: an
error then comes as the usual object, for the caller to look at.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from starlette.responses import Response

from whisper_api.api.sse import Streamed, late_body
from whisper_api.types import Transcript

SPACE = b"\n"


async def slow_json(
    work: Coroutine[Any, Any, Transcript],
    finish: Callable[[Transcript], Response],
    every: float,
    stack: AsyncExitStack,
) -> Response:
    """An ordinary answer when ``work`` ends within ``every`` seconds, otherwise one begun early.

    ``stack`` ends the work. Raises what ``work`` raises in that time.
    """
    waiting = asyncio.ensure_future(work)
    stack.push_async_callback(_end, waiting)
    if await _done(waiting, every):
        return await asyncio.to_thread(finish, waiting.result())
    return Streamed(_chunks(waiting, finish, every), "application/json")


async def _chunks(
    waiting: asyncio.Future[Transcript], finish: Callable[[Transcript], Response], every: float
) -> AsyncIterator[bytes]:
    yield SPACE
    while not await _done(waiting, every):
        yield SPACE
    try:
        answer = await asyncio.to_thread(finish, waiting.result())
        yield bytes(answer.body)
    except Exception as error:
        yield json.dumps(late_body(error)).encode()


async def _done(waiting: asyncio.Future[Transcript], seconds: float) -> bool:
    done, _ = await asyncio.wait({waiting}, timeout=seconds)
    return bool(done)


async def _end(waiting: asyncio.Future[Transcript]) -> None:
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
