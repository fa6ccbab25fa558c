"""From shards of utterances to training windows: audio, tokens, word spans, CTC targets."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from augment import (
    Noises,
    add_noise,
    cut_weak_ends,
    faint_hisses,
    finish,
    shape,
    speed,
    telephone,
    wobble,
)
from model import CTC_LETTERS
from text import random_phrase
from tokens import (
    EOT,
    FIRST_TIME,
    LANG_IDS,
    NO_TIMESTAMPS,
    PREV,
    SOT,
    TRANSCRIBE,
    TRANSLATE,
    TokenSet,
    word_ids,
)  # fmt: skip

RATE = 16000
COUNTED = ("digit", "string", "number")  # said word by word in either language
FRAME = 320  # samples in one encoder position, and in one timestamp step
RECORDED = ("diphones:", "rhvoice:", "pico:")  # voices of people, of whom there are few
Span = tuple[int, float, float]  # row of the decoder's input, first and last encoder position


@dataclass
class Utterance:
    """A stored recording: where its samples lie, what is said, and when."""

    samples: np.ndarray
    lang: str
    words: list[str]
    english: list[str]
    times: list[list[float]]
    voice: str
    kind: str


class Said(NamedTuple):
    """An utterance as it lies in a window."""

    item: Utterance
    start: float  # seconds; below 0 where its beginning was cut off
    tempo: float
    end: float  # seconds


@dataclass
class Recipe:
    """How the windows of a stage look."""

    seconds: float
    strength: float = 1.0
    timestamps: float = 0.3
    full: bool = False  # the layout of long windows: 1 to 8 phrases, the first within 1 s or later
    nothing: float = 0.05
    translate: float = 0.1
    prompt: float = 0.1
    english: float = 0.5
    words: float = 0.3  # how often a phrase is taken from those that are no plain numbers


@dataclass
class Window:
    """One sample."""

    audio: np.ndarray
    valid: int  # samples before the padding
    zero_features: bool
    lang: str
    tempo: float = 1.0
    mouth: float = 0.0  # the factor on formants that the mel filters make; 0: none
    tokens: list[int] = field(default_factory=list)  # Whisper's ids
    loss_from: int = 0
    spans: list[Span] = field(default_factory=list)
    ctc: str = ""
    placed: list[tuple[list[str], float, float]] = field(default_factory=list)


class Corpus:
    """All shards of a folder, split into trained and held-out voices; recorded people `accents` times over."""

    def __init__(self, folder: Path, held: bool, accents: int = 1) -> None:
        self.items: dict[str, list[Utterance]] = {"en": [], "ru": []}
        for table in sorted(folder.glob("*.json")):
            if not table.name.startswith("held-") if held else table.name.startswith("held"):
                continue
            samples = np.memmap(table.with_suffix(".i16"), dtype=np.int16, mode="r")
            for at, length, lang, words, english, times, voice, kind in json.loads(
                table.read_text(encoding="utf-8")
            ):
                one = Utterance(samples[at : at + length], lang, words, english, times, voice, kind)
                self.items[lang] += [one] * (accents if voice.startswith(RECORDED) else 1)
        self.pools = {
            (lang, words_only): self._by_length(
                [u for u in some if not words_only or u.kind not in COUNTED]
            )
            for lang, some in self.items.items()
            for words_only in (False, True)
        }

    @staticmethod
    def _by_length(some: list[Utterance]) -> tuple[list[Utterance], np.ndarray]:
        some = sorted(some, key=lambda u: len(u.samples))
        return some, np.array([len(u.samples) for u in some])

    def pick(
        self, rng: np.random.Generator, lang: str, longest: float, words_only: bool = False
    ) -> Utterance | None:
        """A random utterance of at most that many seconds; `words_only` leaves numbers out."""
        some, lengths = self.pools[lang, words_only]
        count = int(np.searchsorted(lengths, longest * RATE))
        return some[int(rng.integers(count))] if count else None


class Maker:
    """Makes windows by a recipe."""

    def __init__(self, corpus: Corpus, noises: Noises, tokens: TokenSet) -> None:
        self.corpus, self.noises, self.tokens = corpus, noises, tokens

    def window(self, rng: np.random.Generator, recipe: Recipe) -> Window:
        """One window; a few hold no speech."""
        total = int(recipe.seconds * RATE)
        lang = "en" if rng.random() < recipe.english else "ru"
        window = Window(np.zeros(total, np.float32), total, False, lang)
        if rng.random() < 0.85 * min(1.0, recipe.strength + 0.2):
            window.tempo = float(np.exp(rng.uniform(-0.26, 0.26)))
            window.mouth = float(np.exp(rng.uniform(-0.26, 0.26))) / window.tempo**0.75
        said: list[Said] = []
        cut: float | None = None
        if rng.random() >= recipe.nothing:
            said, cut = self._place(rng, recipe, window)
        self._pad(rng, recipe, window, said, cut)
        self._distort(rng, recipe, window, bool(said))
        self._write(rng, recipe, window, said, cut)
        return window

    def _place(
        self, rng: np.random.Generator, recipe: Recipe, window: Window
    ) -> tuple[list[Said], float | None]:
        """Lay phrases into the window; returns them and where a cut phrase starts."""
        said: list[Said] = []
        room = recipe.seconds
        wanted = int(rng.integers(1, 9)) if recipe.full else (1 if rng.random() < 0.45 else 9)
        at = self._first_start(rng, recipe)
        while len(said) < wanted:
            factor = window.tempo * float(rng.uniform(0.96, 1.04))
            left = (room - at - 0.05) * factor
            words = recipe.words * (1.35 if window.lang == "ru" else 1.0)
            item = self.corpus.pick(rng, window.lang, left, rng.random() < words)
            if item is None:
                break
            audio = speed(item.samples.astype(np.float32) / 32768, factor)
            if len(audio) < 1.2 * RATE and rng.random() < 0.6 * recipe.strength:
                audio = wobble(rng, audio)  # in longer ones the words' times would drift
            audio = self._dynamics(rng, audio, recipe.strength)
            if rng.random() < 0.4 * recipe.strength:
                audio = faint_hisses(rng, audio)
            first = int(at * RATE)
            if first + len(audio) > len(window.audio):
                break
            shift, stop = 0, len(audio)
            if not said and not recipe.full and wanted == 1:
                shift, stop = self._cut_ends(rng, recipe, audio, item, factor)
                first = self._alone(rng, len(window.audio) - (stop - shift))
            audio = audio[shift:stop]
            window.audio[first : first + len(audio)] += audio * float(rng.uniform(0.6, 1.0))
            end = (first + len(audio)) / RATE
            said.append(Said(item, (first - shift) / RATE, factor, end))
            at = end + float(rng.exponential(0.7) + 0.22)
        cut = None
        if recipe.full and wanted > 5 and rng.random() < 0.5:
            cut = self._cut_phrase(rng, window, at)
        return said, cut

    @staticmethod
    def _cut_ends(
        rng: np.random.Generator, recipe: Recipe, audio: np.ndarray, item: Utterance, tempo: float
    ) -> tuple[int, int]:
        """What a tight cut leaves of a lone phrase: recordings often start in the word, and lack
        consonants that were weak. Letters would be guesswork without theirs."""
        often = 0.6 if item.kind in COUNTED else 0.0 if item.kind == "letters" else 0.2
        if rng.random() >= often * recipe.strength:
            return int(rng.uniform(0, 0.05) * RATE) if rng.random() < 0.3 else 0, len(audio)
        first, stop = cut_weak_ends(rng, audio)
        (start, end), (last_start, last_end) = item.times[0], item.times[-1]
        latest = int((0.4 * start + 0.6 * end) / tempo * RATE)  # most of the word stays
        earliest = int((0.4 * last_start + 0.6 * last_end) / tempo * RATE)
        return min(first, latest), max(stop, min(earliest, len(audio)))

    @staticmethod
    def _alone(rng: np.random.Generator, room: int) -> int:
        """Where a lone phrase starts."""
        return 0 if rng.random() < 0.45 else int(rng.uniform(0, 1) * min(room, 1.5 * RATE))

    @staticmethod
    def _dynamics(rng: np.random.Generator, audio: np.ndarray, strength: float) -> np.ndarray:
        """A slowly wandering loudness, as people have."""
        if rng.random() > 0.5 * strength:
            return audio
        knots = max(3, int(len(audio) / RATE * 5))
        gains = np.interp(
            np.arange(len(audio)), np.linspace(0, len(audio), knots), rng.normal(0, 4, knots)
        )
        return (audio * 10 ** (gains / 20)).astype(np.float32)

    def _first_start(self, rng: np.random.Generator, recipe: Recipe) -> float:
        if not recipe.full:
            return 0.0 if rng.random() < 0.3 else float(rng.uniform(0, 0.5))
        kind = rng.random()
        return (
            0.0
            if kind < 0.15
            else float(rng.uniform(0, 1))
            if kind < 0.75
            else float(rng.uniform(1, 8))
        )

    def _cut_phrase(self, rng: np.random.Generator, window: Window, at: float) -> float | None:
        """A last phrase that runs over the end of a full window: its start is told, its words are not."""
        item = self.corpus.pick(rng, window.lang, 9)
        first = len(window.audio) - int(rng.uniform(0.15, 0.7) * (len(item.samples) if item else 0))
        if item is None or first < at * RATE:
            return None
        window.audio[first:] += item.samples[: len(window.audio) - first].astype(np.float32) / 32768
        return first / RATE

    @staticmethod
    def _pad(
        rng: np.random.Generator,
        recipe: Recipe,
        window: Window,
        said: list[Said],
        cut: float | None,
    ) -> None:
        """Choose where the recording ends, and whether silence or zero features follow."""
        last = max(
            (one.end for one in said),
            default=float(rng.uniform(0.3, recipe.seconds)),
        )
        kind = rng.random()
        if cut is not None or kind < (0.15 if recipe.full else 0.4):
            return
        trailing = 0.0 if rng.random() < 0.4 else float(rng.exponential(0.8))
        window.valid = min(len(window.audio), int((last + trailing) * RATE) + 1)
        window.zero_features = kind < 0.7

    def _distort(
        self, rng: np.random.Generator, recipe: Recipe, window: Window, speech: bool
    ) -> None:
        """Distort what comes before the padding."""
        part, strength = window.audio[: window.valid], recipe.strength
        if not speech:
            kind = rng.random()
            level = 0.0 if kind < 0.25 else 10 ** rng.uniform(-4, -0.7)
            if kind >= 0.25:
                part = self.noises.take(rng, len(part)) * level
        else:
            if rng.random() < 0.75 * strength:
                part = shape(rng, part, strength)
            if rng.random() < 0.1 * strength:
                other = self.corpus.pick(rng, str(rng.choice(["en", "ru"])), 9)
                if other is not None:
                    part = self._babble(rng, part, other)
            if rng.random() < 0.7:
                snr = rng.uniform(2 if strength >= 1 else 12, 45)
                part = add_noise(rng, part, self.noises.take(rng, len(part)), snr)
            if rng.random() < 0.35 * strength:
                part = telephone(rng, part)
            part = finish(rng, part, strength)
        window.audio[: window.valid] = part
        window.audio[window.valid :] = 0

    @staticmethod
    def _babble(rng: np.random.Generator, part: np.ndarray, other: Utterance) -> np.ndarray:
        """Another voice, reversed so that it says nothing, far below."""
        voice = np.resize(other.samples[::-1].astype(np.float32) / 32768, len(part))
        return part + voice * 10 ** (-rng.uniform(10, 25) / 20)

    def _prompt(self, rng: np.random.Generator, recipe: Recipe, lang: str) -> list[int]:
        """Some previous text, with or without timestamps."""
        if rng.random() >= recipe.prompt:
            return []
        ids, timed, at = [PREV], rng.random() < 0.5, 0.0
        for _ in range(int(rng.integers(1, 6))):
            words = list(random_phrase(rng, lang).words)
            text = [i for core, mark in sentence(words) for i in core + mark]
            if timed:
                first = at + float(rng.uniform(0, 1))
                at = min(first + len(words) * 0.35, 30.0)
                text = [FIRST_TIME + int(min(first, 30) * 50), *text, FIRST_TIME + int(at * 50)]
            ids += text
        return ids[:1] + ids[1:][-100:]

    def _write(
        self,
        rng: np.random.Generator,
        recipe: Recipe,
        window: Window,
        said: list[Said],
        cut: float | None,
    ) -> None:
        """Tokens, the spans their rows should look at, and the CTC text."""
        timed = rng.random() < recipe.timestamps
        translate = rng.random() < (
            recipe.translate / (1 - recipe.english) if window.lang == "ru" else 0.03
        )
        ids = self._prompt(rng, recipe, window.lang)
        window.loss_from = len(ids)
        ids += [SOT, LANG_IDS[window.lang], TRANSLATE if translate else TRANSCRIBE]
        if not timed:
            ids.append(NO_TIMESTAMPS)
        for one in said:
            self._phrase(window, ids, one, timed, translate)
        if timed and cut is not None:
            ids.append(stamp(cut))
        elif timed and not said:
            ids.append(stamp(0.0))
        window.tokens = [*ids, EOT]
        spoken = " ".join(" ".join(one.item.words) for one in said).lower()
        window.ctc = "".join(c for c in spoken if c in CTC_LETTERS)

    @staticmethod
    def _phrase(
        window: Window,
        ids: list[int],
        said: Said,
        timed: bool,
        translate: bool,
    ) -> None:
        item = said.item
        words = item.english if translate else item.words
        times = [
            tuple(min(max(said.start + t / said.tempo, 0.0), said.end) for t in pair)
            for pair in item.times
        ]
        end = times[-1][1]
        if timed:
            ids.append(stamp(times[0][0]))
            window.spans.append((len(ids) - 2, times[0][0] - 0.1, times[0][0] + 0.1))
        follows = not translate or (item.kind in COUNTED and len(words) == len(times))
        for number, (core, mark) in enumerate(sentence(words)):
            for token in core:
                ids.append(token)
                if follows:
                    window.spans.append((len(ids) - 2, *times[number]))
            for token in mark:
                ids.append(token)
                if number == len(words) - 1:
                    window.spans.append((len(ids) - 2, end - 0.06, end + 0.06))
        if timed:
            ids.append(stamp(end))
            window.spans.append((len(ids) - 2, end - 0.06, end + 0.06))
        window.placed.append((item.words, times[0][0], end))


def sentence(words: list[str]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Ids of each word as written, and of the punctuation mark behind it."""
    cores = [w.rstrip(".,?") for w in words]
    return [
        (word_ids(" " + core), word_ids(w[len(core) :]) if len(w) > len(core) else ())
        for core, w in zip(cores, words, strict=True)
    ]


def stamp(seconds: float) -> int:
    """The timestamp token of a time in the window."""
    return FIRST_TIME + min(max(round(seconds * 50), 0), 1500)


def ctc_ids(text: str) -> list[int]:
    """Letters of the CTC head."""
    return [CTC_LETTERS.index(c) for c in text]
