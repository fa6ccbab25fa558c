"""Which audio is served: file endings, containers, MIME types and their synonyms."""

from __future__ import annotations

from pathlib import PurePosixPath

DEMUXERS: tuple[str, ...] = (
    "aac",
    "ac3",
    "aiff",
    "amr",
    "ape",
    "asf",
    "au",
    "avi",
    "caf",
    "flac",
    "flv",
    "matroska",
    "webm",
    "mov",
    "mp4",
    "m4a",
    "3gp",
    "3g2",
    "mj2",
    "mp3",
    "mpeg",
    "mpegts",
    "ogg",
    "tta",
    "w64",
    "wav",
    "wv",
)
"""libav's demuxers that may open a caller's bytes. None of them reads another file or a URL."""

_OPENAI = ("flac", "mp3", "mp4", "mpeg", "mpga", "m4a", "ogg", "oga", "wav", "webm")
_SOUND = ("opus", "aac", "ac3", "aif", "aiff", "amr", "ape", "au", "caf", "m4b", "mka", "mp2")
_VIDEO = (
    "tta",
    "w64",
    "wma",
    "wv",
    "asf",
    "avi",
    "flv",
    "m4v",
    "mkv",
    "mov",
    "mpg",
    "mts",
    "ts",
    "wmv",
    "3gp",
    "3g2",
)
EXTENSIONS: tuple[str, ...] = _OPENAI + _SOUND + _VIDEO
"""File endings that are let in when no setting names others; OpenAI's come first."""

_MIMES: dict[str, str] = {
    "aac": "audio/aac",
    "ac3": "audio/ac3",
    "aiff": "audio/aiff",
    "amr": "audio/amr",
    "ape": "audio/ape",
    "asf": "audio/x-ms-wma",
    "au": "audio/basic",
    "avi": "video/avi",
    "caf": "audio/x-caf",
    "flac": "audio/flac",
    "flv": "video/x-flv",
    "matroska,webm": "audio/webm",
    "mov,mp4,m4a,3gp,3g2,mj2": "audio/mp4",
    "mp3": "audio/mpeg",
    "mpeg": "video/mpeg",
    "mpegts": "video/mp2t",
    "ogg": "audio/ogg",
    "tta": "audio/x-tta",
    "w64": "audio/wav",
    "wav": "audio/wav",
    "wv": "audio/x-wavpack",
}

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "audio/wav": ("audio/x-wav", "audio/wave", "audio/vnd.wave", "audio/x-pn-wav"),
    "audio/mpeg": ("audio/mp3", "audio/x-mp3", "audio/x-mpeg", "audio/mpeg3", "audio/mpga"),
    "audio/mp4": (
        "audio/m4a",
        "audio/x-m4a",
        "audio/mp4a-latm",
        "video/mp4",
        "video/quicktime",
        "audio/3gpp",
        "video/3gpp",
        "audio/aacp",
    ),
    "audio/ogg": ("application/ogg", "audio/opus", "audio/vorbis", "audio/x-ogg", "video/ogg"),
    "audio/flac": ("audio/x-flac",),
    "audio/webm": ("video/webm", "audio/x-matroska", "video/x-matroska"),
    "audio/aac": ("audio/x-aac", "audio/x-hx-aac-adts", "audio/vnd.dlna.adts"),
    "audio/aiff": ("audio/x-aiff",),
    "audio/amr": ("audio/3gpp-amr", "audio/amr-nb", "audio/amr-wb"),
    "audio/x-ms-wma": ("video/x-ms-asf", "video/x-ms-wmv", "audio/wma", "application/vnd.ms-asf"),
    "video/avi": ("video/x-msvideo", "video/msvideo"),
}
_CANONICAL = {name: main for main, names in _SYNONYMS.items() for name in (main, *names)}


def canonical_mime(mime: str) -> str:
    """One name for all synonyms of a MIME type, lower case, without parameters."""
    bare = mime.split(";")[0].strip().lower()
    return _CANONICAL.get(bare, bare)


def container_mime(container: str) -> str:
    """The MIME type of one of libav's containers."""
    return _MIMES.get(container, "application/octet-stream")


def extension(name: str) -> str:
    """The ending of a file name in lower case without its dot; empty where there is none."""
    return PurePosixPath(name).suffix.lower().removeprefix(".")


def display_name(name: str | None) -> str:
    """A caller's file name as something safe to show: no path, no control characters, short."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    clean = "".join(char for char in last if char.isprintable() and char not in '"<>|').strip()
    return clean[-120:] or "upload"
