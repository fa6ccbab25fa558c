"""Whisper's tokens: special ids, prompts, text, and the timed pieces of a decoded window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer

from whisper_api.errors import ModelBroken
from whisper_api.languages import LANGUAGES
from whisper_api.types import Task

TIMESTAMP_STEP = 0.02
"""Seconds between two neighbouring timestamp tokens."""

CONTEXT = 448
"""Text positions of every Whisper decoder."""

PROMPT_LIMIT = CONTEXT // 2 - 1
"""Most tokens of previous text."""

MULTILINGUAL_SIZE = 51_865
"""From this vocabulary size on a model has languages and tasks (CTranslate2 decides so too)."""


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """Tokens of one piece, timestamps included, and its times in seconds inside the window."""

    start: float
    end: float
    tokens: tuple[int, ...]


class WhisperTokenizer:
    """Text to ids and back, with Whisper's special ids by name.

    ``size`` is the model's vocabulary size: older tokenizer files hold no timestamp tokens, so
    their ids are counted on from ``<|notimestamps|>`` rather than looked up.
    """

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        """Take a loaded tokenizer.

        Raises:
            ModelBroken: it is not Whisper's (special tokens are missing).
        """
        self._tokenizer = tokenizer
        self._alphabet = {char: byte for byte, char in byte_alphabet().items()}
        self.size = size
        self.multilingual = size >= MULTILINGUAL_SIZE
        self.eot = self._special("<|endoftext|>")
        self.sot = self._special("<|startoftranscript|>")
        self.sot_prev = self._special("<|startofprev|>")
        self.no_timestamps = self._special("<|notimestamps|>")
        self.timestamp_begin = self.no_timestamps + 1

    @classmethod
    def from_file(cls, path: Path, size: int) -> WhisperTokenizer:
        """Read a ``tokenizer.json``.

        Raises:
            ModelBroken: the file is missing, or is no Whisper tokenizer.
        """
        if not path.is_file():
            raise ModelBroken(
                f"{path.name} is missing in the model's folder {path.parent.name!r}."
                " Import the original Hugging Face folder again, or copy the file from there."
            )
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception
            raise ModelBroken(f"{path.name} cannot be read: {error}") from error
        return cls(tokenizer, size)

    @cached_property
    def languages(self) -> dict[str, int]:
        """ISO code -> id of every language the model has a token for; only English without any."""
        if not self.multilingual:
            return {}
        ids = {code: self._tokenizer.token_to_id(f"<|{code}|>") for code in LANGUAGES}
        return {code: number for code, number in ids.items() if number is not None}

    @property
    def no_speech(self) -> int:
        """``<|nospeech|>``, in older checkpoints ``<|nocaptions|>``; the end token if none."""
        names = ("<|nospeech|>", "<|nocaptions|>")
        found = (self._tokenizer.token_to_id(name) for name in names)
        return next((number for number in found if number is not None), self.eot)

    @cached_property
    def suppressed(self) -> tuple[int, ...]:
        """Special ids that never belong into a result: tasks, starts, no speech, languages."""
        names = (
            "<|startoftranscript|>",
            "<|transcribe|>",
            "<|translate|>",
            "<|startoflm|>",
            "<|startofprev|>",
            "<|nospeech|>",
            "<|nocaptions|>",
        )
        found = {self._tokenizer.token_to_id(name) for name in names} | set(self.languages.values())
        return tuple(sorted(number for number in found if number is not None))

    def start_sequence(self, language: str, task: Task) -> list[int]:
        """``<|startoftranscript|>`` with language and task, as far as the model has them.

        Raises:
            ModelBroken: the model has no token for the language.
        """
        if not self.multilingual:
            return [self.sot]
        if language not in self.languages:
            raise ModelBroken(f"The model has no token for the language {language!r}.")
        return [self.sot, self.languages[language], self._special(f"<|{task}|>")]

    def prompt(self, previous: Sequence[int], language: str, task: Task) -> list[int]:
        """All ids before the first one decoded; ``previous`` keeps its last 223."""
        before = [self.sot_prev, *previous[-PROMPT_LIMIT:]] if previous else []
        return [*before, *self.start_sequence(language, task)]

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of plain text; special tokens spelt out in it are dropped."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return tuple(number for number in ids if number < self.eot)

    def text_tokens(self, tokens: Sequence[int]) -> list[int]:
        """Those that stand for text."""
        return [token for token in tokens if token < self.eot]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ``tokens``; special ones are left out, broken UTF-8 becomes U+FFFD."""
        return b"".join(map(self.token_bytes, tokens)).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes a text token stands for; none for special ones."""
        word = self._tokenizer.id_to_token(token) if token < self.eot else None
        if word is None:
            return b""
        return b"".join(
            bytes([self._alphabet[char]]) if char in self._alphabet else char.encode()
            for char in word
        )

    def seconds(self, token: int) -> float:
        """The time a timestamp token stands for."""
        return round((token - self.timestamp_begin) * TIMESTAMP_STEP, 2)

    def split_pieces(self, tokens: Sequence[int], duration: float) -> list[TokenSpan]:
        """Cut a window's tokens at its timestamps; ``duration`` is the window's real length.

        Cut as openai/whisper's ``transcribe`` cuts them: where two timestamps meet. There, text
        after the last pair is decoded again in the next window; windows are independent here,
        so that an unclosed tail becomes a piece that ends with the window. Pieces without text
        are dropped; times are clamped to the window and never run backwards.
        """
        spans: list[TokenSpan] = []
        for part in self._cut(tokens):
            if not self.text_tokens(part):
                continue
            first, last = part[0], part[-1]
            earliest = spans[-1].end if spans else 0.0
            start = self.seconds(first) if first >= self.timestamp_begin else earliest
            end = self.seconds(last) if last >= self.timestamp_begin else duration
            start = min(max(start, earliest), duration)
            end = min(max(end, start + TIMESTAMP_STEP), duration)
            spans.append(TokenSpan(start, end, tuple(part)))
        return spans

    def _cut(self, tokens: Sequence[int]) -> list[Sequence[int]]:
        begin = self.timestamp_begin
        cuts = [
            place
            for place in range(1, len(tokens))
            if tokens[place - 1] >= begin and tokens[place] >= begin
        ]
        return [tokens[i:j] for i, j in zip([0, *cuts], [*cuts, len(tokens)], strict=True)]

    def _special(self, name: str) -> int:
        number = self._tokenizer.token_to_id(name)
        if number is None:
            raise ModelBroken(f"The tokenizer is not Whisper's: it has no {name}.")
        return int(number)


def byte_alphabet() -> dict[int, str]:
    """Byte -> the printable character that byte-level BPE writes for it (as GPT-2 does)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = (byte for byte in range(256) if byte not in set(printable))
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + place) for place, byte in enumerate(rest)
    }
