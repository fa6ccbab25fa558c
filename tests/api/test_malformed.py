"""200 malformed, truncated, empty and misnamed files: each a clean 4xx, and nothing left over."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import pytest
from tests.api.test_transcriptions import URL, leftovers, problem
from tests.conftest import Encode, MakeWav

from whisper_api.runtime import Runtime

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXTS = (
    b"",
    b"RIFF",
    b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n",
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"<html><body>not audio</body></html>",
    b'{"json": true}',
    b"PK\x03\x04" + b"\0" * 60,
    b"%PDF-1.7\n",
    b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    b"OggS" + b"\xff" * 200,
    b"fLaC" + b"\0" * 100,
    b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
    b"\x1aE\xdf\xa3" + b"\xff" * 100,
    b"\0\0\0\x20ftypM4A " + b"\xff" * 100,
    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01" + b"\0" * 13 + b"data\xff\xff\xff\xff",
    bytes(range(256)) * 16,
)
ENDINGS = ("wav", "mp3", "m4a", "ogg", "flac", "webm", "exe", "")


def malformed(wav: bytes, encode: Encode) -> list[tuple[str, bytes]]:
    """200 pairs of file name and content; none of them holds 0.1 s of sound."""
    chance = random.Random(7)
    files = [(f"a.{ending}", text) for text in TEXTS for ending in ENDINGS]
    for ending in ("mp3", "m4a", "ogg", "flac", "webm"):
        whole = encode(wav, ending)
        head = whole[: {"m4a": len(whole) // 2, "mp3": 3}.get(ending, 30)]
        files.append((f"cut.{ending}", head))
        files.append((f"head-lost.{ending}", b"\0" * 64 + whole[-40:]))
    while len(files) < 200:
        ending = chance.choice(ENDINGS)
        files.append((f"noise{len(files)}.{ending}", chance.randbytes(chance.randint(1, 4000))))
    return files


async def test_200_malformed_files(
    client: httpx.AsyncClient, runtime: Runtime, make_wav: MakeWav, encode: Encode
) -> None:
    files = malformed(make_wav({0.5: 1}, 3), encode)
    assert len(files) == 200
    limit = asyncio.Semaphore(8)
    alive = 0

    async def send(name: str, content: bytes) -> Any:
        nonlocal alive
        async with limit:
            answer = await client.post(URL, files={"file": (name, content)})
            health = await client.get("/health")
            alive += health.status_code == 200
        return name, content, answer

    for name, content, answer in await asyncio.gather(*(send(*file) for file in files)):
        assert answer.status_code == 400, (name, content[:40], answer.text)
        assert problem(answer)["param"] == "file"
    assert alive == 200
    assert leftovers(runtime.settings.scratch_dir) == []
    good = await client.post(URL, files={"file": ("a.wav", make_wav({0.5: 1}, 3))})
    assert good.json()["text"] == "marker-0001"
