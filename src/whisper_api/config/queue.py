"""How much may wait and run at the same time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from whisper_api.config.kinds import Section


class QueueSettings(Section):
    """Limits of the queue."""

    max_queued_seconds: Annotated[float, Field(ge=30, le=10_000_000)] = 36_000
    """Seconds of audio that may wait; beyond it requests get 429 with ``Retry-After``."""
    max_concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Transcription requests held at the same time; beyond it 429."""
    max_batch_seconds: Annotated[float, Field(ge=0.1, le=600)] = 0.2
    """Longest measured time that a batch of long recordings may run while short ones (or higher
    lanes) come, on engines that do not let short ones pass a batch; never less than one window."""
    task_share: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Part of the audio seconds that tasks get while interactive requests keep coming; 0 lets
    tasks wait until nobody else does."""
    request_timeout_s: Annotated[float, Field(ge=1, le=604_800)] = 86_400
    """Longest time one request may take altogether."""
    body_timeout_s: Annotated[float, Field(ge=0, le=86_400)] = 60
    """Longest silence between two pieces of a request's body; then 408. 0 waits for ever."""
