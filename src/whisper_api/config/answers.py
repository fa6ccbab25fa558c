"""How long answers may take to come, and how long what was worked out is kept in memory."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from whisper_api.config.kinds import Section


class AnswerSettings(Section):
    """Keep-alive of slow answers, retries, and the cache of results."""

    json_keep_alive_s: Annotated[float, Field(ge=0, le=3600)] = 0
    """Seconds of silence after which an unstreamed JSON answer starts and sends white space, so
    that no proxy gives up; an error after that comes with status 200. 0 turns it off."""
    retry_grace_seconds: Annotated[float, Field(ge=0, le=86_400)] = 60
    """Seconds that the finished windows of a request whose caller left are kept for its retry."""
    result_cache_ttl_s: Annotated[float, Field(ge=0, le=604_800)] = 3600
    """Seconds that a result answers requests with the same audio and options; 0 turns it off."""
    result_cache_mb: Annotated[float, Field(ge=0, le=65_536)] = 64
    """Memory for results and for windows kept for retries, in MiB; 0 keeps nothing."""
