"""Whisper's tokenizer, made from its vocabulary file, and the few ids that our texts use."""

import base64
import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

LANGUAGE_CODES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi "
    "ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd "
    "gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su"
).split()

EOT, SOT, TRANSLATE, TRANSCRIBE, PREV, NO_SPEECH, NO_TIMESTAMPS, FIRST_TIME = (
    50257, 50258, 50358, 50359, 50361, 50362, 50363, 50364,
)  # fmt: skip
TIMES = 1501
SIZE = FIRST_TIME + TIMES
LANG_IDS = {"en": 50259, "ru": 50263}


def _byte_letters() -> dict[int, str]:
    """GPT-2's printable stand-in for every byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


def _ranks() -> dict[bytes, int]:
    spec = find_spec("whisper")
    if spec is None or spec.origin is None:
        raise RuntimeError("install openai-whisper (with --no-deps): its vocabulary file is needed")
    lines = (
        Path(spec.origin)
        .with_name("assets")
        .joinpath("multilingual.tiktoken")
        .read_text()
        .splitlines()
    )
    pairs = (line.split() for line in lines if line)
    return {base64.b64decode(p[0]) if len(p) == 2 else b"": int(p[-1]) for p in pairs}


def _halves(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two tokens whose merge makes this one."""
    parts = [bytes([b]) for b in token]
    limit = ranks[token]
    while len(parts) > 2:
        found = [(ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1)]
        rank, at = min(found)
        if rank >= limit:
            return None
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def special_tokens() -> list[str]:
    """Ids 50257 and up, in order."""
    names = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{c}|>" for c in LANGUAGE_CODES)]
    names += [
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
    ]
    return names + [f"<|{i * 0.02:.2f}|>" for i in range(TIMES)]


def tokenizer_json() -> dict[str, Any]:
    """The whole tokenizer in the format of the tokenizers library."""
    ranks, letters = _ranks(), _byte_letters()
    shown = {token: "".join(letters[b] for b in token) for token in ranks}
    pairs = [_halves(t, ranks) for t in sorted(ranks, key=ranks.__getitem__) if len(t) > 1]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    added = [
        {
            "id": EOT + i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": EOT + i < FIRST_TIME,
        }
        for i, name in enumerate(special_tokens())
    ]  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {shown[t]: i for t, i in sorted(ranks.items(), key=lambda pair: pair[1])},
            "merges": [f"{shown[p[0]]} {shown[p[1]]}" for p in pairs if p],
        },
    }  # fmt: skip


@lru_cache(1)
def tokenizer() -> Tokenizer:
    """The tokenizer, made once a process."""
    return Tokenizer.from_str(json.dumps(tokenizer_json()))


@lru_cache(100_000)
def word_ids(word: str) -> tuple[int, ...]:
    """The ids of one word, which carries its leading space."""
    return tuple(tokenizer().encode(word, add_special_tokens=False).ids)


class TokenSet:
    """The ids in use as a short list: text and specials first, then the 1,501 timestamps."""

    def __init__(self, text_ids: list[int]) -> None:
        self.text_ids = text_ids
        self.index = {token: i for i, token in enumerate(text_ids)}
        self.text_count = len(text_ids)
        self.unused = SIZE - TIMES - len(text_ids)

    @classmethod
    def of_words(cls, vocabulary: dict[str, list[str]]) -> "TokenSet":
        """All specials of our languages, and all pieces of these words in both cases."""
        ids = {EOT, SOT, TRANSLATE, TRANSCRIBE, PREV, NO_SPEECH, NO_TIMESTAMPS, *LANG_IDS.values()}
        for piece in (".", ",", "?", *(f" {w}" for v in vocabulary.values() for w in v)):
            ids |= set(word_ids(piece))
        return cls(sorted(ids))

    def compact(self, token: int) -> int:
        """Whisper's id -> ours."""
        return self.text_count + token - FIRST_TIME if token >= FIRST_TIME else self.index[token]

    def full(self, index: int) -> int:
        """Ours -> Whisper's id."""
        return (
            FIRST_TIME + index - self.text_count
            if index >= self.text_count
            else self.text_ids[index]
        )
