"""Stored audio for players, wherever its name comes from."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from whisper_api.api import schemas
from whisper_api.api.ranges import ranged
from whisper_api.runtime import Runtime

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"audio/*": {}}},
    206: {"description": "The part that Range asks for."},
    416: {"model": schemas.ErrorBody, "description": "The part begins behind the end."},
}
"""What routes that play audio answer besides their own errors."""


async def play(request: Request, digest: str, stem: str) -> Response:
    """Stored audio as it came where browsers play that, otherwise as Opus; Range is served.

    Raises:
        NotFound: it is no longer stored.
        RangeRefused: the part that is asked for begins behind the end.
    """
    runtime: Runtime = request.app.state.runtime
    playable = await runtime.playback.playable(digest)
    return await ranged(
        request,
        partial(runtime.playback.open, playable),
        playable.size,
        etag=f'"{playable.key}"',
        media_type=playable.mime,
        name=f"{stem}.{playable.ending}",
    )
