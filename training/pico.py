"""SVOX Pico as a library: six women who do not tell words' times, so each utterance is one word."""

import ctypes
from pathlib import Path

import numpy as np

from voices import RATE, Spoken

DATA = Path("/usr/share/pico/lang")
VOICES = {
    "en-US": "lh0",
    "en-GB": "kh0",
    "de-DE": "gl0",
    "es-ES": "zl0",
    "fr-FR": "nk0",
    "it-IT": "cm0",
}
READ = {"eïte": "éïte"}  # it would make one syllable of it
_MEMORY, _BUSY = 2_500_000, 201


class Pico:
    """One of the women, by her language."""

    def __init__(self, language: str) -> None:
        self._lib = ctypes.CDLL("libttspico.so.0")
        self._memory = ctypes.create_string_buffer(_MEMORY)
        system = ctypes.c_void_p()
        self._must(self._lib.pico_initialize(self._memory, _MEMORY, ctypes.byref(system)))
        self._must(self._lib.pico_createVoiceDefinition(system, b"voice"))
        for part in ("ta", f"{VOICES[language]}_sg"):
            path, resource = str(DATA / f"{language}_{part}.bin").encode(), ctypes.c_void_p()
            self._must(self._lib.pico_loadResource(system, path, ctypes.byref(resource)))
            name = ctypes.create_string_buffer(64)
            self._must(self._lib.pico_getResourceName(system, resource, name))
            self._must(self._lib.pico_addResourceToVoiceDefinition(system, b"voice", name))
        self._engine = ctypes.c_void_p()
        self._must(self._lib.pico_newEngine(system, b"voice", ctypes.byref(self._engine)))

    @staticmethod
    def _must(status: int) -> None:
        if status != 0:
            raise RuntimeError(f"Pico answered {status}: is the package libttspico-data installed?")

    def say(self, word: str, speed: int, pitch: int) -> Spoken:
        """Speak one word at a speed (20 to 500) and pitch (50 to 200), both in hundredths of the usual."""
        text = f"<speed level='{speed}'><pitch level='{pitch}'>{READ.get(word, word)}</pitch></speed>".encode()
        left, put = text + b"\0", ctypes.c_int16()
        while left:
            place = self._engine, left, len(left), ctypes.byref(put)
            self._must(self._lib.pico_putTextUtf8(*place))
            left = left[put.value :]
        buffer, got, kind = ctypes.create_string_buffer(128), ctypes.c_int16(), ctypes.c_int16()
        parts, status = [], _BUSY
        while status == _BUSY:
            status = self._lib.pico_getData(
                self._engine, buffer, len(buffer), ctypes.byref(got), ctypes.byref(kind)
            )
            parts.append(buffer.raw[: got.value])
        audio = np.frombuffer(b"".join(parts), np.int16).astype(np.float32) / 32768
        return Spoken(audio, [(0.0, len(audio) / RATE)])
