"""How right the bundled model is, measured through the server's own pipeline.

    python benchmarks/accuracy.py --held training/data [--digits FOLDER] [--count 360]

``--held`` is a folder with the held-out voices that ``training/data.py`` makes, among them two
recorded speakers with a foreign accent, measured apart; ``--digits`` one with recordings of people
named ``{digit}_{speaker}_{n}.wav``. Prints a table and, with ``--json FILE``, writes the figures.
Only English digits of people are there to be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import tempfile
import time
import wave
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whisper_api.config import load_settings
from whisper_api.runtime import Runtime, open_runtime
from whisper_api.types import Options, Task, Transcript

RATE = 16_000
# The parts of the grammar that make a set, and that set's share of all clips.
SETS = {
    "numbers": (("digit", "string", "number"), 0.50),
    "dates_times_phones": (("date", "time", "phone"), 0.17),
    "letters": (("letters",), 0.05),
    "everyday": (("everyday",), 0.28),
}
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
Audio = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """A recording and what is said in it."""

    audio: Audio
    language: str
    words: tuple[str, ...]
    times: tuple[tuple[float, float], ...] = ()  # seconds of each word
    english: tuple[str, ...] = ()  # the same in English
    group: str = ""


def held_out(
    folder: Path, language: str, count: int, longest: float = 12.0, files: str = "held-*.json"
) -> list[Clip]:
    """Random utterances of held-out voices from every set, half a second of silence around."""
    groups: dict[str, list[Clip]] = defaultdict(list)
    names = {kind: name for name, (kinds, _) in SETS.items() for kind in kinds}
    for table in sorted(folder.glob(files)):
        samples = np.memmap(table.with_suffix(".i16"), dtype=np.int16, mode="r")
        for row in json.loads(table.read_text("utf-8")):
            at, length, lang, words, english, times, _, kind = row
            if lang == language and length < longest * RATE:
                audio = np.zeros(length + RATE, np.float32)
                audio[RATE // 2 : RATE // 2 + length] = samples[at : at + length] / 32768.0
                placed = tuple((a + 0.5, b + 0.5) for a, b in times)
                said, meant = (tuple(plain(" ".join(w))) for w in (words, english))
                clip = Clip(audio, lang, said, placed, meant, names[kind])
                groups[clip.group].append(clip)
    rng = np.random.default_rng(1)
    chosen: list[Clip] = []
    for name, (_, share) in SETS.items():
        some = groups[name]
        chosen += [some[i] for i in rng.permutation(len(some))[: round(count * share)]]
    return [chosen[i] for i in rng.permutation(len(chosen))]


def with_noise(clip: Clip, decibels: float, rng: np.random.Generator) -> Clip:
    """The clip under pink-like noise at a signal-to-noise ratio."""
    noise = np.cumsum(rng.standard_normal(clip.audio.size))
    noise = noise - np.convolve(noise, np.ones(160) / 160, "same")
    loud = clip.audio[np.abs(clip.audio) > 0.01]
    level = float(np.sqrt(np.mean(loud**2))) if loud.size else 0.1
    noise *= level * 10 ** (-decibels / 20) / np.sqrt(np.mean(noise**2))
    return replace(clip, audio=(clip.audio + noise).astype(np.float32))


def joined(clips: Sequence[Clip], gap: float = 0.6) -> Clip:
    """All clips one after another."""
    audio: list[Audio] = []
    words: list[str] = []
    times: list[tuple[float, float]] = []
    at = 0.0
    for clip in clips:
        audio += [clip.audio, np.zeros(int(gap * RATE), np.float32)]
        words += clip.words
        times += [(a + at, b + at) for a, b in clip.times]
        at += clip.audio.size / RATE + int(gap * RATE) / RATE
    return Clip(np.concatenate(audio), clips[0].language, tuple(words), tuple(times))


def silence_and_noise(count: int) -> list[Clip]:
    """Clips without speech: silence, noises, hums, tone sequences, clicks."""
    rng = np.random.default_rng(2)
    clips = []
    for number in range(count):
        n = int(rng.uniform(1, 8) * RATE)
        t = np.arange(n) / RATE
        match number % 5:
            case 0:
                audio = np.zeros(n)
            case 1:
                audio = rng.standard_normal(n) * 10 ** rng.uniform(-3, -0.7)
            case 2:
                walk = np.cumsum(rng.standard_normal(n))
                audio = walk / np.abs(walk).max() * 0.3
            case 3:
                notes = 110 * 2 ** (rng.integers(0, 36, n // 4000 + 1) / 12)
                audio = 0.3 * np.sin(2 * np.pi * np.cumsum(np.repeat(notes, 4000)[:n]) / RATE)
            case _:
                base = rng.choice([50, 60, 120, 400])
                audio = sum(0.1 / k * np.sin(2 * np.pi * base * k * t) for k in (1, 2, 3, 5))
        clips.append(Clip(np.asarray(audio, np.float32), "en", ()))
    return clips


def plain(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.sub(r"[^\w ]+", " ", text.lower()).split()


def distance(said: Sequence[str], heard: Sequence[str]) -> int:
    """Word edit distance (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for i, a in enumerate(said, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


async def transcribe(
    runtime: Runtime,
    clips: Iterable[Clip | Path],
    language: str | None = None,
    words: bool = False,
    task: Task = "transcribe",
) -> list[Transcript]:
    """All clips or files through the pipeline, eight at a time, in order."""
    gate = asyncio.Semaphore(8)
    longest = runtime.settings.chunk_length_s
    options = Options(language=language, task=task, word_timestamps=words, chunk_length_s=longest)
    with tempfile.TemporaryDirectory() as folder:

        async def one(number: int, clip: Clip | Path) -> Transcript:
            async with gate:
                path = clip if isinstance(clip, Path) else Path(folder) / f"{number}.wav"
                if isinstance(clip, Clip):
                    write_wave(path, clip.audio)
                return await runtime.transcribe_path(path, options)

        return await asyncio.gather(*(one(n, clip) for n, clip in enumerate(clips)))


def write_wave(path: Path, audio: Audio) -> None:
    """16-bit samples."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())


def word_error_rate(
    clips: Sequence[Clip], results: Sequence[Transcript], english: bool = False
) -> float:
    """Wrong words over said words."""
    truth = [clip.english if english else clip.words for clip in clips]
    wrong = sum(distance(t, plain(r.text)) for t, r in zip(truth, results, strict=True))
    return wrong / max(1, sum(len(t) for t in truth))


def by_set(
    clips: Sequence[Clip], results: Sequence[Transcript], name: str, english: bool = False
) -> dict[str, float]:
    """Word error rates of all clips and of each set."""
    figures = {name: word_error_rate(clips, results, english)}
    for group in SETS:
        pairs = [(c, r) for c, r in zip(clips, results, strict=True) if c.group == group]
        if pairs:
            some, heard = zip(*pairs, strict=True)
            figures[f"{name}_{group}"] = word_error_rate(some, heard, english)
    return figures


def time_errors(clips: Sequence[Clip], results: Sequence[Transcript]) -> dict[str, float]:
    """Median errors in seconds of first and last times, and of words where all were right."""
    edges: list[float] = []
    inner: list[float] = []
    for clip, result in zip(clips, results, strict=True):
        if not clip.times or not result.segments:
            continue
        edges.append(abs(result.segments[0].start - clip.times[0][0]))
        edges.append(abs(result.segments[-1].end - clip.times[-1][1]))
        found = [w for w in result.words if plain(w.text)]
        same = [plain(w.text)[0] for w in found] == list(clip.words)
        if same and len(clip.times) == len(clip.words):
            for word, (start, end) in zip(found, clip.times, strict=True):
                inner += [abs(word.start - start), abs(word.end - end)]
    return {
        "segment_time_error_s": statistics.median(edges) if edges else float("nan"),
        "word_time_error_s": statistics.median(inner) if inner else float("nan"),
    }


async def measure_language(
    runtime: Runtime, language: str, args: argparse.Namespace
) -> dict[str, float]:
    """The figures of one language; the language is not told, so that a wrong guess counts."""
    rng = np.random.default_rng(3)
    clips = held_out(args.held, language, args.count)
    results = await transcribe(runtime, clips, words=True)
    figures = {f"clips_{language}": float(len(clips))}
    figures |= by_set(clips, results, f"wer_{language}")
    figures |= {f"{k}_{language}": v for k, v in time_errors(clips, results).items()}
    found = sum(r.language == language for r in results)
    figures[f"language_detected_{language}"] = found / len(clips)
    accented = held_out(args.held, language, args.count, files="heldspeakers-*.json")
    if accented:
        texts = await transcribe(runtime, accented, language)
        figures |= by_set(accented, texts, f"wer_{language}_accented")
    noisy = [with_noise(clip, 10, rng) for clip in clips]
    heard = await transcribe(runtime, noisy, language)
    figures |= by_set(noisy, heard, f"wer_{language}_10db")
    short = held_out(args.held, language, 120, longest=2.6)
    for number in range(3):
        long = joined(short[number * 33 : number * 33 + 33], gap=0.3)
        (text,) = await transcribe(runtime, [long], language)
        figures[f"long_{language}_{number}_seconds"] = long.audio.size / RATE
        figures[f"long_{language}_{number}_wer"] = word_error_rate([long], [text])
    if language != "en":
        said = await transcribe(runtime, clips, language, task="translate")
        figures |= by_set(clips, said, f"translate_{language}", english=True)
    return figures


async def measure(runtime: Runtime, args: argparse.Namespace) -> dict[str, float]:
    """Every figure."""
    figures: dict[str, float] = {}
    for language in ("en", "ru"):
        figures |= await measure_language(runtime, language, args)
    quiet = await transcribe(runtime, silence_and_noise(200))
    figures["empty_on_non_speech"] = sum(not r.text for r in quiet) / len(quiet)
    if args.digits:
        files = sorted(args.digits.glob("*_*_*.wav"))
        results = await transcribe(runtime, files, "en")
        hits = [
            plain(r.text) == [DIGITS[int(f.name[0])]] for f, r in zip(files, results, strict=True)
        ]
        figures["human_digits"] = sum(hits) / len(files)
        for speaker in sorted({f.name.split("_")[1] for f in files}):
            own = [h for f, h in zip(files, hits, strict=True) if f.name.split("_")[1] == speaker]
            figures[f"human_digits_{speaker}"] = sum(own) / len(own)
    sample = [joined(held_out(args.held, "en", 20))]
    started = time.perf_counter()
    await transcribe(runtime, sample, "en")
    figures["real_time_factor"] = (time.perf_counter() - started) / (sample[0].audio.size / RATE)
    return figures


async def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held", type=Path, required=True)
    parser.add_argument("--digits", type=Path)
    parser.add_argument("--count", type=int, default=360)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    async with open_runtime(load_settings(None)) as runtime:
        figures = await measure(runtime, args)
    for name, value in figures.items():
        print(f"{name:28} {value:8.3f}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    asyncio.run(main())
