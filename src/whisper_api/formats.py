"""Transcript -> answer bodies: one table of pure functions.

Times are rounded to whole milliseconds once and stay integers from there, so no cue can read
``,1000``. The bytes of ``text``, ``srt`` and ``vtt`` are those of OpenAI's live API.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any, Literal

from whisper_api.languages import english_name
from whisper_api.types import Segment, TokenLogprob, Transcript, Word

Format = Literal["json", "text", "srt", "verbose_json", "vtt"]
Granularity = Literal["word", "segment"]

FORMATS: tuple[Format, ...] = ("json", "text", "srt", "verbose_json", "vtt")
"""Every ``response_format`` served here."""

MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "text/plain; charset=utf-8",
    "vtt": "text/plain; charset=utf-8",
}

JSON: frozenset[Format] = frozenset({"json", "verbose_json"})
"""The formats in which white space may come before the answer."""

SURE = 0.5
"""Probability from which a detected language is told in ``json``."""

_KEPT = "'%&#@"
"""Characters that Unicode calls punctuation but that belong to a word."""


def milliseconds(seconds: float) -> int:
    """``seconds`` as whole milliseconds, never negative."""
    return max(0, round(seconds * 1000))


def clock(ms: int, separator: str) -> str:
    """``HH:MM:SS`` + separator + milliseconds; hours always, and as many as there are."""
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{separator}{ms:03d}"


def cue_text(text: str) -> str:
    """One line of cue text: stripped, without line breaks or the arrow that ends a cue header."""
    return " ".join(text.split()).replace("-->", "->")


def srt_cue(number: int, segment: Segment) -> str:
    """One SRT cue with its blank line; ``number`` starts at 1."""
    start, end = _span(segment, ",")
    return f"{number}\n{start} --> {end}\n{cue_text(segment.text)}\n\n"


def vtt_cue(segment: Segment) -> str:
    """One WebVTT cue with its blank line."""
    start, end = _span(segment, ".")
    return f"{start} --> {end}\n{_escape_vtt(cue_text(segment.text))}\n\n"


def to_text(transcript: Transcript) -> str:
    """The text and one line feed."""
    return transcript.text + "\n"


def to_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues and one more line feed at the end."""
    cues = (srt_cue(n, segment) for n, segment in enumerate(_spoken(transcript), 1))
    return "".join(cues) + "\n"


def to_vtt(transcript: Transcript) -> str:
    """WebVTT (W3C), hours always."""
    return "WEBVTT\n\n" + "".join(vtt_cue(segment) for segment in _spoken(transcript))


PLAIN: dict[str, Callable[[Transcript], str]] = {
    "text": to_text,
    "srt": to_srt,
    "vtt": to_vtt,
}
"""The formats that are plain text."""


def to_json(
    transcript: Transcript,
    *,
    return_timestamps: bool = False,
    logprobs: bool = False,
    detected: bool = False,
) -> dict[str, Any]:
    """OpenAI's ``json`` body, with the old server's three-key segments where asked for.

    ``detected`` says that the language was not given, and has it told as OpenAI does.
    """
    body: dict[str, Any] = {"text": transcript.text}
    if return_timestamps:
        body["segments"] = [_old_segment(segment) for segment in transcript.segments]
    if logprobs:
        body["logprobs"] = [
            token_logprob(entry) for segment in transcript.segments for entry in segment.logprobs
        ]
    if detected:
        sure = transcript.language_probability >= SURE
        body["languages"] = [{"code": transcript.language}] if sure else []
    body["usage"] = usage(transcript.duration)
    return body


def to_verbose_json(
    transcript: Transcript,
    *,
    granularities: Iterable[Granularity] = ("segment",),
    return_timestamps: bool = False,
) -> dict[str, Any]:
    """OpenAI's ``verbose_json`` body: key order and presence as the live API has them."""
    wanted = set(granularities) or {"segment"}
    translated = transcript.task == "translate"
    body: dict[str, Any] = {
        "task": transcript.task,
        "language": english_name("en" if translated else transcript.language),
        "duration": round(transcript.duration, 6),
        "text": transcript.text,
    }
    if "segment" in wanted:
        body["segments"] = [
            verbose_segment(segment, old_times=return_timestamps) for segment in transcript.segments
        ]
    if "word" in wanted:
        body["words"] = [entry for word in transcript.words if (entry := verbose_word(word))]
    if not translated:
        body["usage"] = usage(transcript.duration)
    return body


def verbose_segment(segment: Segment, *, old_times: bool = False) -> dict[str, Any]:
    """OpenAI's ten segment fields; ``old_times`` adds the old server's two."""
    start, end = milliseconds(segment.start), milliseconds(segment.end)
    entry: dict[str, Any] = {
        "id": segment.id,
        "seek": segment.seek,
        "start": start / 1000,
        "end": end / 1000,
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    }
    if old_times:
        entry |= {"start_time_ms": start, "end_time_ms": end}
    return entry


def verbose_word(word: Word) -> dict[str, Any] | None:
    """A word as OpenAI writes it, without spaces or punctuation; None where nothing is left."""
    text = _bare(word.text)
    if not text:
        return None
    return {
        "word": text,
        "start": milliseconds(word.start) / 1000,
        "end": milliseconds(word.end) / 1000,
    }


def token_logprob(entry: TokenLogprob) -> dict[str, Any]:
    """One item of OpenAI's ``logprobs``."""
    return {"token": entry.token, "logprob": entry.logprob, "bytes": list(entry.bytes)}


def usage(duration: float) -> dict[str, Any]:
    """OpenAI's duration usage: whole seconds, rounded up."""
    return {"type": "duration", "seconds": math.ceil(round(duration, 3))}


def _bare(text: str) -> str:
    """``text`` without spaces and punctuation at its ends."""
    kept = [i for i, char in enumerate(text) if not _is_edge(char)]
    return text[kept[0] : kept[-1] + 1] if kept else ""


def _is_edge(char: str) -> bool:
    return char.isspace() or (unicodedata.category(char)[0] == "P" and char not in _KEPT)


def _old_segment(segment: Segment) -> dict[str, Any]:
    return {
        "start_time_ms": milliseconds(segment.start),
        "end_time_ms": milliseconds(segment.end),
        "text": segment.text.strip(),
    }


def _spoken(transcript: Transcript) -> Iterable[Segment]:
    return (segment for segment in transcript.segments if segment.text.strip())


def _span(segment: Segment, separator: str) -> tuple[str, str]:
    start = milliseconds(segment.start)
    end = max(milliseconds(segment.end), start + 1)
    return clock(start, separator), clock(end, separator)


def _escape_vtt(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
