"""One text taken out of a JSON object while its bytes arrive."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whisper_api.api.json_stream import TextSplitter
from whisper_api.errors import RequestError

PLAIN = st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN | st.just("file"), inner),
    max_leaves=6,
)


def split(body: bytes, size: int) -> tuple[str, Any]:
    splitter = TextSplitter("file")
    text = b"".join(splitter.feed(body[at : at + size]) for at in range(0, len(body), size))
    return text.decode(), json.loads(splitter.skeleton)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100)
@given(
    before=st.dictionaries(PLAIN, VALUES, max_size=3),
    after=st.dictionaries(PLAIN, VALUES, max_size=3),
    text=st.text(alphabet='ABCxyz019+/=\\"\n', max_size=30),
    size=st.integers(1, 40),
    ascii_only=st.booleans(),
)
def test_any_object_in_any_chunks(
    before: dict[str, Any], after: dict[str, Any], text: str, size: int, ascii_only: bool
) -> None:
    whole = {**before, "file": text, **after} | {"file": text}
    raw = json.dumps(whole, ensure_ascii=ascii_only).encode()
    found, rest = split(raw, size)
    assert found == text
    assert rest == whole | {"file": ""}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_escapes_of_other_writers(size: int) -> None:
    raw = b'{ "a" : [ "file" , {"file":"no"} ] ,\n "file" : "A\\/B\\u002BC\\u003d" , "file2": ":" }'
    text, rest = split(raw, size)
    assert text == "A/B+C="
    assert rest == {"a": ["file", {"file": "no"}], "file": "", "file2": ":"}


def test_too_much_beside_the_file() -> None:
    splitter = TextSplitter("file", limit=100)
    assert len(splitter.feed(b'{"file": "' + b"A" * 1000)) == 1000
    with pytest.raises(RequestError, match="beside"):
        splitter.feed(b'", "other": "' + b"x" * 200)


def test_two_files() -> None:
    with pytest.raises(RequestError, match="more than one"):
        TextSplitter("file").feed(b'{"file": "A", "file": "B"}')
