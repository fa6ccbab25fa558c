"""Speech synthesizers as libraries: samples at 16 kHz together with the times of every word.

espeak-ng and flite are called in this process through ctypes; festival, which has no C
library in Debian, runs once over a script. Each returns `Spoken`; times are in seconds.
"""

import ctypes
import subprocess
import tempfile
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter, resample_poly

RATE = 16000
Times = list[tuple[float, float]]


@dataclass
class Spoken:
    """Samples in -1..1 and one (start, end) a word."""

    audio: np.ndarray
    times: Times


def to_rate(audio: np.ndarray, rate: int) -> np.ndarray:
    """Resample to 16 kHz."""
    if rate == RATE:
        return audio.astype(np.float32)
    common = gcd(rate, RATE)
    return resample_poly(audio, RATE // common, rate // common).astype(np.float32)


def trim(spoken: Spoken, margin: float = 0.02) -> Spoken | None:
    """Cut silence off both ends and keep the times right; None when nothing was said."""
    audio = spoken.audio
    frame = RATE // 100
    count = len(audio) // frame
    if count < 8:
        return None
    level = np.sqrt((audio[: count * frame].reshape(count, frame) ** 2).mean(1) + 1e-12)
    loud = np.flatnonzero(level > max(level.max() * 0.012, 1e-4))
    first = max(0, int(loud[0] * frame - margin * RATE))
    last = min(len(audio), int((loud[-1] + 1) * frame + margin * RATE))
    length = (last - first) / RATE
    times = [
        (min(max(s - first / RATE, 0.0), length), min(max(e - first / RATE, 0.0), length))
        for s, e in spoken.times
    ]
    times[0] = (min(margin, length), times[0][1])
    times[-1] = (times[-1][0], length - margin)
    return Spoken(audio[first:last], times)


def whispered(spoken: Spoken, rng: np.random.Generator) -> Spoken:
    """The same mouth without the voice: each frame's LPC filter driven by noise."""
    order, frame, hop = 18, 400, 160
    audio = np.concatenate([spoken.audio, np.zeros(frame, np.float32)]).astype(np.float64)
    audio[1:] -= 0.9 * audio[:-1].copy()
    result, shape = np.zeros(len(audio)), np.hanning(frame)
    noise = rng.standard_normal(len(audio) + frame)
    for at in range(0, len(audio) - frame, hop):
        part = audio[at : at + frame] * shape
        likeness = np.correlate(part, part, "full")[frame - 1 : frame + order]
        if likeness[0] < 1e-9:
            continue
        likeness[0] *= 1.0003
        taps = solve_toeplitz(likeness[:order], likeness[1:])
        rest = max(likeness[0] - taps @ likeness[1:], 0.0)
        made = lfilter([1.0], [1.0, *-taps], noise[at : at + frame])
        made *= np.sqrt(rest / frame)
        result[at : at + frame] += made * shape
    tilt = rng.uniform(0.0, 0.7)  # whispers are brighter than voices
    result = lfilter([1.0], [1.0, -tilt], result)[: len(spoken.audio)]
    return Spoken(result.astype(np.float32), spoken.times)


class _EspeakId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _EspeakEvent(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EspeakId),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_EspeakEvent)
)


class Espeak:
    """espeak-ng: any voice with any variant, e.g. "en-us+f3"."""

    def __init__(self, data: Path | None = None) -> None:
        """`data` is a folder that holds espeak-ng-data; None takes the system's."""
        self._lib = ctypes.CDLL("libespeak-ng.so.1")
        where = str(data).encode() if data else None
        self._rate = int(self._lib.espeak_Initialize(2, 0, where, 1))  # tell phones, too
        if self._rate <= 0:
            raise RuntimeError(
                "espeak-ng could not start: is the package espeak-ng-data installed?"
            )
        self._samples: list[np.ndarray] = []
        self.words: list[tuple[int, float]] = []  # place in the text, seconds
        self.phones: list[tuple[str, float]] = []  # espeak-ng's name, or | and a word's place
        self._callback = _CALLBACK(self._collect)
        self._lib.espeak_SetSynthCallback(self._callback)

    def _collect(self, wav: object, count: int, events: object) -> int:
        if wav and count > 0:
            self._samples.append(np.ctypeslib.as_array(wav, (count,)).copy())  # type: ignore[call-overload]
        index = 0
        while events[index].type != 0:  # type: ignore[index]
            event = events[index]  # type: ignore[index]
            if event.type == 1:
                self.words.append((event.text_position - 1, event.audio_position / 1000))
                self.phones.append((f"|{event.text_position - 1}", event.audio_position / 1000))
            elif event.type == 7:
                name = bytes(event.id.string).split(b"\0")[0].decode("ascii", "replace")
                self.phones.append((name, event.audio_position / 1000))
            index += 1
        return 0

    def say(
        self, words: list[str], voice: str, rate: int, pitch: int, spread: int, gap: int = 0
    ) -> Spoken | None:
        """Speak words; a word that gave no event gets the start of the next one."""
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            return None
        for key, value in ((1, rate), (3, pitch), (4, spread), (7, gap)):
            self._lib.espeak_SetParameter(key, value, 0)
        self._samples, self.words, self.phones = [], [], []
        text = " ".join(words).encode()
        self._lib.espeak_Synth(text, len(text) + 1, 0, 1, 0, 1, None, None)
        if not self._samples:
            return None
        audio = np.concatenate(self._samples).astype(np.float32) / 32768
        return Spoken(to_rate(audio, self._rate), self._times(words, len(audio) / self._rate))

    def _times(self, words: list[str], total: float) -> Times:
        starts: list[float | None] = []
        position = 0
        by_position = dict(self.words)
        for word in words:
            starts.append(by_position.get(position))
            position += len(word) + 1
        filled: list[float] = []
        following = total
        for start in reversed(starts):
            following = following if start is None else start
            filled.append(following)
        filled.reverse()
        return list(zip(filled, [*filled[1:], total], strict=True))


class Flite:
    """flite's CMU voices, which know where every phone ends."""

    VOICES = ("kal", "kal16", "awb", "slt", "rms")

    def __init__(self) -> None:
        mode = ctypes.RTLD_GLOBAL
        self._lib = ctypes.CDLL("libflite.so.1", mode)
        for name in ("usenglish", "cmulex"):
            ctypes.CDLL(f"libflite_{name}.so.1", mode)
        self._lib.flite_init()
        for name in ("flite_synth_text", "utt_relation", "relation_head", "item_next", "utt_wave"):
            getattr(self._lib, name).restype = ctypes.c_void_p
        self._lib.flite_ffeature_float.restype = ctypes.c_float
        self._voices: dict[str, int] = {}
        for name in self.VOICES:
            register = getattr(
                ctypes.CDLL(f"libflite_cmu_us_{name}.so.1", mode), f"register_cmu_us_{name}"
            )
            register.restype = ctypes.c_void_p
            self._voices[name] = register(None)

    def say(self, words: list[str], voice: str, stretch: float) -> Spoken | None:
        """Speak words with a duration factor."""
        pointer = self._voices[voice]
        features = ctypes.cast(pointer + 8, ctypes.POINTER(ctypes.c_void_p))[0]
        self._lib.flite_feat_set_float(
            ctypes.c_void_p(features), b"duration_stretch", ctypes.c_float(stretch)
        )
        utterance = ctypes.c_void_p(
            self._lib.flite_synth_text(" ".join(words).encode(), ctypes.c_void_p(pointer))
        )
        wave = self._lib.utt_wave(utterance)
        # cst_wave: const char *type; int sample_rate; int num_samples; int num_channels; short *samples
        rate, count = ctypes.cast(wave + 8, ctypes.POINTER(ctypes.c_int))[0:2]
        samples = ctypes.cast(wave + 24, ctypes.POINTER(ctypes.POINTER(ctypes.c_short)))[0]
        audio = np.ctypeslib.as_array(samples, (count,)).astype(np.float32) / 32768
        times = self._times(utterance)
        self._lib.delete_utterance(utterance)
        return Spoken(to_rate(audio, rate), times) if len(times) == len(words) else None

    def _times(self, utterance: ctypes.c_void_p) -> Times:
        feature = self._lib.flite_ffeature_float
        item = self._lib.relation_head(ctypes.c_void_p(self._lib.utt_relation(utterance, b"Word")))
        times: Times = []
        while item:
            word = ctypes.c_void_p(item)
            start = feature(word, b"R:SylStructure.daughter1.daughter1.R:Segment.p.end")
            times.append(
                (start, feature(word, b"R:SylStructure.daughtern.daughtern.R:Segment.end"))
            )
            item = self._lib.item_next(word)
        return times


def festival(voice: str, texts: list[list[str]], stretches: list[float]) -> list[Spoken | None]:
    """Speak all texts in one festival process."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"({voice})"]
        for index, (words, stretch) in enumerate(zip(texts, stretches, strict=True)):
            lines.append(f"(Parameter.set 'Duration_Stretch {stretch:.2f})")
            lines.append(f'(set! u (utt.synth (Utterance Text "{" ".join(words)}")))')
            lines.append(f'(utt.save.wave u "{folder}/{index}.wav" \'riff)')
            lines.append(
                f'(let ((f (fopen "{folder}/{index}.txt" "w"))) (mapcar (lambda (w) (format f "%f %f\\n" '
                "(item.feat w 'word_start) (item.feat w 'word_end))) (utt.relation.items u 'Word)) (fclose f))"
            )
        script = Path(folder, "all.scm")
        script.write_text("\n".join(lines), encoding="utf-8")
        subprocess.run(["festival", "-b", str(script)], check=False, capture_output=True)
        return [_festival_result(Path(folder, str(i)), len(words)) for i, words in enumerate(texts)]


def _festival_result(stem: Path, count: int) -> Spoken | None:
    wave, table = stem.with_suffix(".wav"), stem.with_suffix(".txt")
    if not wave.exists() or not table.exists():
        return None
    times = [
        (float(a), float(b)) for a, b in (line.split() for line in table.read_text().splitlines())
    ]
    audio, rate = soundfile.read(wave, dtype="float32")
    if len(times) != count:
        return None
    return Spoken(to_rate(audio, rate), times)
