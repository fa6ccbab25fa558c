"""Every way in: limits while bytes arrive, names, lists of what is allowed, paths, base64."""

from __future__ import annotations

import base64
import errno
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.intake import intake
from tests.media import encode, make, tone

from whisper_api.audio.decode import Decoder
from whisper_api.audio.media import (
    DEMUXERS,
    EXTENSIONS,
    SUPPORTED,
    SYNONYMS,
    canonical_mime,
    display_name,
    extension,
    mime_of,
)
from whisper_api.audio.scratch import Scratch
from whisper_api.errors import (
    AudioMissing,
    CapacityError,
    FileTooLarge,
    InvalidOption,
    RequestError,
    UnsupportedMedia,
)
from whisper_api.types import AudioFile

SOUND = make("wav", tone(0.5))


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


# --- streams --------------------------------------------------------------------------------


async def test_a_stream_becomes_a_file(decoder: Decoder, scratch: Scratch) -> None:
    file = await intake(decoder).from_stream(scratch, "talk.wav", pieces(SOUND))
    assert file == AudioFile(
        path=file.path,
        name="talk.wav",
        size=len(SOUND),
        digest=hashlib.sha256(SOUND).hexdigest(),
        container="wav",
        codec="pcm_s16le",
        mime="audio/wav",
        duration=0.5,
    )
    assert file.path.read_bytes() == SOUND
    assert file.path.parent == scratch.folder


async def test_the_cap_holds_while_bytes_arrive(decoder: Decoder, scratch: Scratch) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1 << 16
            yield bytes(1 << 16)

    with pytest.raises(FileTooLarge, match="1048576 bytes"):
        await intake(decoder, max_file_size_mb=1).from_stream(scratch, "x.wav", endless())
    assert taken < 3 << 20


async def test_a_declared_length_is_refused_unread(decoder: Decoder, scratch: Scratch) -> None:
    async def untouched() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    limited = intake(decoder, max_file_size_mb=1)
    with pytest.raises(FileTooLarge):
        await limited.from_stream(scratch, "x.wav", untouched(), declared=(1 << 20) + 1)


async def test_exactly_the_limit_passes(decoder: Decoder, scratch: Scratch) -> None:
    limited = intake(decoder, max_file_size_mb=len(SOUND) / (1 << 20))
    assert (await limited.from_stream(scratch, "x", pieces(SOUND))).size == len(SOUND)
    with pytest.raises(FileTooLarge):
        await limited.from_stream(scratch, "x", pieces(SOUND + b"\0"))


async def test_no_bytes_are_no_audio(decoder: Decoder, scratch: Scratch) -> None:
    with pytest.raises(AudioMissing):
        await intake(decoder).from_stream(scratch, "x.wav", pieces(b""))


async def test_a_full_disk_is_our_fault(decoder: Decoder, scratch: Scratch) -> None:
    writer = intake(decoder).writer(scratch, "x.wav")

    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "no space")

        def close(self) -> None: ...

    writer.close()
    writer._file = Full()  # type: ignore[assignment]
    with pytest.raises(CapacityError, match="disk is full"):
        writer.write(b"x")


# --- names and lists of what is allowed -------------------------------------------------------


@pytest.mark.parametrize("name", ["talk", "", None, "talk.WAV", "a.b.wav", "talk.mp3", "x.opus"])
async def test_names_that_pass(name: str | None, decoder: Decoder, scratch: Scratch) -> None:
    """No ending passes, a listed one too, even a wrong one: the content decides."""
    file = await intake(decoder).from_stream(scratch, name, pieces(SOUND))
    assert (file.container, file.mime) == ("wav", "audio/wav")


@pytest.mark.parametrize("name", ["x.exe", "x.m3u8", "x.wav.txt", "x.mid"])
async def test_endings_that_are_not_listed(name: str, decoder: Decoder, scratch: Scratch) -> None:
    with pytest.raises(UnsupportedMedia, match=r"Supported formats: .*'wav'") as caught:
        await intake(decoder).from_stream(scratch, name, pieces(SOUND))
    assert name.rsplit(".")[-1] in caught.value.message


@pytest.mark.parametrize(
    ("rules", "passes"),
    [
        ({"allowed_extensions": [".wav", "mp3"]}, True),
        ({"allowed_extensions": [".WAV"]}, True),
        ({"allowed_extensions": ["mp3"]}, False),
        ({"allowed_mime_types": ["audio/x-wav"]}, True),
        ({"allowed_mime_types": ["Audio/vnd.wave; codec=1"]}, True),
        ({"allowed_mime_types": ["audio/mpeg"]}, False),
        ({"allowed_containers": ["wav"]}, True),
        ({"allowed_containers": ["mp4", "ogg"]}, False),
        ({"allowed_codecs": ["PCM_S16LE"]}, True),
        ({"allowed_codecs": ["aac", "mp3"]}, False),
    ],
)
async def test_lists_of_the_settings(
    rules: dict[str, Any], passes: bool, decoder: Decoder, scratch: Scratch
) -> None:
    limited = intake(decoder, **rules)
    if passes:
        assert (await limited.from_stream(scratch, "x.wav", pieces(SOUND))).name == "x.wav"
    else:
        for name in ("x.wav", "x"):
            with pytest.raises(UnsupportedMedia) as caught:
                await limited.from_stream(scratch, name, pieces(SOUND))
            assert caught.value.code == "unsupported_format"


async def test_renaming_does_not_pass_a_list_of_endings(decoder: Decoder, scratch: Scratch) -> None:
    limited = intake(decoder, allowed_extensions=["wav", "m4a"])
    with pytest.raises(UnsupportedMedia, match="flac"):
        await limited.from_stream(scratch, "x.wav", pieces(make("flac", tone(0.5))))
    bare_aac = make("aac", tone(0.5))
    assert (await limited.from_stream(scratch, "x.m4a", pieces(bare_aac))).codec == "aac"


@pytest.mark.parametrize(("name", "container"), [("mp4", "mp4"), ("m4a", "ipod"), ("m4a", "mp4")])
async def test_old_config_takes_what_phones_send(
    name: str, container: str, decoder: Decoder, scratch: Scratch
) -> None:
    limited = intake(
        decoder,
        allowed_extensions=[".wav", ".mp3", ".ogg", ".flac", ".m4a", ".mp4"],
        allowed_mime_types=["audio/wav", "audio/mpeg", "audio/ogg", "audio/flac", "audio/mp4"],
    )
    data = encode(tone(0.5), container, "aac", rate=48_000, video=container == "mp4")
    assert (await limited.from_stream(scratch, f"x.{name}", pieces(data))).mime == "audio/mp4"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("talk.wav", "talk.wav"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\talk.wav", "talk.wav"),
        ('a"b\r\nSet-Cookie: x\x00.wav', "abSet-Cookie: x.wav"),
        ("", "upload"),
        (None, "upload"),
        ("/", "upload"),
        ("запись 1.ogg", "запись 1.ogg"),
        ("a\u202egpj.wav", "agpj.wav"),
        ("x" * 500 + ".wav", "x" * 116 + ".wav"),
    ],
)
def test_display_names(given: str | None, shown: str) -> None:
    assert display_name(given) == shown


def test_tables_agree() -> None:
    assert set(EXTENSIONS) == set(SUPPORTED)
    assert EXTENSIONS[:3] == ("flac", "mp3", "mp4")
    for item in SUPPORTED.values():
        assert canonical_mime(item.mime) == item.mime
        for container in item.containers:
            assert container in DEMUXERS
            assert canonical_mime(mime_of(container)) == mime_of(container)
            assert mime_of(container) != "application/octet-stream"
    names = [name for names in SYNONYMS.values() for name in names]
    assert len(names) == len(set(names))
    assert not set(names) & set(SYNONYMS)
    for name in ("hls", "concat", "dash", "image2", "lavfi", "rtsp", "sdp", "webm_dash_manifest"):
        assert name not in DEMUXERS


def test_mime_types_of_families() -> None:
    family = SUPPORTED["mp4"].containers[0]
    assert mime_of(family, "qt  ") == "video/quicktime"
    assert mime_of(family, "3gp4") == "audio/3gpp"
    assert mime_of(family, "isom") == "audio/mp4"
    assert mime_of("matroska,webm", "", b"\x1aE\xdf\xa3 B\x82\x84webm") == "audio/webm"
    assert mime_of("matroska,webm") == "audio/x-matroska"
    assert canonical_mime("Audio/X-M4A; q=1") == canonical_mime("video/mp4") == "audio/mp4"
    assert extension("x.tar.GZ") == "gz"


# --- base64 -----------------------------------------------------------------------------------

PLAIN = base64.b64encode(SOUND).decode()
SPELLINGS = {
    "plain": PLAIN,
    "url-safe": base64.urlsafe_b64encode(SOUND).decode(),
    "unpadded": PLAIN.rstrip("="),
    "lines": "\n".join(PLAIN[at : at + 76] for at in range(0, len(PLAIN), 76)) + "\r\n",
    "data url": f"data:audio/wav;base64,{PLAIN}",
    "data url with a name": f"  Data:audio/wav;name=x.wav;base64,{PLAIN}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("size", [0, 1, 3, 7, 5000])
async def test_base64(spelling: str, size: int, decoder: Decoder, scratch: Scratch) -> None:
    text = SPELLINGS[spelling]
    given = pieces(text.encode(), size) if size else text
    file = await intake(decoder).from_base64(scratch, "x.wav", given)
    assert file.digest == hashlib.sha256(SOUND).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "!!!!",
        "a",
        "QUJ",
        "QUI=QUI=",
        "QQ==QQ==",
        "QUJD*UJD",
        "data:audio/wav,QUJD",
        "data:",
        "Привет",
        "Q=JD",
        "====",
        "data:audio/wav;base64",
        "QUJ\x00",
    ],
)
async def test_not_base64(text: str, decoder: Decoder, scratch: Scratch) -> None:
    expected = InvalidOption if text != "QUJ" else RequestError
    with pytest.raises(expected) as caught:
        await intake(decoder).from_base64(scratch, "x.wav", text)
    assert caught.value.param == "file"


async def test_nothing_after_padding_across_portions(decoder: Decoder, scratch: Scratch) -> None:
    with pytest.raises(InvalidOption):
        await intake(decoder).from_base64(scratch, None, "QQ==" + " " * (1 << 18) + "QQ==")


async def test_base64_is_capped(decoder: Decoder, scratch: Scratch) -> None:
    limited = intake(decoder, max_file_size_mb=1)
    with pytest.raises(FileTooLarge):
        await limited.from_base64(scratch, "x", "A" * (2 << 20))
