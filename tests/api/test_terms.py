"""What headers say about reuse and patience."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from whisper_api.api.terms import patience, read_terms
from whisper_api.jobs import Terms


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"x-stainless-read-timeout": "600"}, 598),
        ({"x-stainless-read-timeout": "600.0"}, 598),
        ({"x-stainless-read-timeout": "10"}, 9.5),
        ({"x-stainless-timeout": "10"}, 9.5),
        ({"x-stainless-read-timeout": "soon", "x-stainless-timeout": "20"}, 19),
        ({"x-stainless-read-timeout": "-1"}, None),
        ({"x-stainless-read-timeout": "inf"}, None),
        ({"x-stainless-read-timeout": "nan"}, None),
    ],
)
def test_the_answer_leaves_a_little_before_the_client_does(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert patience(Headers(headers)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "terms"),
    [
        ({}, Terms()),
        ({"cache-control": "no-store"}, Terms(reuse=False, keep=False)),
        ({"cache-control": "no-cache"}, Terms(reuse=False)),
        ({"cache-control": "private , MAX-AGE=0"}, Terms(reuse=False)),
        ({"cache-control": "max-age=00, nothing"}, Terms()),
        ({"x-stainless-retry-count": "0"}, Terms()),
        ({"x-stainless-retry-count": "2"}, Terms(retry=True)),
        ({"idempotency-key": " a "}, Terms(idempotency_key="a")),
    ],
)
def test_terms(headers: dict[str, str], terms: Terms) -> None:
    assert read_terms(Headers(headers)) == terms
