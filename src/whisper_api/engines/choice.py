"""Which encoder and decoder a model gets on this machine: the fastest.

All are tried on noise when the model is first loaded; an encoder that does not agree with
CTranslate2's own is not taken. With parts of the machine idle a slower one may answer sooner: what
counts is the work done by all of it. What was found is kept in
``<data_dir>/encoders.json`` for the same processor, libraries, threads and model. Deleting that
file has everything measured again.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from whisper_api.engines.base import DecodeParams
from whisper_api.engines.encoder import Encoder
from whisper_api.engines.encodings import Encoding
from whisper_api.engines.placement import Placement, cores
from whisper_api.engines.trim import trim
from whisper_api.engines.writer import Writer
from whisper_api.types import SAMPLE_RATE, Audio

if TYPE_CHECKING:
    from whisper_api.models import ModelFiles

log = logging.getLogger(__name__)

FILE = "encoders.json"
OWN = "ctranslate2"
LIBRARIES = ("ctranslate2", "openvino")
ENCODER, DECODER = "encoder", "decoder"
_ROUNDS = 3
PROBED = 8  # windows that decoders are tried with: a usual batch
_STEPS = 2, 20  # what lies between is taken three times: one disturbed run must not decide
_LONG = 10.0  # seconds after which decoders are not tried once more
_TOKENS = 60  # in a window of 30 s, usually
_FAR_SCORE = 0.5  # difference of log-probabilities at which a decoder counts as broken
_SLOW = 2.0  # seconds of a first run that make further ones a waste
_GAIN = 0.9  # another part takes memory of its own: it must be this much faster
_UNABLE = RuntimeError, MemoryError  # of a part that does not run or fit here
_FAR = 0.25
"""Relative distance (L2) from CTranslate2's output at which an encoder counts as broken. Quantized
encoders of large models differ from each other by a tenth on noise."""

Makers = Mapping[str, Callable[[], Encoder]]


@dataclass(frozen=True, slots=True)
class Findings:
    """Seconds that the same work took each; only those that are right."""

    seconds: dict[str, float]
    window: float  #: seconds of audio, or windows
    part: str = ENCODER

    @property
    def best(self) -> str:
        """The name of the one to use."""
        others = {name: value for name, value in self.seconds.items() if name != OWN}
        fastest = min(others, key=lambda name: others[name], default=OWN)
        own = self.seconds.get(OWN)
        return OWN if own is not None and others.get(fastest, own) > _GAIN * own else fastest

    def __str__(self) -> str:
        ranked = sorted(self.seconds.items(), key=lambda pair: pair[1])
        times = ", ".join(f"{name} {value:.3g} s" for name, value in ranked)
        work = f"{self.window:g} s of audio" if self.part == ENCODER else f"{self.window:g} windows"
        return f"{self.part} {self.best}, measured on {work}: {times}"


def choose_encoder(
    own: Encoder, makers: Makers, window: float, memory: Memory, own_competes: bool = True
) -> tuple[str, Encoder, str]:
    """Name, encoder and reason; ``makers`` build the rivals of CTranslate2's ``own``.

    Raises:
        RuntimeError: ``own`` does not compete and no other one works here.
    """
    if not makers:
        return OWN, own, "no other encoder has this number format"
    if len(makers) == 1 and not own_competes:
        ((name, make),) = makers.items()
        return name, make(), f"encoder {name}, as set"
    known = memory.recall()
    if known and (known.best == OWN or known.best in makers):
        with suppress(*_UNABLE):  # it ran once and does not now: measured again
            return known.best, own if known.best == OWN else makers[known.best](), str(known)
    seconds, last = {}, None
    sound = _noise(window)
    expected, took = _time(own, sound)
    if own_competes:
        seconds[OWN] = took
    for name, make in makers.items():
        last = None  # one at a time: the weights of two would be a large model's worst moment
        try:
            last = name, make()
            encoding, took = _time(last[1], sound)
        except _UNABLE as error:
            log.warning("the encoder %s does not run here: %s", name, _said(error))
            continue
        if distance(encoding, expected) > _FAR:
            log.warning("the encoder %s is wrong on this machine and is not used", name)
            continue
        seconds[name] = took
    findings = Findings(seconds, window)
    if not seconds:
        raise RuntimeError(f"none of the encoders {', '.join(makers)} works on this machine")
    memory.keep(findings)
    best = findings.best
    if last and last[0] == best:
        return best, last[1], str(findings)
    last = None
    return best, own if best == OWN else makers[best](), str(findings)


def choose_writer(
    own: Writer, name: str, make: Callable[[], Writer], noise: Encoding, start: int, memory: Memory
) -> tuple[Writer, str]:
    """A decoder and the reason; ``make`` builds the rival ``name`` of CTranslate2's ``own``.

    They are tried on ``noise`` in the place of a window's encoding; ``start`` is the first token.
    """
    known = memory.recall()
    if known and known.best == OWN:
        return own, str(known)
    try:
        rival = make()
        if known:
            return rival, str(known)
        if not _agree(own, rival, noise, start):
            log.warning("the decoder %s is wrong on this machine and is not used", name)
            return own, f"decoder {OWN}: {name} is wrong here"
        seconds = _race({OWN: own, name: rival}, noise)
    except _UNABLE as error:
        log.warning("the decoder %s does not run here: %s", name, _said(error))
        return own, f"decoder {OWN}: {name} does not run here (see the log)"
    findings = Findings(seconds, PROBED, DECODER)
    memory.keep(findings)
    return own if findings.best == OWN else rival, str(findings)


def _said(error: Exception) -> str:
    return str(error) or "memory is short"


def _agree(own: Writer, rival: Writer, noise: Encoding, start: int) -> bool:
    """Whether both find the likeliest first token about equally likely."""
    params = DecodeParams("en", beam_size=1, max_new_tokens=1)
    scores = [one.write([noise], [[start]], params)[0].found.score for one in (own, rival)]
    return abs(scores[0] - scores[1]) < _FAR_SCORE


def _race(writers: Mapping[str, Writer], noise: Encoding) -> dict[str, float]:
    """Seconds that texts of usual length take each decoder for ``PROBED`` windows.

    From the first tokens, which take the windows' cross-attention keys with them, and what some
    more take: whole texts of large models would keep a server from starting for minutes. They run
    in turns, and the best counts, since others may use the machine meanwhile. The windows' memory
    of both at once would be more than serving ever takes, so each has its own anew in its turn.
    """
    best = {name: [float("inf")] * len(_STEPS) for name in writers}
    spent = 0.0
    for _ in range(_ROUNDS):
        for name, writer in writers.items():
            _seconds(writer, noise, 1)  # warms up
            for place, steps in enumerate(_STEPS):
                took = _seconds(writer, noise, steps)
                best[name][place], spent = min(best[name][place], took), spent + took
            writer.shrink()
            trim()
        if spent > _LONG:
            break
    each = {
        name: max(0.0, more - few) / (_STEPS[1] - _STEPS[0]) for name, (few, more) in best.items()
    }
    return {name: best[name][0] + each[name] * (_TOKENS - _STEPS[0]) for name in writers}


def _seconds(writer: Writer, noise: Encoding, steps: int) -> float:
    """All streams of a decoder at once share the windows, as they share the machine's memory."""
    windows = [noise] * max(1, PROBED // writer.streams)
    with ThreadPoolExecutor(writer.streams) as pool:
        started = perf_counter()
        runs = [pool.submit(writer.probe, windows, steps) for _ in range(writer.streams)]
        for run in runs:
            run.result()
        took = perf_counter() - started
    return took * PROBED / (len(windows) * writer.streams)


def distance(found: Encoding, expected: Encoding) -> float:
    """Relative distance of two encodings (L2); infinite where their shapes differ."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@dataclass(frozen=True, slots=True)
class Memory:
    """What was found out before, in a file."""

    path: Path
    key: str

    @classmethod
    def of(
        cls, folder: Path, files: ModelFiles, place: Placement, choices: Sequence[object]
    ) -> Memory:
        """The memory in ``folder`` for a model on this machine; ``choices`` are what competes."""
        facts = [_here(files), place.replicas, place.threads, place.compute_type, *choices]
        return cls(folder / FILE, "; ".join(map(str, facts)))

    def recall(self) -> Findings | None:
        """None where nothing is known, or the file is not what this program wrote."""
        try:
            entry = self._entries()[self.key]
            seconds = {str(name): float(value) for name, value in entry["seconds"].items()}
            part = str(entry.get("part", ENCODER))
            return Findings(seconds, float(entry["window"]), part) if seconds else None
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def keep(self, findings: Findings) -> None:
        """Write; a folder that takes no files only means measuring again."""
        entry = {
            "seconds": findings.seconds,
            "window": findings.window,
            "part": findings.part,
        }
        text = json.dumps(self._entries() | {self.key: entry}, indent=1)
        fresh = self.path.with_name(f".{FILE}.{os.getpid()}")
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(self.path)

    def _entries(self) -> dict[str, Any]:
        return _read(self.path)


def measured(folder: Path, files: ModelFiles) -> str:
    """What was last measured for a model on this machine, in words; empty if nothing was."""
    path, here = folder / FILE, _here(files)
    found: dict[str, str] = {}
    for key in reversed(_read(path)):
        if key.startswith(f"{here}; ") and (findings := Memory(path, key).recall()):
            found.setdefault(findings.part, str(findings))
    return "; ".join(found[part] for part in sorted(found, reverse=True))


def _read(path: Path) -> dict[str, Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _here(files: ModelFiles) -> str:
    """This machine, the libraries and the model."""
    facts = [_processor(), f"{cores()} cores", *(f"{name} {_version(name)}" for name in LIBRARIES)]
    facts += [files.id, str((files.path / "model.bin").stat().st_size)]
    return "; ".join(facts)


def _time(encoder: Encoder, sound: Audio) -> tuple[Encoding, float]:
    """An encoding, and the least seconds it took; the first run also warms up."""
    times: list[float] = []
    while len(times) <= _ROUNDS:
        started = perf_counter()
        (encoding,) = encoder.encode([sound])
        times.append(perf_counter() - started)
        if times[0] > _SLOW and len(times) > 1:
            break
    return encoding, min(times[1:]) / encoder.streams


def _noise(seconds: float) -> Audio:
    """Noise that swells and fades four times a second, like syllables."""
    count = int(seconds * SAMPLE_RATE)
    noise = np.random.default_rng(0).standard_normal(count, np.float32)
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * np.arange(count) / SAMPLE_RATE)
    return (0.1 * noise * swell).astype(np.float32)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "missing"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
