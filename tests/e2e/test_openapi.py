"""The server against its own description: thousands of odd requests, made by schemathesis."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import schemathesis.openapi
import schemathesis.pytest
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.conftest import marked
from tests.e2e.conftest import StartServer

from whisper_api.api.app import create_app
from whisper_api.config import Settings

pytestmark = pytest.mark.slow
WAV = marked({0.5: 42}, 1)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
NOWHERE = "http://127.0.0.1:9/audio.wav"
"""Takes the place of addresses: no test may call strangers, and the server is offline."""


described = schemathesis.openapi.from_dict(create_app(Settings()).openapi())
# ``multipart`` is the same route under an older name.
every = described.exclude(path_regex=r"/multipart$")
audio = described.include(path_regex=r"^/v1/audio/(transcriptions|translations)(/base64)?$")
quick = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def address(start_server: StartServer) -> str:
    """A running server's."""
    return start_server(max_duration_s=60, offline=True).root


def call(case: Any, address: str) -> None:
    for name in ("url", "callback_url"):
        if isinstance(case.body, dict) and name in case.body:
            case.body[name] = NOWHERE
    case.call_and_validate(base_url=address, checks=CHECKS, timeout=60)


@every.parametrize()
@quick
def test_every_route_answers_as_described(case: Any, address: str) -> None:
    call(case, address)


@audio.parametrize()
@quick
def test_good_audio_with_any_options_is_answered_as_described(case: Any, address: str) -> None:
    if isinstance(case.body, dict):
        is_form = case.media_type == "multipart/form-data"
        case.body["file"] = WAV if is_form else base64.b64encode(WAV).decode()
        case.body.pop("model", None)
    call(case, address)
