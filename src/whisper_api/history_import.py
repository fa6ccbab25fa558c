"""The folders that older servers of this kind kept: ``history/YYYY-MM-DD/*.json``.

Each file is one answer as it was sent. Its name begins with the time in milliseconds and holds
the caller's file name. Files are read tolerantly: what is missing is worked out or left empty.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from whisper_api.audio.media import display_name
from whisper_api.errors import InvalidOption
from whisper_api.languages import parse_language
from whisper_api.records import NewRecord
from whisper_api.types import Segment, Transcript

UNKNOWN_LANGUAGE = "und"
"""ISO's code for a language that nobody knows."""
LARGEST_FILE = 256 << 20
_NAME = re.compile(r"(?P<ms>\d{12,14})_(?P<name>.+)_[a-z0-9]{4}")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_STARTS, _ENDS = ("start_time_ms", "start"), ("end_time_ms", "end")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that holds no transcript."""

    path: Path
    reason: str


def old_files(folder: Path) -> list[Path]:
    """The JSON files of an old history, or of one of its days, in order."""
    return sorted(path for path in folder.rglob("*.json") if path.is_file())


def read_all(paths: list[Path], owner: str, language: str | None) -> Iterator[
    NewRecord | Unreadable
]:  # fmt: skip
    """A record for each file, for the key ``owner``; ``language`` where a file names none."""
    for path in paths:
        try:
            yield _read(path, owner, language or UNKNOWN_LANGUAGE)
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            yield Unreadable(path, reason or type(error).__name__)


def _read(path: Path, owner: str, language: str) -> NewRecord:
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError("too large")
    raw = path.read_bytes()
    content = json.loads(raw.decode("utf-8-sig"))
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    inner = content.get("result")
    answer: dict[str, Any] = content | inner if isinstance(inner, dict) else content
    parts = _NAME.fullmatch(path.stem)
    given = answer.get("original_filename") or answer.get("filename")
    name = str(given or (parts["name"] if parts else path.stem))
    transcript = _transcript(answer, language)
    seconds = _number(answer.get("processing_time"))
    return NewRecord(
        transcript=transcript,
        owner=owner,
        name=display_name(name),
        source="import",
        timings={} if seconds is None else {"processing_seconds": seconds},
        # The same file gives the same id: a second import adds nothing.
        id=f"tr_{hashlib.sha256(path.name.encode() + raw).hexdigest()[:24]}",
        created_at=_moment(path, parts["ms"] if parts else None),
    )


def _transcript(answer: dict[str, Any], language: str) -> Transcript:
    code = _language(answer.get("language")) or language
    segments = list(_segments(answer, code))
    text = answer.get("text")
    if not isinstance(text, str) and not segments:
        raise ValueError("no text and no segments")
    end = max((segment.end for segment in segments), default=0.0)
    said = _number(answer.get("duration_seconds", answer.get("duration")))
    duration = max(said or 0.0, end)
    if not segments and isinstance(text, str) and text.strip():
        segments = [_segment(0, 0.0, duration, text, code)]
    model = answer.get("model")
    return Transcript(
        task="translate" if answer.get("task") == "translate" else "transcribe",
        language=code,
        language_probability=0.0,
        duration=duration,
        segments=tuple(segments),
        model=model if isinstance(model, str) and model else "unknown",
    )


def _segments(answer: dict[str, Any], language: str) -> Iterator[Segment]:
    """The answer's segments in order; later ones begin no earlier than earlier ones end."""
    items = answer.get("segments") or answer.get("chunks") or []
    last, number = 0.0, 0
    for item in items if isinstance(items, list) else []:
        if not isinstance(item, dict) or not isinstance(item.get("text"), str):
            continue
        stamp = item.get("timestamp")
        pair = stamp if isinstance(stamp, list) and len(stamp) == 2 else (None, None)
        start = _time(item, _STARTS, pair[0])
        end = _time(item, _ENDS, pair[1])
        start = max(last, start if start is not None else last)
        last = max(start, end if end is not None else start)
        if item["text"].strip():
            yield _segment(number, start, last, item["text"], language)
            number += 1


def _segment(number: int, start: float, end: float, text: str, language: str) -> Segment:
    spaced = f" {' '.join(text.split())}"
    figures = (0.0, 0.0, 0.0, 0.0)
    return Segment(number, round(start * 100), start, end, spaced, (), *figures, language)


def _time(item: dict[str, Any], names: tuple[str, str], other: Any) -> float | None:
    milliseconds, seconds = (_number(item.get(name)) for name in names)
    if milliseconds is not None:
        return milliseconds / 1000
    return seconds if seconds is not None else _number(other)


def _number(value: Any) -> float | None:
    """A finite number that is not negative; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < 1e9 else None


def _language(value: Any) -> str | None:
    try:
        return parse_language(value) if isinstance(value, str) else None
    except InvalidOption:
        return None


def _moment(path: Path, milliseconds: str | None) -> float:
    """When the answer was given: by the file's name, its folder's, or its own time."""
    if milliseconds is not None:
        return int(milliseconds) / 1000
    if _DAY.fullmatch(path.parent.name):
        try:
            return datetime.fromisoformat(path.parent.name).replace(hour=12, tzinfo=UTC).timestamp()
        except ValueError:
            pass
    return path.stat().st_mtime
