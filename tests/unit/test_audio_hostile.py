"""Files that want to be something else: refused by every way in, and nothing stays behind."""

from __future__ import annotations

import base64
import gzip
import io
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.media import FORMATS, make, tone, wav
from tests.webserver import Site

from whisper_api.audio.decode import Decoder
from whisper_api.audio.scratch import Scratch
from whisper_api.audio.sources import Intake
from whisper_api.config import Settings
from whisper_api.errors import RequestError
from whisper_api.types import AudioFile, Options

Way = Callable[[Intake, Scratch, Path, str], Awaitable[AudioFile]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def settings(root: Path) -> Settings:
    (root / "files").mkdir()
    return Settings(
        data_dir=root,
        max_duration_s=600,
        allowed_directories=(root / "files",),
        url_allowed_hosts=("127.0.0.1",),
    )


@pytest.fixture(scope="module")
def decoder(settings: Settings) -> Iterator[Decoder]:
    decoder = Decoder(settings)
    decoder.start()
    yield decoder
    decoder.close()


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1000):
        yield data[at : at + 1000]


def read(path: Path) -> bytes:
    return path.read_bytes()


async def by_upload(intake: Intake, scratch: Scratch, path: Path, name: str) -> AudioFile:
    return await intake.from_stream(scratch, name, chunks(read(path)))


async def by_base64(intake: Intake, scratch: Scratch, path: Path, name: str) -> AudioFile:
    return await intake.from_base64(scratch, name, base64.b64encode(read(path)).decode())


async def by_path(intake: Intake, scratch: Scratch, path: Path, name: str) -> AudioFile:
    return await intake.from_path(scratch, str(path))


async def by_own_path(intake: Intake, scratch: Scratch, path: Path, name: str) -> AudioFile:
    return await intake.from_own_path(scratch, path)


async def by_url(intake: Intake, scratch: Scratch, path: Path, name: str) -> AudioFile:
    async with Site({f"/{name}": read(path)}) as site:
        return await intake.from_url(scratch, f"{site.url}/{name}")


WAYS: dict[str, Way] = {
    "upload": by_upload,
    "base64": by_base64,
    "path": by_path,
    "own path": by_own_path,
    "url": by_url,
}
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n"
MPD = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
    '<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1000">'
    "<BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>"
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
SCRIPTS = {
    "hls.m3u8": HLS,
    "hls.wav": HLS,
    "hls.mp3": HLS,
    "concat.ffconcat": "ffconcat version 1.0\nfile '{target}'\n",
    "concat.wav": "ffconcat version 1.0\nfile '{target}'\n",
    "concat-uri.wav": "ffconcat version 1.0\nfile 'file:{target}'\n",
    "concat.flac": "ffconcat version 1.0\nfile secret.wav\n",
    "session.sdp": SDP,
    "session.ogg": SDP,
    "dash.mpd": MPD,
    "dash.mp4": MPD,
    "list.pls": "[playlist]\nFile1={target}\nNumberOfEntries=1\n",
    "list.asx": '<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
    "smil.webm": '<smil><body><audio src="{target}"/></body></smil>',
    "image2-%d.wav": "{target}",
    "lavfi.wav": "amovie={target}",
}


@pytest.mark.parametrize("way", WAYS)
async def test_scripts_and_playlists_never_reach_another_file(
    way: str, settings: Settings, decoder: Decoder, root: Path
) -> None:
    """Were the named file read, its sound would be decoded, so a refusal shows it was not."""
    intake = Intake(settings, decoder)
    folder = root / "files"
    target = folder / "secret.wav"
    target.write_bytes(make("wav", tone(1)))
    for name, text in SCRIPTS.items():
        path = folder / name.replace("%d", "1")
        path.write_text(text.format(target=target))
        async with Scratch.create(settings.scratch_dir) as scratch:
            with pytest.raises(RequestError) as caught:
                await WAYS[way](intake, scratch, path, path.name)
            assert caught.value.message, name
        path.unlink()


async def test_scripts_reach_neither_files_nor_network(decoder: Decoder, tmp_path: Path) -> None:
    """The same, one level down: libav itself is asked, whatever the file is called."""
    async with Site({"/secret.wav": make("wav", tone(1))}) as site:
        for name, text in SCRIPTS.items():
            path = tmp_path / name.replace("%d", "1")
            path.write_text(text.format(target=f"{site.url}/secret.wav"))
            with pytest.raises(RequestError):
                await decoder.probe(path)
        assert site.seen == []


def zipped(data: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("x.wav", data)
    return target.getvalue()


def broken_files() -> Iterator[tuple[str, bytes]]:
    """Over two hundred files that are no audio, no more, or not under this name."""
    rng = np.random.default_rng(5)
    for number, (name, (_, _, ending, _)) in enumerate(FORMATS.items()):
        good = make(name, tone(0.5))
        for size in (4, 12, 30):
            yield f"cut.{ending}", good[:size]
        yield f"zeros.{ending}", bytes(len(good))
        yield f"random.{ending}", rng.bytes(3000)
        yield f"backwards.{ending}", good[::-1]
        yield f"no-head.{ending}", bytes(64) + good[64:200]
        yield f"good.{('exe', 'm3u8', 'txt', 'pdf', 'wav.php', 'mid', 'wax')[number % 7]}", good
        yield f"empty.{ending}", b""
    sound = make("wav", tone(0.5))
    others: dict[str, bytes] = {
        "text.wav": b"hello world\n" * 100,
        "page.mp3": b"<!doctype html><html><body>Not found</body></html>",
        "data.ogg": b'{"error": "no such file"}',
        "picture.m4a": b"\x89PNG\r\n\x1a\n" + bytes(200),
        "paper.flac": b"%PDF-1.7\n" + bytes(200),
        "archive.wav": zipped(sound),
        "packed.wav": gzip.compress(sound),
        "program.wav": b"\x7fELF\x02\x01\x01" + bytes(300),
        "titles.webm": b"1\n00:00:00,000 --> 00:00:01,000\nHello\n",
        "noname": b"\x00",
        "": b"x" * 1000,
        "no-samples.wav": wav(np.zeros(0, np.int16)),
        "few-samples.wav": wav(np.zeros(100, np.int16)),
        "no-rate.wav": wav(np.zeros(5000, np.int16), 0),
        "slow.wav": wav(np.zeros(5000, np.int16), 1),
        "only-a-head.wav": sound[:44],
        "headless.wav": sound[44:],
        "mp4-without-index.mp4": make("m4a", tone(0.5))[:-900],
        "id3-only.mp3": b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10),
        "id3-huge.mp3": b"ID3\x03\x00\x00\x7f\x7f\x7f\x7f" + bytes(500),
        "riff-liar.wav": sound[:4] + b"\xff\xff\xff\xff" + sound[8:16] + b"\xff" * 28,
        "silent-video.mp4": b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + bytes(300),
    }
    yield from others.items()


async def take(intake: Intake, decoder: Decoder, scratch: Scratch, name: str, data: bytes) -> None:
    file = await intake.from_stream(scratch, name, chunks(data))
    await decoder.decode(file, scratch, Options())
    pytest.fail(f"{name} ({len(data)} bytes) was taken for audio")


async def test_two_hundred_broken_files(settings: Settings, decoder: Decoder) -> None:
    intake = Intake(settings, decoder)
    codes: dict[str, int] = {}
    cases = list(broken_files())
    assert len(cases) >= 200
    for name, data in cases:
        async with Scratch.create(settings.scratch_dir) as scratch:
            with pytest.raises(RequestError) as caught:
                await take(intake, decoder, scratch, name, data)
            assert caught.value.code
            assert caught.value.param == "file"
            codes[caught.value.code] = codes.get(caught.value.code, 0) + 1
    assert not list(settings.scratch_dir.glob("*/request-*"))
    assert codes.keys() <= EXPECTED, codes
    # None of them needed a worker's death.
    assert (await decoder.probe(good_file(settings))).codec == "pcm_s16le"


EXPECTED = {
    "audio_missing",
    "audio_too_long",
    "audio_too_short",
    "undecodable_audio",
    "unsupported_format",
}


def good_file(settings: Settings) -> Path:
    path = settings.data_dir / "good"
    path.write_bytes(make("wav", tone(0.5)))
    return path


async def test_truncated_and_flipped_files_never_escape(
    settings: Settings, decoder: Decoder
) -> None:
    """Damaged audio may be decoded in part; anything else must be a request error."""
    rng = np.random.default_rng(9)
    intake = Intake(settings, decoder)
    outcomes: dict[str, int] = {}
    for name, (_, _, ending, _) in FORMATS.items():
        good = make(name, tone(0.5))
        variants: list[Any] = [good[: int(len(good) * part)] for part in (0.2, 0.6, 0.95)]
        for _ in range(3):
            flipped = bytearray(good)
            for at in rng.integers(0, len(good), 20):
                flipped[at] = int(rng.integers(256))
            variants.append(bytes(flipped))
        for data in variants:
            async with Scratch.create(settings.scratch_dir) as scratch:
                try:
                    file = await intake.from_stream(scratch, f"x.{ending}", chunks(data))
                    waveform = await decoder.decode(file, scratch, Options())
                    assert waveform.samples >= 1600
                    outcome = "decoded"
                except RequestError as error:
                    outcome = error.code or "none"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes.keys() <= EXPECTED | {"decoded"}, outcomes
    assert outcomes["decoded"] > 20
