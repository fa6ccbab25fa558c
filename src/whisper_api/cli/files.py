"""What ``transcribe`` reads and writes: audio files found, results put beside them whole."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from whisper_api.audio.media import EXTENSIONS
from whisper_api.errors import SettingsError

ENDINGS = {"text": "txt", "srt": "srt", "vtt": "vtt", "json": "json", "verbose_json": "json"}
"""Format -> file ending."""


@dataclass(frozen=True, slots=True)
class Job:
    """One audio file and where its transcript goes."""

    source: Path
    target: Path

    @property
    def size(self) -> int:
        """Bytes of the audio."""
        return self.source.stat().st_size


def plan_jobs(patterns: Iterable[str], output_dir: Path | None, ending: str) -> list[Job]:
    """Every audio file that ``patterns`` (files, folders, globs) name, each once, in order.

    Folders are searched through; inside ``output_dir`` their structure is kept. Where two
    sources of one folder differ only in their ending, the results keep it (``a.mp3.srt``).

    Raises:
        SettingsError: a pattern names nothing.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        for path, base in _expand(pattern):
            found.setdefault(path.absolute(), base.absolute())
    stems = Counter(path.with_suffix("") for path in found)
    jobs = []
    for path, base in found.items():
        folder = path.parent
        if output_dir is not None:
            folder = output_dir / path.parent.relative_to(base)
        stem = path.name if stems[path.with_suffix("")] > 1 else path.stem
        jobs.append(Job(path, folder / f"{stem}.{ending}"))
    return _apart(jobs)


def _expand(pattern: str) -> list[tuple[Path, Path]]:
    """The files of one pattern, each with the folder that its place is relative to."""
    path = Path(pattern).expanduser()
    if path.is_file():
        return [(path, path.parent)]
    if path.is_dir():
        inside = sorted(item for item in path.rglob("*") if item.is_file() and _is_audio(item))
        if not inside:
            raise SettingsError(f"{pattern}: no audio files in this folder")
        return [(item, path) for item in inside]
    matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    files = [item for item in matches if item.is_file() and _is_audio(item)]
    if not files:
        raise SettingsError(f"{pattern}: no such file or folder, and no audio file matches it")
    return [(item, item.parent) for item in files]


def _is_audio(path: Path) -> bool:
    return path.suffix.lower().removeprefix(".") in EXTENSIONS and not path.name.startswith(".")


def _apart(jobs: list[Job]) -> list[Job]:
    """Refuse two sources with one target (same names from different folders).

    Raises:
        SettingsError: two results would overwrite each other.
    """
    taken: dict[Path, Path] = {}
    for job in jobs:
        if (other := taken.setdefault(job.target, job.source)) != job.source:
            raise SettingsError(
                f"{other} and {job.source} would both be written to {job.target}; "
                "name their common folder instead, or run them apart"
            )
    return jobs


def write_whole(path: Path, text: str) -> None:
    """Put ``text`` at ``path``: all of it, or, when anything goes wrong, nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".whisper-api-", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        # mkstemp's files are private; a result is an ordinary file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
