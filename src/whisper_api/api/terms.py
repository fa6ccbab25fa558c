"""What a request's headers say about reuse, retries and patience."""

from __future__ import annotations

from starlette.datastructures import Headers

from whisper_api.errors import InvalidOption
from whisper_api.jobs import Terms

LONGEST_KEY = 255
"""Characters of an Idempotency-Key."""
ANSWER_MARGIN = 0.05
"""Share of a client's read timeout that is left for the answer to travel."""
LONGEST_MARGIN_S = 2.0


def read_terms(headers: Headers) -> Terms:
    """Whether earlier work may answer, and whether anything may be left behind.

    Raises:
        InvalidOption: an Idempotency-Key that is empty or too long.
    """
    directives = {
        part.strip().lower()
        for line in headers.getlist("cache-control")
        for part in line.split(",")
    }
    keep = "no-store" not in directives
    return Terms(
        reuse=keep and not directives & {"no-cache", "max-age=0"},
        keep=keep,
        retry=_number(headers, "x-stainless-retry-count") > 0,
        idempotency_key=_idempotency_key(headers),
    )


def patience(headers: Headers) -> float | None:
    """Seconds that OpenAI's clients wait for a byte, less the answer's way; None: not said."""
    # Python's client says the first, JavaScript's the second.
    seconds = _number(headers, "x-stainless-read-timeout") or _number(
        headers, "x-stainless-timeout"
    )
    return seconds - min(ANSWER_MARGIN * seconds, LONGEST_MARGIN_S) if seconds > 0 else None


def _idempotency_key(headers: Headers) -> str | None:
    key = headers.get("idempotency-key")
    if key is None:
        return None
    if not 0 < len(key.strip()) <= LONGEST_KEY:
        raise InvalidOption(
            f"An Idempotency-Key has 1 to {LONGEST_KEY} characters.", param="Idempotency-Key"
        )
    return key.strip()


def _number(headers: Headers, name: str) -> float:
    """A header's number; 0 where it is absent, no number, or endless."""
    try:
        value = float(headers.get(name, "0"))
    except ValueError:
        return 0.0
    return value if 0 < value < float("inf") else 0.0
