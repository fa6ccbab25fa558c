"""The exported model through CTranslate2, one 30 s window at a time."""

import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import ctranslate2
import numpy as np
import torch

from features import RATE, log_mel
from tokens import EOT, FIRST_TIME, LANG_IDS, NO_TIMESTAMPS, SOT, TRANSCRIBE, TRANSLATE, tokenizer

WINDOW = 30 * RATE


@dataclass
class Heard:
    """What one decoding gave."""

    text: str
    segments: list[tuple[float, float]]
    log_prob: float
    no_speech: float
    ids: list[int]

    @property
    def compression(self) -> float:
        """Length of the text over its length when compressed, as Whisper measures repetition."""
        raw = self.text.strip().encode()
        return len(raw) / len(zlib.compress(raw)) if raw else 0.0


class Engine:
    """int8 on one core."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.model = ctranslate2.models.Whisper(
            str(folder), compute_type="int8", intra_threads=threads
        )

    def encode(self, audio: np.ndarray, zero_features: bool = True) -> ctranslate2.StorageView:
        """Encoder states; past the audio either the features are 0 or the samples are."""
        padded = np.zeros(WINDOW, np.float32)
        padded[: len(audio)] = audio[:WINDOW]
        if zero_features:
            mels = torch.zeros(1, 80, 3000)
            part = log_mel(
                torch.from_numpy(padded[: min(len(audio) + 160, WINDOW) // 160 * 160])[None]
            )
            mels[:, :, : part.shape[2]] = part
        else:
            mels = log_mel(torch.from_numpy(padded)[None])
        return self.model.encode(ctranslate2.StorageView.from_array(mels.contiguous().numpy()))

    def language(self, states: ctranslate2.StorageView) -> str:
        """The likelier of our two languages must also be the likeliest of all."""
        return str(self.model.detect_language(states)[0][0][0])[2:-2]

    def decode(
        self,
        states: ctranslate2.StorageView,
        lang: str,
        timestamps: bool = True,
        beam: int = 5,
        translate: bool = False,
    ) -> Heard:
        """Text and segments."""
        prompt = [SOT, LANG_IDS.get(lang, LANG_IDS["en"]), TRANSLATE if translate else TRANSCRIBE]
        result = self.model.generate(
            states, [prompt if timestamps else [*prompt, NO_TIMESTAMPS]], beam_size=beam, return_scores=True,
            return_no_speech_prob=True, max_initial_timestamp_index=50, suppress_tokens=None, max_length=448,
        )[0]  # fmt: skip
        ids = [i for i in result.sequences_ids[0] if i != EOT]
        stamps = [(i - FIRST_TIME) / 50 for i in ids if i >= FIRST_TIME]
        count = len(result.sequences_ids[0])
        log_prob = result.scores[0] * count / (count + 1)
        text = tokenizer().decode([i for i in ids if i < EOT])
        return Heard(
            text,
            list(zip(stamps[::2], stamps[1::2], strict=False)),
            log_prob,
            result.no_speech_prob,
            ids,
        )

    def word_times(
        self, states: ctranslate2.StorageView, lang: str, heard: Heard, frames: int
    ) -> list[tuple[float, float]]:
        """Times of the words from the alignment heads, kept within the decoded segments' outer bounds.

        The path through the attention always begins at time 0, so the first start means nothing by itself.
        """
        text = [i for i in heard.ids if i < EOT]
        found = self.model.align(
            states, [SOT, LANG_IDS[lang], TRANSCRIBE], [text], frames, median_filter_width=7
        )[0]
        starts: dict[int, float] = {}
        for row, column in found.alignments:
            starts.setdefault(row, column / 50)
        heads = [n for n, i in enumerate(text) if tokenizer().id_to_token(i).startswith("Ġ")]
        first, last = (
            (heard.segments[0][0], heard.segments[-1][1]) if heard.segments else (0.0, frames / 100)
        )
        bounds = [first, *(min(max(starts.get(n, last), first), last) for n in heads[1:]), last]
        return list(pairwise(bounds))
