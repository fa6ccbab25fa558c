"""Measure the exported model on held-out synthetic voices, noise, silence, and a folder of human digits.

    python evaluate.py --human FOLDER --write     # figures and thresholds into the assets' MANIFEST.json

The thresholds come from the synthetic held-out set only; the human recordings are only reported.
"""

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from augment import Noises, add_noise
from engine import Engine, Heard
from short import compare
from text import EN_ONES, normalise, vocabulary
from tokens import EOT, TokenSet
from train import errors
from voices import RATE, to_rate
from windows import Corpus, Maker, Recipe, Utterance

HERE = Path(__file__).parent
ASSETS = HERE.parent / "src" / "whisper_api" / "assets"


@dataclass
class Tally:
    """Wrong words over words."""

    wrong: int = 0
    words: int = 0

    def add(self, said: list[str], heard: str) -> int:
        truth = normalise(" ".join(said))
        wrong = errors(truth, normalise(heard))
        self.wrong += wrong
        self.words += len(truth)
        return wrong

    @property
    def rate(self) -> float:
        return round(self.wrong / max(self.words, 1), 4)


@dataclass
class Score:
    """Everything seen on one set of utterances."""

    tally: Tally = field(default_factory=Tally)
    by_kind: dict[str, Tally] = field(default_factory=dict)
    languages: list[bool] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    words: list[float] = field(default_factory=list)
    right: list[Heard] = field(default_factory=list)


def hear(
    engine: Engine, item: Utterance, audio: np.ndarray, score: Score, beam: int, zero: bool
) -> None:
    """Decode one utterance that starts half a second into the audio."""
    states = engine.encode(audio, zero)
    score.languages.append(engine.language(states) == item.lang)
    heard = engine.decode(states, item.lang, beam=beam)
    wrong = score.tally.add(item.words, heard.text)
    score.by_kind.setdefault(item.kind, Tally()).add(item.words, heard.text)
    if wrong:
        return
    score.right.append(heard)
    if heard.segments:
        score.starts.append(abs(heard.segments[0][0] - 0.5 - item.times[0][0]))
        score.ends.append(abs(heard.segments[-1][1] - 0.5 - item.times[-1][1]))
    times = engine.word_times(states, item.lang, heard, min(len(audio) // 160, 3000))
    if len(times) == len(item.words):
        for (start, end), (true_start, true_end) in zip(times, item.times, strict=True):
            score.words += [abs(start - 0.5 - true_start), abs(end - 0.5 - true_end)]


def held_out(
    engine: Engine, corpus: Corpus, lang: str, count: int, snr: float | None, beam: int
) -> Score:
    """Single utterances of voices never trained on."""
    rng, noises, score = np.random.default_rng(101), Noises(991, 12), Score()
    for number in range(count):
        item = corpus.pick(rng, lang, 9)
        assert item is not None
        audio = np.zeros(len(item.samples) + RATE, np.float32)
        audio[RATE // 2 : RATE // 2 + len(item.samples)] = item.samples.astype(np.float32) / 32768
        if snr is not None:
            audio = add_noise(rng, audio, noises.take(rng, len(audio)), snr)
            audio /= max(1.0, float(np.abs(audio).max()))
        hear(engine, item, audio, score, beam, bool(number % 2))
    return score


def several(
    engine: Engine, corpus: Corpus, lang: str, seconds: float, count: int
) -> dict[str, float]:
    """Windows of some seconds with several phrases, timestamps on."""
    maker = Maker(corpus, Noises(991, 5), TokenSet.of_words(vocabulary()))
    share = 1.0 if lang == "en" else 0.0
    recipe = Recipe(seconds, 0.0, 1.0, full=True, nothing=0, translate=0, prompt=0, english=share)
    tally, gaps = Tally(), []
    for number in range(count):
        window = maker.window(np.random.default_rng([313, number]), recipe)
        if not window.placed or window.placed[0][1] > 1:
            continue
        said = [w for words, _, _ in window.placed for w in words]
        heard = engine.decode(engine.encode(window.audio[: window.valid], bool(number % 2)), lang)
        tally.add(said, heard.text)
        if len(heard.segments) == len(window.placed):
            pairs = zip(heard.segments, window.placed, strict=True)
            gaps += [
                abs(x - y) for (s, e), (_, start, end) in pairs for x, y in ((s, start), (e, end))
            ]
    return {
        "wer": tally.rate,
        "words": tally.words,
        "segment_error": round(float(np.median(gaps or [9])), 3),
    }


def translation(engine: Engine, corpus: Corpus, count: int) -> float:
    """Word error rate of Russian speech written in English."""
    rng, tally = np.random.default_rng(17), Tally()
    for _ in range(count):
        item = corpus.pick(rng, "ru", 9)
        assert item is not None
        states = engine.encode(item.samples.astype(np.float32) / 32768)
        tally.add(item.english, engine.decode(states, "ru", translate=True).text)
    return tally.rate


def non_speech(engine: Engine, count: int) -> list[Heard]:
    """Silence, noise, hum, clicks and music-like tones."""
    rng, noises, found = np.random.default_rng(55), Noises(4321, 25), []
    for number in range(count):
        length = int(rng.uniform(1, 30) * RATE)
        level = 0.0 if number % 10 == 0 else 10 ** rng.uniform(-3.5, -0.8)
        audio = np.clip(noises.take(rng, length) * level, -1, 1).astype(np.float32)
        states = engine.encode(audio, bool(number % 2))
        found.append(engine.decode(states, engine.language(states)))
    return found


def human_digits(engine: Engine, folder: Path) -> dict[str, float]:
    """Files named DIGIT_SPEAKER_N.wav, by speaker; language given, and how often it is found."""
    right: dict[str, list[bool]] = {}
    english, guessed = [], []
    for path in sorted(folder.glob("[0-9]_*_*.wav")):
        digit, speaker, _ = path.stem.split("_")
        samples, rate = soundfile.read(path, dtype="float32")
        states = engine.encode(to_rate(samples, rate))
        wanted = [EN_ONES[int(digit)]]
        right.setdefault(speaker, []).append(normalise(engine.decode(states, "en").text) == wanted)
        english.append(engine.language(states) == "en")
        guessed.append(
            normalise(engine.decode(states, "en", timestamps=False, beam=1).text) == wanted
        )
    everyone = [v for values in right.values() for v in values]
    result = {name: round(float(np.mean(values)), 3) for name, values in right.items()}
    return result | {
        "all": round(float(np.mean(everyone)), 4), "clips": len(everyone),
        "beam_1_no_timestamps": round(float(np.mean(guessed)), 4), "language_found": round(float(np.mean(english)), 4),
    }  # fmt: skip


def thresholds(right: list[Heard], silent: list[Heard]) -> dict[str, float]:
    """Set where nearly all right answers pass: log-probability, no-speech, compression ratio."""
    speech = float(np.quantile([h.no_speech for h in right], 0.99))
    nothing = float(np.quantile([h.no_speech for h in silent], 0.05))
    return {
        "log_prob_threshold": round(
            min(-0.5, float(np.quantile([h.log_prob for h in right], 0.005)) - 0.1), 2
        ),
        "no_speech_threshold": round(min(max((speech + nothing) / 2, 0.2), 0.8), 2),
        "compression_ratio_threshold": round(max(2.4, max(h.compression for h in right) * 1.15), 2),
    }


def speed(engine: Engine) -> float:
    """Seconds of work for a second of audio, one core, full 30 s windows, beam 5."""
    audio = np.random.default_rng(1).standard_normal(30 * RATE).astype(np.float32) * 0.01
    engine.decode(engine.encode(audio), "en")
    began = time.perf_counter()
    for _ in range(5):
        states = engine.encode(audio)
        engine.language(states)
        engine.decode(states, "en")
    return round((time.perf_counter() - began) / 150, 4)


def measure(
    engine: Engine, human: Path | None, count: int, beam: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """All figures, and the thresholds that follow from them."""
    corpus, figures, right = Corpus(HERE / "data", held=True), {}, []
    for lang in ("en", "ru"):
        clean = held_out(engine, corpus, lang, count, None, beam)
        noisy = held_out(engine, corpus, lang, count // 2, 10.0, beam)
        right += clean.right + noisy.right
        figures[lang] = {
            "held_out_voices_wer": clean.tally.rate, "words": clean.tally.words,
            "noise_10db_wer": noisy.tally.rate, "language_found": round(float(np.mean(clean.languages)), 4),
            "by_kind": {k: v.rate for k, v in sorted(clean.by_kind.items())},
            "start_error": round(float(np.median(clean.starts or [9])), 3),
            "end_error": round(float(np.median(clean.ends or [9])), 3),
            "word_error": round(float(np.median(clean.words or [9])), 3),
            "phrases_8s": several(engine, corpus, lang, 8, count // 3),
            "phrases_15s": several(engine, corpus, lang, 15, count // 3),
            "phrases_30s": several(engine, corpus, lang, 30, count // 3),
        }  # fmt: skip
        print(lang, json.dumps(figures[lang]), flush=True)
    silent = non_speech(engine, count)
    limits = thresholds(right, silent)
    limit = limits["no_speech_threshold"]
    empty = [not any(i < EOT for i in h.ids) or h.no_speech > limit for h in silent]
    lost = [h.no_speech > limit for h in right]
    figures["non_speech"] = {"clips": count, "empty": round(float(np.mean(empty)), 4),
                             "speech_called_silence": round(float(np.mean(lost)), 4)}  # fmt: skip
    figures["translation_ru_en_wer"] = translation(engine, corpus, count // 2)
    figures["real_time_factor"] = speed(engine)
    if human is not None:
        figures["human_digits"] = human_digits(engine, human)
    return figures, limits


def main() -> None:
    """Read the arguments, measure, print, and perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--human", type=Path, help="folder of human digits (never trained on)")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the figures into MANIFEST.json")
    options = parser.parse_args()
    figures, limits = measure(
        Engine(options.assets / "bundled"), options.human, options.count, options.beam
    )
    print(json.dumps({"metrics": figures, "decoding": limits}, indent=1))
    if options.write:
        path = options.assets / "MANIFEST.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        wide = all(
            figures[k]["phrases_30s"]["wer"] <= 1.5 * figures[k]["phrases_8s"]["wer"] + 0.02
            for k in ("en", "ru")
        )
        model = options.assets / "bundled"
        figures["short_windows"] = compare(model.resolve(), options.human, options.count)
        told = {
            "window_seconds": 30 if wide else 8,
            "short_windows": figures["short_windows"]["allowed"],
        }
        manifest |= {"metrics": figures, "decoding": limits | told}
        path.write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
