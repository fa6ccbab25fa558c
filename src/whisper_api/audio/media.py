"""Which audio is served: name endings, libav's containers, MIME types and their synonyms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

_MOV = "mov,mp4,m4a,3gp,3g2,mj2"
_MKV = "matroska,webm"


@dataclass(frozen=True, slots=True)
class Supported:
    """What a file with one name ending may be."""

    containers: tuple[str, ...]  #: libav's demuxer names
    mime: str  #: canonical MIME type


SUPPORTED: dict[str, Supported] = {
    "aac": Supported(("aac",), "audio/aac"),
    "ac3": Supported(("ac3", "eac3"), "audio/ac3"),
    "aif": Supported(("aiff",), "audio/aiff"),
    "aifc": Supported(("aiff",), "audio/aiff"),
    "aiff": Supported(("aiff",), "audio/aiff"),
    "amr": Supported(("amr",), "audio/amr"),
    "asf": Supported(("asf",), "audio/x-ms-wma"),
    "au": Supported(("au",), "audio/basic"),
    "avi": Supported(("avi",), "video/x-msvideo"),
    "caf": Supported(("caf",), "audio/x-caf"),
    "flac": Supported(("flac", "ogg"), "audio/flac"),
    "flv": Supported(("flv",), "video/x-flv"),
    "m4a": Supported((_MOV, "aac"), "audio/mp4"),
    "m4b": Supported((_MOV,), "audio/mp4"),
    "m4v": Supported((_MOV,), "audio/mp4"),
    "mka": Supported((_MKV,), "audio/x-matroska"),
    "mkv": Supported((_MKV,), "audio/x-matroska"),
    "mov": Supported((_MOV,), "video/quicktime"),
    "mp2": Supported(("mp3",), "audio/mpeg"),
    "mp3": Supported(("mp3",), "audio/mpeg"),
    "mp4": Supported((_MOV,), "audio/mp4"),
    "mpeg": Supported(("mp3", "mpeg", "mpegts"), "audio/mpeg"),
    "mpg": Supported(("mpeg", "mpegts"), "video/mpeg"),
    "mpga": Supported(("mp3",), "audio/mpeg"),
    "oga": Supported(("ogg",), "audio/ogg"),
    "ogg": Supported(("ogg",), "audio/ogg"),
    "ogv": Supported(("ogg",), "audio/ogg"),
    "opus": Supported(("ogg",), "audio/ogg"),
    "snd": Supported(("au",), "audio/basic"),
    "ts": Supported(("mpegts",), "video/mp2t"),
    "w64": Supported(("w64",), "audio/wav"),
    "wav": Supported(("wav", "w64"), "audio/wav"),
    "wave": Supported(("wav",), "audio/wav"),
    "webm": Supported((_MKV,), "audio/webm"),
    "wma": Supported(("asf",), "audio/x-ms-wma"),
    "wmv": Supported(("asf",), "audio/x-ms-wma"),
    "wv": Supported(("wv",), "audio/x-wavpack"),
    "3g2": Supported((_MOV,), "audio/3gpp"),
    "3gp": Supported((_MOV, "amr"), "audio/3gpp"),
}
"""Name ending -> what stands behind it."""

SYNONYMS: dict[str, frozenset[str]] = {
    "audio/3gpp": frozenset({"video/3gpp", "audio/3gpp2", "video/3gpp2"}),
    "audio/aac": frozenset({"audio/x-aac", "audio/aacp", "audio/x-hx-aac-adts"}),
    "audio/ac3": frozenset({"audio/x-ac3", "audio/eac3", "audio/vnd.dolby.dd-raw"}),
    "audio/aiff": frozenset({"audio/x-aiff", "sound/aiff"}),
    "audio/amr": frozenset({"audio/amr-nb", "audio/amr-wb", "audio/x-amr"}),
    "audio/basic": frozenset({"audio/au", "audio/x-au"}),
    "audio/flac": frozenset({"audio/x-flac"}),
    "audio/mp4": frozenset(
        {"audio/x-m4a", "audio/m4a", "audio/mp4a-latm", "audio/x-mp4", "audio/x-m4b"}
        | {"video/mp4", "application/mp4", "video/x-m4v"}
    ),
    "audio/mpeg": frozenset(
        {"audio/mp3", "audio/x-mp3", "audio/mpeg3", "audio/x-mpeg-3", "audio/x-mpeg", "audio/mpga"}
    ),
    "audio/ogg": frozenset(
        {"application/ogg", "audio/opus", "audio/vorbis", "audio/x-ogg", "video/ogg"}
        | {"audio/x-vorbis+ogg", "audio/x-opus+ogg"}
    ),
    "audio/wav": frozenset(
        {"audio/x-wav", "audio/wave", "audio/vnd.wave", "audio/x-pn-wav", "audio/x-w64"}
    ),
    "audio/webm": frozenset({"video/webm"}),
    "audio/x-caf": frozenset({"audio/caf"}),
    "audio/x-matroska": frozenset({"video/x-matroska", "application/x-matroska"}),
    "audio/x-ms-wma": frozenset(
        {"audio/wma", "video/x-ms-asf", "video/x-ms-wmv", "application/vnd.ms-asf", "audio/asf"}
    ),
    "audio/x-wavpack": frozenset({"audio/wavpack"}),
    "video/mp2t": frozenset({"video/mpegts", "audio/mp2t"}),
    "video/mpeg": frozenset({"video/x-mpeg", "video/mpg"}),
    "video/quicktime": frozenset({"audio/quicktime"}),
    "video/x-flv": frozenset({"video/flv", "audio/x-flv"}),
    "video/x-msvideo": frozenset({"video/avi", "video/msvideo", "video/vnd.avi"}),
}
"""Canonical MIME type -> other names of the same thing."""

_CANONICAL = {name: mime for mime, names in SYNONYMS.items() for name in (mime, *names)}
_BY_CONTAINER = {
    container: item.mime
    for item in reversed(SUPPORTED.values())
    for container in item.containers
    if container != "ogg" or item.mime == "audio/ogg"
} | {"aac": "audio/aac", "mp3": "audio/mpeg", "mpegts": "video/mp2t", "mpeg": "video/mpeg"}

_OPENAI = ("flac", "mp3", "mp4", "mpeg", "mpga", "m4a", "ogg", "oga", "wav", "webm")
EXTENSIONS: tuple[str, ...] = (*_OPENAI, *(name for name in SUPPORTED if name not in _OPENAI))
"""File endings let in when no setting names others; OpenAI's come first."""

DEMUXERS = tuple(sorted({name for item in SUPPORTED.values() for name in item.containers}))
"""Every container that libav may be asked to read; playlists and scripts are not among them."""


def canonical_mime(mime: str) -> str:
    """The one name of a MIME type: lower case, no parameters, synonyms replaced."""
    bare = mime.partition(";")[0].strip().lower()
    return _CANONICAL.get(bare, bare)


def mime_of(container: str, brand: str = "", head: bytes = b"") -> str:
    """The canonical MIME type of content in ``container`` (libav's name).

    ``brand`` is the major brand of an MP4 family file, ``head`` its first bytes; they tell
    QuickTime and 3GPP from MP4, and WebM from Matroska.
    """
    if container == _MOV:
        if brand.strip() == "qt":
            return "video/quicktime"
        return "audio/3gpp" if brand.startswith("3g") else "audio/mp4"
    if container == _MKV:
        return "audio/webm" if b"webm" in head else "audio/x-matroska"
    return _BY_CONTAINER.get(container, "application/octet-stream")


_PLAYABLE: dict[str, frozenset[str]] = {
    "audio/flac": frozenset({"flac"}),
    "audio/mp4": frozenset({"aac", "mp3"}),
    "audio/mpeg": frozenset({"mp3"}),
    "audio/ogg": frozenset({"opus", "vorbis"}),
    "audio/wav": frozenset({"pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_f32le"}),
    "audio/webm": frozenset({"opus", "vorbis"}),
}


def plays_in_browsers(mime: str, codec: str) -> bool:
    """Whether every current browser plays and seeks such a file as it is."""
    return codec in _PLAYABLE.get(mime, frozenset())


def same_container(name: str, container: str) -> bool:
    """Whether ``name`` (``mp4``, or libav's whole ``mov,mp4,…``) means ``container``."""
    wanted = {part.strip().lower() for part in name.split(",")}
    return bool(wanted & set(container.split(",")))


def extension(name: str) -> str:
    """The ending of a file name in lower case without its dot; empty where there is none."""
    return PurePosixPath(name).suffix.lower().removeprefix(".")


def display_name(name: str | None) -> str:
    """A caller's file name as something safe to show: no path, no control characters, short."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    clean = "".join(char for char in last if char.isprintable() and char not in "\"'`<>|").strip()
    return clean[-120:] or "upload"
